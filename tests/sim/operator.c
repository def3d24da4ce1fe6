/* SPDX-License-Identifier: Apache-2.0
 *
 * An operator's requests: see operator.h. */
#include "tests/sim/operator.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/units.h"
#include "tests/sim/workload.h"

#define PATIENCE    (10 * NSEC_PER_SEC)
#define GROWTH      (4 * MIB)
#define EXTRA_BYTES (64 * MIB)
#define GC_SECONDS  20
/* Of the chunk service, by their order in its definition. */
#define ADD_METHOD    14
#define DRAIN_METHOD  16
#define REMOVE_METHOD 17

/* One request to the leader, by somebody who is gone afterwards; *r is the caller's to free.
 * mutation: the request's field, set for this call; NULL: it has none. */
static int ask(struct cluster *c, int method, ProtobufCMessage *q, Zbs__Meta__Mutation **mutation,
               struct rpc_reply *r)
{
    struct meta_client *mc = meta_client_new(c->metas, "operator");
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    nsec_t former;
    int rc;

    if (mutation != NULL) {
        meta_client_mutation(mc, &m);
        *mutation = &m;
    }
    rpc_reply_init(r);
    former = co_deadline_push(co_now() + PATIENCE);
    rc = meta_call(mc, method, q, true, r);
    co_deadline_restore(former);
    if (mutation != NULL)
        *mutation = NULL;
    meta_client_close(mc);
    return rc;
}

static int volume_create(struct cluster *c, const char *name, uint64_t size, uint32_t replicas,
                         uint32_t stripes, uint64_t *ret_id)
{
    Zbs__Meta__VolumeCreateRequest q = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.pool = (char *)"pool";
    q.name = (char *)name;
    q.size_bytes = size;
    q.replicas = replicas;
    q.stripe_count = stripes;
    rc = ask(c, META_VOLUME_CREATE, &q.base, &q.mutation, &r);
    if (rc == 0)
        *ret_id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    return rc;
}

static int volume_delete(struct cluster *c, const char *name)
{
    Zbs__Meta__VolumeDeleteRequest q = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.pool = (char *)"pool";
    q.name = (char *)name;
    rc = ask(c, META_VOLUME_DELETE, &q.base, &q.mutation, &r);
    rpc_reply_free(&r);
    return rc;
}

static int pool_create(struct cluster *c, uint32_t replicas)
{
    Zbs__Meta__PoolCreateRequest q = ZBS__META__POOL_CREATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.name = (char *)"pool";
    q.replicas = replicas;
    rc = ask(c, META_POOL_CREATE, &q.base, &q.mutation, &r);
    rpc_reply_free(&r);
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
    c->replicas = replicas;
    while (rc < 0 && rc != ERR_EXISTS && co_now() < until)
        rc = pool_create(c, replicas);
    rc = ERR_TIMEOUT;
    while (rc < 0 && rc != ERR_EXISTS && co_now() < until)
        rc = volume_create(c, "volume", size_bytes, 0, 2, &c->volume_id);
    c->size_bytes = size_bytes;
    return rc;
}

int operator_setting(struct cluster *c, const char *name, uint64_t value)
{
    Zbs__Meta__SettingSetRequest q = ZBS__META__SETTING_SET_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.name = (char *)name;
    q.value = value;
    rc = ask(c, META_SETTING_SET, &q.base, &q.mutation, &r);
    rpc_reply_free(&r);
    return rc;
}

int operator_resize(struct cluster *c)
{
    Zbs__Meta__VolumeResizeRequest q = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.pool = (char *)"pool";
    q.name = (char *)"volume";
    c->size_asked = q.size_bytes = MAX(c->size_asked, c->size_bytes) + GROWTH;
    rc = ask(c, META_VOLUME_RESIZE, &q.base, &q.mutation, &r);
    if (rc == 0)
        c->size_bytes = MAX(c->size_bytes, ((Zbs__Meta__Volume *)r.msg)->size_bytes);
    rpc_reply_free(&r);
    return rc;
}

int operator_policy(struct cluster *c, uint32_t replicas, uint64_t iops)
{
    Zbs__Meta__VolumeSetRequest q = ZBS__META__VOLUME_SET_REQUEST__INIT;
    Zbs__Meta__LimitsChange limits = ZBS__META__LIMITS_CHANGE__INIT;
    Zbs__Meta__Value value = ZBS__META__VALUE__INIT;
    struct rpc_reply r;
    int rc;

    q.pool = (char *)"pool";
    q.name = (char *)"volume";
    q.replicas = replicas;
    q.limits = &limits;
    limits.iops = &value;
    value.value = iops;
    rc = ask(c, META_VOLUME_SET, &q.base, &q.mutation, &r);
    rpc_reply_free(&r);
    return rc;
}

/* A place for another volume; NULL: there are enough. */
static struct extra *extra_new(struct cluster *c)
{
    struct extra *x = &c->extras[c->n_extras];

    if (c->n_extras == EXTRAS_MAX)
        return NULL;
    *x = (struct extra){.space = c->n_spaces++};
    c->n_extras++;
    return x;
}

