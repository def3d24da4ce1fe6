/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent reservations of volumes, kept by meta for all access servers: the store of
 * access/scsi/pr_unit.h. */
#ifndef ZBS_ACCESS_RESERVE_H
#define ZBS_ACCESS_RESERVE_H

#include "access/scsi/pr_unit.h"
#include "access/vol/vol.h"

struct reserve_meta {
    struct meta_client *meta;
    struct vol_engine *engine;
};

/* A store over rm, which outlives it. */
struct pr_store reserve_meta_store(struct reserve_meta *rm);

#endif
