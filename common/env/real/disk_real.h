/* SPDX-License-Identifier: Apache-2.0
 *
 * A disk of the real environment, shared by disk_open.c and disk_uring.c. */
#ifndef ZBS_ENV_REAL_DISK_REAL_H
#define ZBS_ENV_REAL_DISK_REAL_H

#include <inttypes.h>
#include "common/env/real/real.h"

struct disk_real {
    struct disk base; /* must be first */
    int fd;
    char *path;
    uint32_t in_flight;     /* requests submitted and not completed */
    struct co_wait *closer; /* waits for them */
};

/* Makes the loop's ring if it has none. On its thread. */
int real_ring_get(struct real_loop *l) MUST_CHECK;

#endif
