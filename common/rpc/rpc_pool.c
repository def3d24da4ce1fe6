/* SPDX-License-Identifier: Apache-2.0
 *
 * Cache of RPC clients. A cluster has some hundreds of them per loop at most: buckets by a hash
 * of the address; one coroutine closes what has been idle for long. */
#include <string.h>
#include "common/base/assert.h"
#include "common/base/crc32c.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/rpc/rpc_pool.h"

#define POOL_BUCKETS 64u

struct pool_entry {
    struct list link; /* bucket */
    struct rpc_client *client;
    uint32_t instance;
    uint32_t users;
    nsec_t idle_since;
};

struct rpc_pool {
    struct co_loop *loop;
    char *self, *cluster_id;
    nsec_t connect_timeout, idle;
    struct list buckets[POOL_BUCKETS];
    uint32_t count;
    struct co_group group; /* the reaper, while there are clients */
    bool reaping, closing;
};

static struct list *pool_bucket(struct rpc_pool *p, const char *addr)
{
    return &p->buckets[crc32c(0, addr, strlen(addr)) % POOL_BUCKETS];
}

struct rpc_pool *rpc_pool_new(const struct rpc_pool_conf *conf)
{
    struct rpc_pool *p = MEM_NEW(struct rpc_pool);

    p->loop = co_loop();
    p->self = mem_strdup(conf->self);
    p->cluster_id = mem_strdup(conf->cluster_id != NULL ? conf->cluster_id : "");
    p->connect_timeout = conf->connect_timeout;
    p->idle = conf->idle > 0 ? conf->idle : 30 * NSEC_PER_SEC;
    for (uint32_t i = 0; i < POOL_BUCKETS; i++)
        list_init(&p->buckets[i]);
    co_group_init(&p->group);
    return p;
}

/* Takes one client that has been idle since before `since` out of the pool; NULL for none. */
static struct rpc_client *pool_take_idle(struct rpc_pool *p, nsec_t since)
{
    for (uint32_t i = 0; i < POOL_BUCKETS; i++) {
        LIST_FOREACH (e, &p->buckets[i], struct pool_entry, link) {
            struct rpc_client *c = e->client;

            if (e->users > 0 || e->idle_since > since)
                continue;
            list_del(&e->link);
            mem_free(e);
            p->count--;
            return c;
        }
    }
    return NULL;
}

static co_fn int reaper_main(void *arg)
{
    struct rpc_pool *p = arg;

    while (p->count > 0 && !p->closing) {
        struct rpc_client *c;

        if (co_sleep(p->idle / 2) == ERR_CANCELED)
            break;
        /* Closing suspends: look again from the start after each. */
        while ((c = pool_take_idle(p, co_now() - p->idle)) != NULL)
            rpc_client_close(c);
    }
    p->reaping = false;
    return 0;
}

struct rpc_client *rpc_pool_get(struct rpc_pool *p, const char *addr, uint32_t instance)
{
    struct list *bucket = pool_bucket(p, addr);
    struct rpc_client_conf conf = {.addr = addr,
                                   .self = p->self,
                                   .cluster_id = p->cluster_id,
                                   .instance = instance,
                                   .connect_timeout = p->connect_timeout};
    struct pool_entry *new_entry;

    ASSERT(co_loop() == p->loop && !p->closing);
    LIST_FOREACH (e, bucket, struct pool_entry, link) {
        if (e->instance == instance && strcmp(rpc_client_addr(e->client), addr) == 0) {
            e->users++;
            return e->client;
        }
    }
    new_entry = MEM_NEW(struct pool_entry);
    list_init(&new_entry->link);
    new_entry->client = rpc_client_new(&conf);
    new_entry->instance = instance;
    new_entry->users = 1;
    list_push_front(bucket, &new_entry->link);
    p->count++;
    if (!p->reaping) {
        p->reaping = true;
        co_spawn_detached_deadline(&p->group, "rpc-pool", reaper_main, p);
    }
    return new_entry->client;
}

void rpc_pool_put(struct rpc_pool *p, struct rpc_client *c)
{
    LIST_FOREACH (e, pool_bucket(p, rpc_client_addr(c)), struct pool_entry, link) {
        if (e->client != c)
            continue;
        ASSERT(e->users > 0);
        if (--e->users == 0)
            e->idle_since = co_now();
        return;
    }
    ASSERTF(false, "client of %s is not from this pool", rpc_client_addr(c));
}

uint32_t rpc_pool_count(const struct rpc_pool *p)
{
    return p->count;
}

co_fn void rpc_pool_close(struct rpc_pool *p)
{
    struct rpc_client *c;

    ASSERT(co_loop() == p->loop && !p->closing);
    p->closing = true;
    co_group_close(&p->group);
    while ((c = pool_take_idle(p, NSEC_NEVER)) != NULL)
        rpc_client_close(c);
    ASSERT(p->count == 0);
    mem_free(p->self);
    mem_free(p->cluster_id);
    mem_free(p);
}
