/* SPDX-License-Identifier: Apache-2.0
 *
 * The state from the key-value store. Every pair is checked: a store may be damaged. Kinds are
 * read in an order in which what an object refers to is there before it. */
#include <inttypes.h>
#include <string.h>
#include "common/base/mem.h"
#include "meta/codec.h"
#include "meta/codec_key.h"
#include "meta/pad.h"
#include "meta/settings.h"
#include "proto/metalog.pb-c.h"

struct loader {
    struct state *st;
    uint64_t applied;
    bool has_header;
    struct pad pad; /* emptied after each pair */
};

typedef int (*load_fn)(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg);

struct load_scan {
    struct loader *l;
    enum key_kind kind;
    size_t key_len; /* 0: any */
    const ProtobufCMessageDescriptor *type;
    load_fn fn;
};

static int damaged(const char *what)
{
    return err_set(ERR_FORMAT, "the metadata store is damaged: %s", what);
}

static bool copy_uuid(uint8_t *dst, const ProtobufCBinaryData *src)
{
    if (src->len != 16)
        return false;
    memcpy(dst, src->data, 16);
    return true;
}

static int load_header(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvHeader *m = (const void *)msg;
    struct state *st = l->st;

    (void)key;
    (void)key_len;
    if (m->format != STORE_FORMAT)
        return err_set(ERR_FORMAT,
                       "the metadata store has format %u, this program knows %u: use the release "
                       "that wrote it",
                       m->format, STORE_FORMAT);
    if (strlen(m->cluster_id) >= sizeof(st->cluster_id) || m->next_mutation == 0 ||
        m->next_pool_id == 0 || m->next_chunk_id == 0)
        return damaged("bad header");
    strcpy(st->cluster_id, m->cluster_id);
    st->next_mutation = m->next_mutation;
    st->term = m->term;
    st->exports_version = m->exports_version;
    st->next_pool_id = m->next_pool_id;
    st->next_chunk_id = m->next_chunk_id;
    l->applied = m->applied;
    l->has_header = true;
    return 0;
}

static int load_chunk(struct loader *l, const uint8_t *key, size_t key_len,
                      const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvChunk *m = (const void *)msg;
    struct chunk *c;

    (void)key_len;
    if (m->id == 0 || m->id != key_get_u32(key + 1) || m->uuid.len != 16 || m->workers == 0)
        return damaged("bad chunk server");
    c = state_chunk_add(l->st, m->id);
    copy_uuid(c->uuid, &m->uuid);
    str_set(&c->addr, m->addr);
    str_set(&c->addr_unix, m->addr_unix);
    str_set(&c->host, m->host);
    str_set(&c->rack, m->rack);
    str_set(&c->zone, m->zone);
    c->workers = m->workers;
    return 0;
}

static int load_pool(struct loader *l, const uint8_t *key, size_t key_len,
                     const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvPool *m = (const void *)msg;
    struct pool *p;

    (void)key_len;
    if (m->id == 0 || m->id != key_get_u32(key + 1) || state_pool(l->st, m->name) != NULL)
        return damaged("bad pool");
    p = state_pool_add(l->st, m->id, m->name);
    p->replicas = m->replicas;
    p->min_replicas = m->min_replicas;
    str_set(&p->failure_domain, m->failure_domain);
    return 0;
}

static int load_volume(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvVolume *m = (const void *)msg;
    struct layout layout = {.stripe_count = m->stripe_count, .stripe_bytes = m->stripe_bytes};
    struct volume *v;

    (void)key_len;
    if (m->id == 0 || m->id != key_get_u64(key + 1) || m->uuid.len != 16 || m->stripe_count == 0 ||
        m->stripe_bytes == 0 || m->size_bytes == 0 || m->size_bytes > VOLUME_BYTES_MAX)
        return damaged("bad volume");
    if (m->removed) {
        v = state_volume_add_removed(l->st, m->id, m->name, &layout, m->size_bytes);
        v->pool_id = m->pool_id;
    } else {
        struct pool *pool = state_pool_by_id(l->st, m->pool_id);

        if (pool == NULL || pool_volume(pool, m->name) != NULL)
            return damaged("volume without its pool, or twice");
        v = state_volume_add(l->st, pool, m->id, m->name, &layout, m->size_bytes);
    }
    v->replicas = m->replicas;
    v->min_replicas = m->min_replicas;
    str_set(&v->preferred_host, m->preferred_host);
    v->created_ns = m->created_ns;
    copy_uuid(v->uuid, &m->uuid);
    v->version = m->version;
    v->sweep_next = m->sweep_next;
    return 0;
}

