/* SPDX-License-Identifier: Apache-2.0
 *
 * An operator's requests: see operator.h. */
#include "tests/sim/operator.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/units.h"

#define PATIENCE     (10 * NSEC_PER_SEC)
#define GROWTH       (4 * MIB)
#define EXTRA_BYTES  (64 * MIB)
#define DRAIN_METHOD 16

/* One request to the leader; *r is the caller's to free. */
static int ask(struct cluster *c, struct meta_client *mc, int method, ProtobufCMessage *q,
               struct rpc_reply *r)
{
    nsec_t former = co_deadline_push(co_now() + PATIENCE);
    int rc;

    (void)c;
    rpc_reply_init(r);
    rc = meta_call(mc, method, q, true, r);
    co_deadline_restore(former);
    return rc;
}

static int volume_create(struct cluster *c, const char *name, uint64_t size, uint32_t replicas,
                         uint32_t stripes, uint64_t *ret_id)
{
    struct meta_client *mc = meta_client_new(c->metas, "operator");
    Zbs__Meta__VolumeCreateRequest q = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    q.size_bytes = size;
    q.replicas = replicas;
    q.stripe_count = stripes;
    rc = ask(c, mc, META_VOLUME_CREATE, &q.base, &r);
    if (rc == 0)
        *ret_id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    meta_client_close(mc);
    return rc;
}

static int volume_delete(struct cluster *c, const char *name)
{
    struct meta_client *mc = meta_client_new(c->metas, "operator");
    Zbs__Meta__VolumeDeleteRequest q = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)name;
    rc = ask(c, mc, META_VOLUME_DELETE, &q.base, &r);
    rpc_reply_free(&r);
    meta_client_close(mc);
    return rc;
}

static int pool_create(struct cluster *c, uint32_t replicas)
{
    struct meta_client *mc = meta_client_new(c->metas, "operator");
    Zbs__Meta__PoolCreateRequest q = ZBS__META__POOL_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(mc, &m);
    q.mutation = &m;
    q.name = (char *)"pool";
    q.replicas = replicas;
    rc = ask(c, mc, META_POOL_CREATE, &q.base, &r);
    rpc_reply_free(&r);
    meta_client_close(mc);
    return rc;
}

/* Until it is done: nothing else has begun yet. */
int operator_create(struct cluster *c, uint32_t replicas, uint64_t size_bytes)
{
    nsec_t until = co_now() + 60 * NSEC_PER_SEC;
    struct cluster_counts n = {0};
    int rc = ERR_TIMEOUT;

    while (n.chunks_alive < HOSTS && co_now() < until) {
        (void)operator_status(c, &n);
        (void)co_sleep(100 * NSEC_PER_MSEC);
    }
    c->used_at_first = n.used_bytes;
    while (rc < 0 && rc != ERR_EXISTS && co_now() < until)
        rc = pool_create(c, replicas);
    rc = ERR_TIMEOUT;
    while (rc < 0 && rc != ERR_EXISTS && co_now() < until)
        rc = volume_create(c, "volume", size_bytes, 0, 2, &c->volume_id);
    c->size_bytes = size_bytes;
    return rc;
}

int operator_resize(struct cluster *c)
{
    struct meta_client *mc = meta_client_new(c->metas, "operator");
    Zbs__Meta__VolumeResizeRequest q = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    int rc;

    meta_client_mutation(mc, &m);
    q.mutation = &m;
    q.pool = (char *)"pool";
    q.name = (char *)"volume";
    c->size_asked = q.size_bytes = MAX(c->size_asked, c->size_bytes) + GROWTH;
    rc = ask(c, mc, META_VOLUME_RESIZE, &q.base, &r);
    if (rc == 0)
        c->size_bytes = MAX(c->size_bytes, ((Zbs__Meta__Volume *)r.msg)->size_bytes);
    rpc_reply_free(&r);
    meta_client_close(mc);
    return rc;
}