int operator_extra_create(struct cluster *c)
{
    struct extra *x = extra_new(c);
    int rc;

    if (!x)
        return ERR_TOO_LARGE;
    snprintf(x->name, sizeof(x->name), "extra-%u", c->n_extras);
    rc = volume_create(c, x->name, EXTRA_BYTES,
                       c->fragile ? HOSTS : 1 + (uint32_t)(sim_random(c->sim) % HOSTS),
                       1 + (uint32_t)(sim_random(c->sim) % 2), &x->id);
    x->there = rc == 0;
    return rc;
}

int operator_extra_delete(struct cluster *c)
{
    uint32_t first = c->n_extras ? (uint32_t)(sim_random(c->sim) % c->n_extras) : 0;

    for (uint32_t i = 0; i < c->n_extras; i++) {
        struct extra *x = &c->extras[(first + i) % c->n_extras];

        if (!x->there)
            continue;
        x->there = false;
        return volume_delete(c, x->name);
    }
    return ERR_NOTFOUND;
}

/* ---- snapshots ---- */

/* Some volume that is there and (snapshot) is one, or is none and has always been itself. */
static struct extra *extra_some(struct cluster *c, bool snapshot)
{
    uint32_t first = c->n_extras ? (uint32_t)(sim_random(c->sim) % c->n_extras) : 0;

    for (uint32_t i = 0; i < c->n_extras; i++) {
        struct extra *x = &c->extras[(first + i) % c->n_extras];

        if (x->there && x->snapshot == snapshot && (snapshot || !x->base))
            return x;
    }
    return NULL;
}

static struct extra *snapshot_new(struct cluster *c, uint32_t number, const char *of)
{
    struct extra *x = extra_new(c);

    if (!x)
        return NULL;
    snprintf(x->name, sizeof(x->name), "%s@s%u", of, c->n_extras);
    x->snapshot = true;
    x->of = number;
    x->space_of = number ? c->extras[number - 1].space : 0;
    x->frozen = calloc(FROZEN_MAX, sizeof(*x->frozen));
    return x;
}

int operator_snapshot(struct cluster *c, bool group)
{
    Zbs__Meta__VolumeSnapshotRequest q = ZBS__META__VOLUME_SNAPSHOT_REQUEST__INIT;
    Zbs__Meta__VolumeName names[2] = {ZBS__META__VOLUME_NAME__INIT, ZBS__META__VOLUME_NAME__INIT};
    Zbs__Meta__VolumeName *list[2] = {&names[0], &names[1]};
    struct extra *with = group ? extra_some(c, false) : NULL, *snaps[2] = {NULL};
    uint32_t n = 1 + (with != NULL);
    struct rpc_reply r;
    uint64_t call;
    int rc;

    if (c->n_extras + n > EXTRAS_MAX)
        return ERR_TOO_LARGE;
    /* Both have the same name behind the @: that of the first. */
    snaps[0] = snapshot_new(c, 0, "volume");
    if (with) {
        snaps[1] = snapshot_new(c, (uint32_t)(with - c->extras) + 1, with->name);
        snprintf(snaps[1]->name, sizeof(snaps[1]->name), "%.15s@s%u", with->name, c->n_extras - 1);
    }
    names[0].pool = names[1].pool = (char *)"pool";
    names[0].name = (char *)"volume";
    names[1].name = with ? with->name : NULL;
    q.volumes = list;
    q.n_volumes = n;
    q.snapshot = strchr(snaps[0]->name, '@') + 1;
    call = history_tick(c->history);
    rc = ask(c, META_VOLUME_SNAPSHOT, &q.base, &q.mutation, &r);
    /* Which of the two came first is not known of one that met a rollback: it is not looked at. */
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        const Zbs__Meta__VolumeSnapshotReply *a = (const Zbs__Meta__VolumeSnapshotReply *)r.msg;

        snaps[i]->call = call;
        snaps[i]->ret = history_tick(c->history);
        snaps[i]->there = i < a->n_snapshots && !(i > 0 && with->rolled_back);
        snaps[i]->id = snaps[i]->there ? a->snapshots[i]->id : 0;
    }
    rpc_reply_free(&r);
    return rc;
}

int operator_clone(struct cluster *c)
{
    struct extra *of = extra_some(c, true), *x;
    Zbs__Meta__VolumeCloneRequest q = ZBS__META__VOLUME_CLONE_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;
    struct rpc_reply r;
    int rc;

    if (!of || !(x = extra_new(c)))
        return ERR_NOTFOUND;
    snprintf(x->name, sizeof(x->name), "clone-%u", c->n_extras);
    x->base = (uint32_t)(of - c->extras) + 1;
    name.pool = q.pool = (char *)"pool";
    name.name = of->name;
    q.snapshot = &name;
    q.name = x->name;
    rc = ask(c, META_VOLUME_CLONE, &q.base, &q.mutation, &r);
    if (rc == 0)
        x->id = ((Zbs__Meta__Volume *)r.msg)->id;
    x->there = rc == 0;
    rpc_reply_free(&r);
    return rc;
}