static int load_session(struct loader *l, const uint8_t *key, size_t key_len,
                        const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvSession *m = (const void *)msg;
    struct session *s;

    (void)key_len;
    if (m->id == 0 || m->id != key_get_u64(key + 1))
        return damaged("bad session");
    s = state_session_add(l->st, m->id);
    str_set(&s->name, m->name);
    s->incarnation = m->incarnation;
    str_set(&s->addr, m->addr);
    str_set(&s->host, m->host);
    str_set(&s->rack, m->rack);
    str_set(&s->zone, m->zone);
    str_set(&s->iscsi_portal, m->iscsi_portal);
    return 0;
}

static int load_slot(struct loader *l, const uint8_t *key, size_t key_len,
                     const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvSlot *m = (const void *)msg;
    struct volume *v = state_volume(l->st, key_get_u64(key + 1));
    uint32_t number = key_get_u32(key + 9);
    size_t n = m->n_members + m->n_absent;
    struct slot *s;

    (void)key_len;
    if (v == NULL || number >= v->n_slots || n > SLOT_REPLICAS_MAX ||
        (m->extent_id != 0) != (m->n_members > 0))
        return damaged("bad slot");
    if (m->extent_id != 0 && state_extent(l->st, m->extent_id) != NULL)
        return damaged("an extent in two slots");
    s = volume_slot_make(v, number);
    s->epoch = m->epoch;
    s->extent_id = m->extent_id;
    s->set_number = m->set_number;
    s->created = m->created;
    s->n_members = (uint8_t)m->n_members;
    s->n_absent = (uint8_t)m->n_absent;
    for (size_t i = 0; i < n; i++) {
        s->replicas[i] = i < m->n_members ? m->members[i] : m->absent[i - m->n_members];
        if (state_chunk(l->st, s->replicas[i]) == NULL) {
            s->n_members = s->n_absent = 0;
            s->extent_id = 0;
            return damaged("a replica on an unknown chunk server");
        }
    }
    if (s->extent_id != 0)
        idmap_put_ptr(&l->st->extents, s->extent_id, s);
    state_slot_own(l->st, s, m->owner);
    state_slot_count(l->st, s);
    return 0;
}

static int load_target(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvTarget *m = (const void *)msg;
    struct target *t;

    (void)key;
    (void)key_len;
    if (m->n_initiators > INITIATORS_MAX || m->n_luns > LUNS_MAX ||
        state_target(l->st, m->iqn) != NULL)
        return damaged("bad target");
    t = state_target_add(l->st, m->iqn);
    str_set(&t->chap_user, m->chap_user);
    str_set(&t->chap_secret, m->chap_secret);
    t->initiators = MEM_NEW_ARRAY(char *, m->n_initiators + 1);
    for (size_t i = 0; i < m->n_initiators; i++)
        t->initiators[t->n_initiators++] = mem_strdup(m->initiators[i]);
    for (size_t i = 0; i < m->n_luns; i++) {
        struct volume *v = state_volume(l->st, m->luns[i]->volume_id);

        if (v == NULL || v->removed || target_lun(t, m->luns[i]->lun) != NULL)
            return damaged("a LUN without its volume, or twice");
        state_lun_set(l->st, t, m->luns[i]->lun, v);
    }
    return 0;
}

static int load_setting(struct loader *l, const uint8_t *key, size_t key_len,
                        const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvSetting *m = (const void *)msg;

    if (m->name[0] == 0 || strlen(m->name) > SETTING_NAME_MAX || key_len != strlen(m->name) + 1 ||
        memcmp(key + 1, m->name, key_len - 1) != 0)
        return damaged("bad setting");
    state_setting_put(l->st, m->name, m->value, m->version);
    return 0;
}

