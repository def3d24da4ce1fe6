/* SPDX-License-Identifier: Apache-2.0
 *
 * A back end for clients that have no part in reservations, those of NBD: it passes on to another
 * back end what no initiator's reservation of the volume excludes; the rest is ERR_RESERVED. */
#ifndef ZBS_ACCESS_GUEST_H
#define ZBS_ACCESS_GUEST_H

#include "access/block/block.h"
#include "access/scsi/pr_unit.h"

/* Over `inner`, which is closed with it, and after an error. Reads the volume's reservations. */
co_fn int guest_backend_open(struct pr_registry *reservations, struct block_backend *inner,
                             struct block_backend **ret) MUST_CHECK;

#endif
