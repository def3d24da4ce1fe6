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
    nsec_t delay;           /* artificial; 0 */
};

/* Hands a request to its loop's ring. */
void real_disk_queue(struct disk_req *r);

/* ---- artificial latency (disk_delay.c), in builds with test hooks only ---- */

#ifdef ZBS_MUTATE
nsec_t real_disk_delay(void);                          /* as the environment wants it; or 0 */
void real_disk_hold(struct disk_req *r, nsec_t until); /* then real_disk_queue */
#else
static inline nsec_t real_disk_delay(void)
{
    return 0;
}
static inline void real_disk_hold(struct disk_req *r, nsec_t until UNUSED)
{
    real_disk_queue(r);
}
#endif

#endif
