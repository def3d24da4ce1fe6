/* SPDX-License-Identifier: Apache-2.0
 *
 * A cache of RPC clients by (address, instance), for one loop: callers that learn addresses at
 * run time share connections, and what nobody has used for a while is closed. */
#ifndef ZBS_RPC_RPC_POOL_H
#define ZBS_RPC_RPC_POOL_H

#include "common/rpc/rpc.h"

struct rpc_pool;

struct rpc_pool_conf {
    const char *self;       /* copied */
    const char *cluster_id; /* copied */
    nsec_t connect_timeout; /* 0: 1 s */
    nsec_t idle;            /* close clients that nobody holds after this; 0: 30 s */
};

/* Belongs to this loop. */
struct rpc_pool *rpc_pool_new(const struct rpc_pool_conf *conf);
/* Closes all clients; none may be held. */
co_fn void rpc_pool_close(struct rpc_pool *p);

/* The client of (addr, instance), made if there is none; held until rpc_pool_put. Does not
 * suspend and does not connect. */
struct rpc_client *rpc_pool_get(struct rpc_pool *p, const char *addr, uint32_t instance);
void rpc_pool_put(struct rpc_pool *p, struct rpc_client *c);
/* Clients, held or not. */
uint32_t rpc_pool_count(const struct rpc_pool *p);

#endif