int operator_rollback(struct cluster *c)
{
    struct extra *to = NULL, *x = NULL;
    Zbs__Meta__VolumeRollbackRequest q = ZBS__META__VOLUME_ROLLBACK_REQUEST__INIT;
    Zbs__Meta__VolumeName name = ZBS__META__VOLUME_NAME__INIT;
    struct rpc_reply r;
    int rc;

    for (uint32_t i = 0; i < c->n_extras && !x; i++) {
        to = &c->extras[i];
        if (to->there && to->snapshot && to->of && c->extras[to->of - 1].there)
            x = &c->extras[to->of - 1];
    }
    if (!x)
        return ERR_NOTFOUND;
    x->there = false;
    x->rolled_back = true;
    while (workload_uses(c, (uint32_t)(x - c->extras)))
        (void)co_sleep(20 * NSEC_PER_MSEC);
    name.pool = (char *)"pool";
    name.name = x->name;
    q.volume = &name;
    q.snapshot = strchr(to->name, '@') + 1;
    rc = ask(c, META_VOLUME_ROLLBACK, &q.base, &q.mutation, &r);
    if (rc == 0) {
        x->space = c->n_spaces++;
        x->base = (uint32_t)(to - c->extras) + 1;
        x->there = true;
    }
    rpc_reply_free(&r);
    return rc;
}

int operator_flatten(struct cluster *c)
{
    Zbs__Meta__VolumeFlattenRequest q = ZBS__META__VOLUME_FLATTEN_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    q.pool = (char *)"pool";
    q.name = (char *)"volume";
    for (uint32_t i = 0; i < c->n_extras; i++)
        if (c->extras[i].there && c->extras[i].base)
            q.name = c->extras[i].name;
    rc = ask(c, META_VOLUME_FLATTEN, &q.base, &q.mutation, &r);
    rpc_reply_free(&r);
    return rc;
}

/* One request to a node's chunk server. */
static int ask_chunk(struct node *n, int method, ProtobufCMessage *q)
{
    struct rpc_client *client = rpc_client_new(&(struct rpc_client_conf){
        .addr = n->listen[ROLE_CHUNK], .self = "operator", .cluster_id = ""});
    nsec_t former = co_deadline_push(co_now() + PATIENCE);
    struct rpc_reply r;
    int rc;

    rpc_reply_init(&r);
    rc = rpc_call(client, &zbs__chunk__chunk__descriptor, method, q, NULL, &r);
    co_deadline_restore(former);
    rpc_reply_free(&r);
    rpc_client_close(client);
    return rc;
}

int operator_drain(struct node *n, const char *path, bool begin, bool copies)
{
    Zbs__Chunk__DiskDrainRequest q = ZBS__CHUNK__DISK_DRAIN_REQUEST__INIT;

    q.path = (char *)path;
    q.cancel = !begin;
    q.copies = copies;
    return ask_chunk(n, DRAIN_METHOD, &q.base);
}

int operator_disk_add(struct node *n, const char *path)
{
    Zbs__Chunk__DiskAddRequest q = ZBS__CHUNK__DISK_ADD_REQUEST__INIT;

    q.path = (char *)path;
    q.force = true; /* it may have been another server's, or this one's */
    return ask_chunk(n, ADD_METHOD, &q.base);
}

int operator_disk_remove(struct node *n, const char *path, bool force)
{
    Zbs__Chunk__DiskRemoveRequest q = ZBS__CHUNK__DISK_REMOVE_REQUEST__INIT;

    q.path = (char *)path;
    q.force = force;
    return ask_chunk(n, REMOVE_METHOD, &q.base);
}

int operator_status(struct cluster *c, struct cluster_counts *ret)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    int rc = ask(c, META_CLUSTER_STATUS, &q.base, NULL, &r);

    if (rc == 0) {
        const Zbs__Meta__ClusterStatusReply *s = (const Zbs__Meta__ClusterStatusReply *)r.msg;

        *ret =
            (struct cluster_counts){.degraded = s->extents_degraded, .used_bytes = s->used_bytes};
        for (size_t i = 0; i < s->n_chunks; i++)
            ret->chunks_alive += s->chunks[i]->view->alive;
    }
    rpc_reply_free(&r);
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

void operator_delete_extras(struct cluster *c, nsec_t limit)
{
    nsec_t until = co_now() + limit;

    for (uint32_t i = 0; i < c->n_extras; i++) {
        c->extras[i].there = false;
        while (workload_uses(c, i) && co_now() < until)
            (void)co_sleep(20 * NSEC_PER_MSEC);
        delete_surely(c, c->extras[i].name, until);
    }
}

/* A disk that lies may have lost a deletion that it confirmed; only meta's lists can find that out,
 * after an hour unless told otherwise. Elsewhere nothing may come to that. */
static void collect_soon(struct cluster *c, nsec_t until)
{
    while (operator_setting(c, "gc.delay", GC_SECONDS) < 0 && co_now() < until)
        ;
}

void operator_delete_all(struct cluster *c, nsec_t limit)
{
    nsec_t until = co_now() + limit;
    struct cluster_counts n = {.used_bytes = UINT64_MAX};

    if (c->fragile)
        collect_soon(c, until);
    operator_delete_extras(c, limit);
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