static int load_result(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvResult *m = (const void *)msg;

    (void)key_len;
    if (state_result(l->st, m->client, m->number) != NULL)
        return damaged("one mutation's result twice");
    state_result_add(l->st, key_get_u64(key + 1), m->client, m->number, m->reply.data,
                     m->reply.len);
    return 0;
}

static int load_garbage(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct load_scan *scan = arg;
    const uint8_t *k = key;
    struct chunk *c;
    uint64_t extent_id, epoch;

    if (key_len != 13 || val_len != 8)
        return damaged("bad garbage");
    c = state_chunk(scan->l->st, key_get_u32(k + 1));
    extent_id = key_get_u64(k + 5);
    epoch = key_get_u64(val);
    if (c == NULL || extent_id == 0 || epoch == 0)
        return damaged("garbage on an unknown chunk server");
    idmap_put(&c->garbage, extent_id, epoch);
    return 0;
}

static int load_pair(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct load_scan *scan = arg;
    struct loader *l = scan->l;
    ProtobufCMessage *msg;
    int rc;

    if (scan->key_len != 0 && key_len != scan->key_len)
        return damaged("a key of a wrong length");
    msg = protobuf_c_message_unpack(scan->type, &l->pad.allocator, val_len, val);
    if (msg == NULL)
        return damaged("a value that is no message");
    rc = scan->fn(l, key, key_len, msg);
    pad_fini(&l->pad);
    return rc;
}

static co_fn int load_kind(struct kv *kv, struct load_scan *scan, kv_scan_fn fn)
{
    uint8_t first = (uint8_t)scan->kind, last = (uint8_t)(first + 1);

    return kv_scan(kv, &first, 1, &last, 1, fn, scan);
}

co_fn int codec_load(struct kv *kv, struct state *st, uint64_t *ret_applied)
{
    struct loader l = {.st = st};
    struct load_scan scans[] = {
        {&l, KEY_HEADER, 1, &zbs__metalog__kv_header__descriptor, load_header},
        {&l, KEY_CHUNK, 5, &zbs__metalog__kv_chunk__descriptor, load_chunk},
        {&l, KEY_POOL, 5, &zbs__metalog__kv_pool__descriptor, load_pool},
        {&l, KEY_VOLUME, 9, &zbs__metalog__kv_volume__descriptor, load_volume},
        {&l, KEY_SESSION, 9, &zbs__metalog__kv_session__descriptor, load_session},
        {&l, KEY_SLOT, 13, &zbs__metalog__kv_slot__descriptor, load_slot},
        {&l, KEY_TARGET, 0, &zbs__metalog__kv_target__descriptor, load_target},
        {&l, KEY_SETTING, 0, &zbs__metalog__kv_setting__descriptor, load_setting},
        {&l, KEY_RESULT, 9, &zbs__metalog__kv_result__descriptor, load_result},
    };
    struct load_scan garbage = {&l, KEY_GARBAGE, 13, NULL, NULL};
    int rc = 0;

    pad_init(&l.pad);
    for (size_t i = 0; i < ARRAY_SIZE(scans) && rc == 0; i++)
        rc = load_kind(kv, &scans[i], load_pair);
    if (rc == 0)
        rc = load_kind(kv, &garbage, load_garbage);
    pad_fini(&l.pad);
    if (rc == 0 && !l.has_header && (st->pools.count > 0 || st->chunks.count > 0))
        rc = damaged("no header");
    if (rc < 0) {
        state_fini(st);
        return rc;
    }
    *ret_applied = l.applied;
    return 0;
}

static const uint8_t loading_key[] = {KEY_LOADING};

co_fn int codec_mark_loading(struct kv *kv)
{
    struct kv_batch *b = kv_batch_new();
    int rc;

    kv_batch_put(b, loading_key, sizeof(loading_key), "1", 1);
    rc = kv_write(kv, b, true);
    kv_batch_free(b);
    return rc;
}

co_fn int codec_is_loading(struct kv *kv, bool *ret)
{
    void *val;
    size_t len;
    int rc = kv_get(kv, loading_key, sizeof(loading_key), &val, &len);

    *ret = rc == 0;
    if (rc == 0)
        mem_free(val);
    return rc == ERR_NOTFOUND ? 0 : rc;
}

void codec_unmark_loading(struct kv_batch *b)
{
    kv_batch_delete(b, loading_key, sizeof(loading_key));
}
