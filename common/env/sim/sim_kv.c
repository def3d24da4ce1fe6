/* SPDX-License-Identifier: Apache-2.0
 *
 * Twin of the key-value store. A store is the map as read plus what of it is durable: a power
 * loss goes back to one of the states since the last synced write, chosen by seed. */
#include <string.h>
#include "common/env/sim/sim_internal.h"
#include "common/env/sim/sim_treap.h"

#define UNSYNCED_MAX 1024 /* the oldest of more become durable by themselves */

struct sim_store {
    struct list link;
    char *path;
    struct treap *map;
    struct treap *durable;
    struct treap **unsynced; /* the map after each unsynced batch, the last is the map as read */
    uint32_t unsynced_count;
    bool open;
};

struct sim_kv {
    struct kv base; /* first */
    struct list link;
    struct sim_store *store;
};

/* A scan in progress: at a crash its snapshot is given back. */
struct kv_scan_state {
    struct list link;
    struct treap *snapshot;
};

struct kv_call {
    struct sim_call call;
    struct sim_store *store;
    const struct kv_batch *batch; /* NULL: clear */
    bool sync;
};

/* ---- stores ---- */

static void store_sync(struct sim_store *st)
{
    for (uint32_t i = 0; i < st->unsynced_count; i++)
        treap_unref(st->unsynced[i]);
    st->unsynced_count = 0;
    treap_unref(st->durable);
    st->durable = treap_ref(st->map);
}

static void store_remember(struct sim_store *st)
{
    if (!st->unsynced)
        st->unsynced = sim_alloc(UNSYNCED_MAX * sizeof(*st->unsynced));
    if (st->unsynced_count == UNSYNCED_MAX) {
        treap_unref(st->durable);
        st->durable = st->unsynced[0];
        st->unsynced_count--;
        memmove(st->unsynced, st->unsynced + 1, st->unsynced_count * sizeof(*st->unsynced));
    }
    st->unsynced[st->unsynced_count++] = treap_ref(st->map);
}

static void store_power_loss(struct sim *s, struct sim_store *st)
{
    uint64_t kept = sim_below(s, st->unsynced_count + 1u);

    treap_unref(st->map);
    st->map = treap_ref(kept == 0 ? st->durable : st->unsynced[kept - 1]);
    store_sync(st);
}

static struct sim_store *store_get(struct sim_proc *p, const char *path)
{
    struct sim_store *st;

    LIST_FOREACH (old, &p->stores, struct sim_store, link)
        if (strcmp(old->path, path) == 0)
            return old;
    st = SIM_NEW(struct sim_store);
    st->path = sim_strdup(path);
    list_push_back(&p->stores, &st->link);
    return st;
}

void sim_stores_free(struct sim_proc *p)
{
    LIST_FOREACH_SAFE (st, &p->stores, struct sim_store, link) {
        store_sync(st);
        treap_unref(st->durable);
        treap_unref(st->map);
        sim_mem_free(st->unsynced);
        sim_mem_free(st->path);
        sim_mem_free(st);
    }
}

static void handle_free(struct sim_kv *kv)
{
    kv->store->open = false;
    list_del(&kv->link);
    sim_mem_free(kv);
}

void sim_kv_proc_ended(struct sim_proc *p, enum sim_end_how how)
{
    LIST_FOREACH_SAFE (scan, &p->scans, struct kv_scan_state, link) {
        list_del(&scan->link);
        treap_unref(scan->snapshot);
    }
    LIST_FOREACH_SAFE (kv, &p->kvs, struct sim_kv, link)
        handle_free(kv);
    LIST_FOREACH (st, &p->stores, struct sim_store, link)
        if (how == SIM_END_POWER)
            store_power_loss(p->sim, st);
}

/* ---- operations ---- */

static struct sim_kv *kv_of(struct kv *kv)
{
    return CONTAINER_OF(kv, struct sim_kv, base);
}

