/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits of volumes and pools (qos.c), and this server's shares of them (qos_share.c). */
#ifndef ZBS_ACCESS_VOL_QOS_H
#define ZBS_ACCESS_VOL_QOS_H

#include "access/vol/vol_int.h"

#define QOS_WHOLE 1000000u /* shares are in millionths of a limit */

/* Tokens: I/Os or bytes. */
struct qos_bucket {
    uint64_t limit; /* of all servers, per second; 0: none */
    uint64_t burst;
    uint32_t share;
    nsec_t full_at;
    uint64_t queued; /* wanted by those who wait */
    uint64_t taken;  /* since the last report */
    double used;     /* per second, smoothed */
};

struct qos_limit {
    struct qos_bucket ios, bytes;
    nsec_t used; /* last */
    bool shared; /* meta gives us a share */
};

struct qos_pool {
    struct list link;
    struct vol_engine *e;
    uint32_t id;
    struct qos_limit limit;
    struct list waiting; /* volumes with a queue, by turns */
    struct co_cond kick;
    bool pumping;
};

struct qos_volume {
    struct list link; /* pool's waiting */
    struct qos_pool *pool;
    struct qos_limit limit;
    struct list waiters; /* struct qos_waiter */
};

bool qos_limited(const struct qos_limit *l);
void qos_share_set(struct qos_limit *l, uint32_t ios_share, uint32_t bytes_share);
void qos_kick(struct vol_engine *e); /* shares have changed */
/* Before meta has given one. */
uint32_t qos_first_share(const struct vol_engine *e);

#endif