int operator_extra_create(struct cluster *c)
{
    struct extra *x = &c->extras[c->n_extras];
    int rc;

    if (c->n_extras == EXTRAS_MAX)
        return ERR_TOO_LARGE;
    c->n_extras++;
    snprintf(x->name, sizeof(x->name), "extra-%u", c->n_extras);
    x->size_bytes = EXTRA_BYTES;
    rc = volume_create(c, x->name, EXTRA_BYTES,
                       c->fragile ? HOSTS : 1 + (uint32_t)(sim_random(c->sim) % HOSTS),
                       1 + (uint32_t)(sim_random(c->sim) % 2), &x->id);
    x->there = rc == 0;
    return rc;
}

int operator_extra_delete(struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_extras; i++) {
        struct extra *x = &c->extras[i];

        if (!x->there)
            continue;
        x->there = false;
        return volume_delete(c, x->name);
    }
    return ERR_NOTFOUND;
}

int operator_drain(struct cluster *c, struct node *n, bool begin)
{
    struct rpc_client *client = rpc_client_new(&(struct rpc_client_conf){
        .addr = n->listen[ROLE_CHUNK], .self = "operator", .cluster_id = ""});
    Zbs__Chunk__DiskDrainRequest q = ZBS__CHUNK__DISK_DRAIN_REQUEST__INIT;
    nsec_t former = co_deadline_push(co_now() + PATIENCE);
    struct rpc_reply r;
    int rc;

    (void)c;
    q.path = (char *)DISK2_PATH;
    q.cancel = !begin;
    rpc_reply_init(&r);
    rc = rpc_call(client, &zbs__chunk__chunk__descriptor, DRAIN_METHOD, &q.base, NULL, &r);
    co_deadline_restore(former);
    rpc_reply_free(&r);
    rpc_client_close(client);
    return rc;
}

int operator_status(struct cluster *c, struct cluster_counts *ret)
{
    struct meta_client *mc = meta_client_new(c->metas, "operator");
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    int rc = ask(c, mc, META_CLUSTER_STATUS, &q.base, &r);

    if (rc == 0) {
        const Zbs__Meta__ClusterStatusReply *s = (const Zbs__Meta__ClusterStatusReply *)r.msg;

        *ret =
            (struct cluster_counts){.degraded = s->extents_degraded, .used_bytes = s->used_bytes};
        for (size_t i = 0; i < s->n_chunks; i++)
            ret->chunks_alive += s->chunks[i]->view->alive;
    }
    rpc_reply_free(&r);
    meta_client_close(mc);
    return rc;
}

/* Deletes one volume; a retry may find that the first attempt did it. */
static void delete_surely(struct cluster *c, const char *name, nsec_t until)
{
    int rc = ERR_TIMEOUT;

    while (rc < 0 && rc != ERR_NOTFOUND && co_now() < until) {
        rc = volume_delete(c, name);
        if (rc < 0)
            (void)co_sleep(200 * NSEC_PER_MSEC);
    }
    if (rc < 0 && rc != ERR_NOTFOUND)
        cluster_fail(c, "volume %s cannot be deleted: %s", name, err_text(rc));
}

void operator_delete_all(struct cluster *c, nsec_t limit)
{
    nsec_t until = co_now() + limit;
    struct cluster_counts n = {.used_bytes = UINT64_MAX};

    for (uint32_t i = 0; i < c->n_extras; i++)
        delete_surely(c, c->extras[i].name, until);
    delete_surely(c, "volume", until);
    while (n.used_bytes > c->used_at_first && co_now() < until) {
        (void)operator_status(c, &n);
        (void)co_sleep(200 * NSEC_PER_MSEC);
    }
    if (n.used_bytes > c->used_at_first)
        cluster_fail(c,
                     "%" PRIu64 " bytes stay in use after every volume was deleted (%" PRIu64
                     " before the first)",
                     n.used_bytes, c->used_at_first);
}