static int kv_pause(struct env *env)
{
    struct sim_call call;

    return sim_call_run(&call, env, sim_disk_delay(sim_proc_of(env)->sim) / 2, NULL);
}

int sim_kv_open(struct env *env, const char *path, struct kv **ret)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_store *st;
    struct sim_kv *kv;
    int rc = kv_pause(env);

    if (rc < 0)
        return rc;
    st = store_get(p, path);
    if (st->open)
        return err_set(ERR_BUSY, "store %s is open", path);
    st->open = true;
    kv = SIM_NEW(struct sim_kv);
    kv->base.env = env;
    kv->base.loop = co_loop();
    kv->store = st;
    list_push_back(&p->kvs, &kv->link);
    *ret = &kv->base;
    return 0;
}

void sim_kv_close(struct kv *kv)
{
    (void)kv_pause(kv->env);
    handle_free(kv_of(kv));
}

int sim_kv_get(struct kv *kv, const void *key, size_t key_len, void **ret, size_t *ret_len)
{
    const struct treap_item *it;
    char *val;
    int rc = kv_pause(kv->env);

    if (rc < 0)
        return rc;
    it = treap_get(kv_of(kv)->store->map, key, key_len);
    if (!it)
        return err_set(ERR_NOTFOUND, "no such key");
    val = mem_alloc(it->val_len + 1u);
    memcpy(val, it->bytes + it->key_len, it->val_len);
    *ret = val;
    *ret_len = it->val_len;
    return 0;
}

static void write_apply(struct sim_call *call)
{
    struct kv_call *c = CONTAINER_OF(call, struct kv_call, call);
    struct sim_store *st = c->store;
    struct kv_batch_item item;
    struct kv_batch_iter it;

    if (c->batch) {
        kv_batch_iter_init(&it, c->batch);
        while (kv_batch_iter_next(&it, &item)) {
            if (item.is_delete)
                st->map = treap_delete(st->map, item.key, item.key_len);
            else
                st->map = treap_put(st->map, item.key, item.key_len, item.val, item.val_len);
        }
    } else {
        treap_unref(st->map);
        st->map = NULL;
    }
    if (c->sync && !call->crashing)
        store_sync(st);
    else
        store_remember(st);
}

static int kv_change(struct kv *kv, const struct kv_batch *b, bool sync)
{
    struct sim *s = sim_proc_of(kv->env)->sim;
    struct kv_call c = {.store = kv_of(kv)->store, .batch = b, .sync = sync};
    nsec_t delay = sim_disk_delay(s);

    return sim_call_run(&c.call, kv->env, sync ? delay : delay / 8, write_apply);
}

int sim_kv_write(struct kv *kv, const struct kv_batch *b, bool sync)
{
    return kv_change(kv, b, sync);
}

int sim_kv_clear(struct kv *kv)
{
    return kv_change(kv, NULL, true);
}

int sim_kv_scan(struct kv *kv, const void *first, size_t first_len, const void *last,
                size_t last_len, kv_scan_fn fn, void *arg)
{
    struct sim_proc *p = sim_proc_of(kv->env);
    const struct treap_item *it;
    struct kv_scan_state scan;
    int rc = kv_pause(kv->env);

    if (rc < 0)
        return rc;
    scan.snapshot = treap_ref(kv_of(kv)->store->map);
    list_push_back(&p->scans, &scan.link);
    it = treap_seek(scan.snapshot, first, first_len, 0);
    while (it && rc == 0) {
        if (last && treap_key_cmp(it->bytes, it->key_len, last, last_len) >= 0)
            break;
        rc = fn(arg, it->bytes, it->key_len, it->bytes + it->key_len, it->val_len);
        it = treap_seek(scan.snapshot, it->bytes, it->key_len, 1);
    }
    list_del(&scan.link);
    treap_unref(scan.snapshot);
    return rc;
}
