/* SPDX-License-Identifier: Apache-2.0
 *
 * The state from the key-value store. Every pair is checked: a store may be damaged. Kinds are
 * read in an order in which what an object refers to is there before it. */
#include <inttypes.h>
#include <string.h>
#include "common/base/mem.h"
#include "meta/codec.h"
#include "meta/load_kind.h"
#include "meta/view.h"
#include "meta/reservations.h"
#include "meta/settings.h"
#include "proto/metalog.pb-c.h"

struct load_scan {
    struct loader *l;
    enum key_kind kind;
    size_t key_len; /* 0: any */
    const ProtobufCMessageDescriptor *type;
    load_fn fn;
};

int load_damaged(const char *what)
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
        m->next_pool_id == 0 || m->next_chunk_id == 0 || m->next_page_id == 0)
        return load_damaged("bad header");
    strcpy(st->cluster_id, m->cluster_id);
    st->next_mutation = m->next_mutation;
    st->term = m->term;
    st->exports_version = m->exports_version;
    st->next_pool_id = m->next_pool_id;
    st->next_chunk_id = m->next_chunk_id;
    st->next_page_id = m->next_page_id;
    st->tree.shares_version = m->shares_version;
    st->tree.next_share_id = MAX(m->next_share_id, 1u);
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
        return load_damaged("bad chunk server");
    c = state_chunk_add(l->st, m->id);
    copy_uuid(c->uuid, &m->uuid);
    str_set(&c->addr, m->addr);
    str_set(&c->addr_unix, m->addr_unix);
    str_set(&c->host, m->host);
    str_set(&c->rack, m->rack);
    str_set(&c->zone, m->zone);
    c->workers = m->workers;
    c->maintenance = m->maintenance;
    c->removing = m->removing;
    c->marked_at = m->marked_at;
    return 0;
}

static int load_pool(struct loader *l, const uint8_t *key, size_t key_len,
                     const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvPool *m = (const void *)msg;
    struct pool *p;

    (void)key_len;
    if (m->id == 0 || m->id != key_get_u32(key + 1) || state_pool(l->st, m->name) != NULL)
        return load_damaged("bad pool");
    p = state_pool_add(l->st, m->id, m->name);
    p->replicas = m->replicas;
    p->min_replicas = m->min_replicas;
    str_set(&p->failure_domain, m->failure_domain);
    limits_set(&p->limits, m->limits);
    return 0;
}

static void load_provisioning(struct state *st, struct volume *v, const Zbs__Metalog__KvVolume *m)
{
    const Zbs__Metalog__KvProvisioning *p = m->provisioning;

    if (p == NULL)
        return;
    v->provisioning.thick = p->thick;
    if (!m->removed)
        state_volume_pass(st, v, p->pass, p->next_slot, p->no_space);
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
        return load_damaged("bad volume");
    if (m->removed) {
        v = state_volume_add_removed(l->st, m->id, m->name, &layout, m->size_bytes);
        v->pool_id = m->pool_id;
    } else {
        struct pool *pool = state_pool_by_id(l->st, m->pool_id);

        if (pool == NULL || pool_volume(pool, m->name) != NULL)
            return load_damaged("volume without its pool, or twice");
        v = state_volume_add(l->st, pool, m->id, m->name, &layout, m->size_bytes);
    }
    v->replicas = m->replicas;
    v->min_replicas = m->min_replicas;
    str_set(&v->preferred_host, m->preferred_host);
    v->created_ns = m->created_ns;
    copy_uuid(v->uuid, &m->uuid);
    v->version = m->version;
    v->sweep_next = m->sweep_next;
    limits_set(&v->limits, m->limits);
    if (!m->removed)
        state_volume_policy_left(l->st, v, MIN(m->policy_left, v->n_pages));
    if (m->snapshot)
        state_volume_snapshot(v);
    v->origin_id = m->origin_id;
    v->shared_at = m->shared_at;
    v->table_at = m->table_at;
    if (m->flattening && !m->removed)
        state_volume_flatten(l->st, v, true, m->flatten_next);
    v->importing = m->importing;
    load_provisioning(l->st, v, m);
    if (m->inode_id != 0)
        state_volume_of_file(l->st, v, m->inode_id);
    v->file_bytes = m->file_bytes;
    if (m->snapshot || m->importing != 0)
        copy_uuid(v->content, m->content.len > 0 ? &m->content : &m->uuid);
    return 0;
}

static int load_session(struct loader *l, const uint8_t *key, size_t key_len,
                        const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvSession *m = (const void *)msg;
    struct session *s;

    (void)key_len;
    if (m->id == 0 || m->id != key_get_u64(key + 1))
        return load_damaged("bad session");
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
    struct slot *s;

    (void)key_len;
    if (v == NULL || number >= v->n_slots)
        return load_damaged("bad slot");
    s = volume_slot_make(v, number);
    s->epoch = m->epoch;
    v->granted_at = MAX(v->granted_at, m->epoch);
    state_slot_own(l->st, s, m->owner);
    return 0;
}

static int load_replicas(struct loader *l, struct extent *e, const Zbs__Metalog__KvExtent *m)
{
    e->n_members = (uint8_t)m->n_members;
    e->n_absent = (uint8_t)m->n_absent;
    for (size_t i = 0; i < m->n_members + m->n_absent; i++) {
        e->replicas[i] = i < m->n_members ? m->members[i] : m->absent[i - m->n_members];
        if (state_chunk(l->st, e->replicas[i]) == NULL) {
            e->n_members = e->n_absent = 0;
            return load_damaged("a replica on an unknown chunk server");
        }
    }
    return 0;
}

/* In the order of ids, so an origin is there before its children. */
static int load_extent(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvExtent *m = (const void *)msg;
    uint64_t id = key_get_u64(key + 1);
    struct extent *e, *origin = m->origin != 0 ? state_extent(l->st, m->origin) : NULL;
    int rc;

    (void)key_len;
    if (id == 0 || m->n_members < 1 || m->n_members + m->n_absent > SLOT_REPLICAS_MAX ||
        (m->origin != 0) != (origin != NULL) || (origin != NULL && m->created) || m->family == 0 ||
        m->family > id)
        return load_damaged("bad extent");
    e = state_extent_add(l->st, id, m->family, m->slot);
    extent_set_origin(e, origin);
    e->epoch = m->epoch;
    e->set_number = m->set_number;
    if (m->created)
        extent_set_created(e);
    e->pool_id = m->pool_id;
    e->wanted = (uint8_t)m->replicas;
    e->min_replicas = (uint8_t)m->min_replicas;
    rc = load_replicas(l, e, m);
    if (rc < 0)
        return rc;
    if (m->owner != 0) {
        extent_lease_make(e)->epoch = m->epoch;
        state_slot_own(l->st, e->lease, m->owner);
    }
    state_extent_count(l->st, e);
    return 0;
}

static int load_page(struct loader *l, const uint8_t *key, size_t key_len,
                     const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvPage *m = (const void *)msg;
    uint64_t id = key_get_u64(key + 1);
    struct table_page *p;

    (void)key_len;
    if (id == 0 || m->n_extent_ids != SLOTS_PER_PAGE)
        return load_damaged("bad table page");
    p = state_page_add(l->st, id, m->index);
    for (uint32_t i = 0; i < SLOTS_PER_PAGE; i++) {
        struct extent *e = state_extent(l->st, m->extent_ids[i]);

        if (m->extent_ids[i] == 0)
            continue;
        if (e == NULL || e->slot != m->index * SLOTS_PER_PAGE + i)
            return load_damaged("a table page with an unknown extent, or one in a wrong place");
        page_set(p, NULL, i, e);
    }
    return 0;
}

static int load_table(struct loader *l, const uint8_t *key, size_t key_len,
                      const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvTable *m = (const void *)msg;
    struct volume *v = state_volume(l->st, key_get_u64(key + 1));
    uint64_t first = (uint64_t)key_get_u32(key + 9) * TABLE_GROUP;

    (void)key_len;
    if (v == NULL || m->n_page_ids > TABLE_GROUP)
        return load_damaged("bad table");
    for (size_t i = 0; i < m->n_page_ids; i++) {
        struct table_page *p = idmap_get_ptr(&l->st->pages, m->page_ids[i]);

        if (m->page_ids[i] == 0)
            continue;
        if (p == NULL || first + i >= v->n_pages || p->index != first + i)
            return load_damaged("a table with an unknown page, or one in a wrong place");
        volume_set_page(v, (uint32_t)(first + i), p);
    }
    return 0;
}

/* Nothing may be there that nobody refers to. */
static int check_references(const struct state *st)
{
    for (uint64_t i = 0; i < st->extents.cap; i++) {
        const struct extent *e = (const struct extent *)(uintptr_t)st->extents.entries[i].value;

        if (st->extents.entries[i].id != 0 && e->refs == 0 && list_empty(&e->unborn))
            return load_damaged("an extent that no volume has");
    }
    for (uint64_t i = 0; i < st->pages.cap; i++) {
        const struct table_page *p = (const void *)(uintptr_t)st->pages.entries[i].value;

        if (st->pages.entries[i].id != 0 && p->refs == 0)
            return load_damaged("a table page that no volume has");
    }
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
        return load_damaged("bad target");
    t = state_target_add(l->st, m->iqn);
    str_set(&t->chap_user, m->chap_user);
    str_set(&t->chap_secret, m->chap_secret);
    t->initiators = MEM_NEW_ARRAY(char *, m->n_initiators + 1);
    for (size_t i = 0; i < m->n_initiators; i++)
        t->initiators[t->n_initiators++] = mem_strdup(m->initiators[i]);
    for (size_t i = 0; i < m->n_luns; i++) {
        struct volume *v = state_volume(l->st, m->luns[i]->volume_id);

        if (v == NULL || v->removed || target_lun(t, m->luns[i]->lun) != NULL)
            return load_damaged("a LUN without its volume, or twice");
        state_lun_set(l->st, t, m->luns[i]->lun, v);
    }
    return 0;
}

static int load_reservation(struct loader *l, const uint8_t *key, size_t key_len,
                            const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvReservation *m = (const void *)msg;

    (void)key_len;
    if (m->volume_id != key_get_u64(key + 1) || state_volume(l->st, m->volume_id) == NULL ||
        m->record.len == 0 || m->record.len > RESERVATION_BYTES_MAX)
        return load_damaged("bad reservation");
    state_reservation_put(l->st, m->volume_id, m->version, m->record.data, m->record.len);
    return 0;
}

static int load_setting(struct loader *l, const uint8_t *key, size_t key_len,
                        const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvSetting *m = (const void *)msg;

    if (m->name[0] == 0 || strlen(m->name) > SETTING_NAME_MAX || key_len != strlen(m->name) + 1 ||
        memcmp(key + 1, m->name, key_len - 1) != 0)
        return load_damaged("bad setting");
    state_setting_put(l->st, m->name, m->value, m->version);
    return 0;
}

static int load_result(struct loader *l, const uint8_t *key, size_t key_len,
                       const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvResult *m = (const void *)msg;

    (void)key_len;
    if (state_result(l->st, m->client, m->number) != NULL)
        return load_damaged("one mutation's result twice");
    state_result_add(l->st, key_get_u64(key + 1), m->client, m->number, m->reply.data,
                     m->reply.len);
    return 0;
}

static int load_garbage(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct load_scan *scan = arg;
    const uint8_t *k = key;
    struct chunk *c;
    uint64_t extent_id, epoch, family;

    if (key_len != 13 || val_len != 16)
        return load_damaged("bad garbage");
    c = state_chunk(scan->l->st, key_get_u32(k + 1));
    extent_id = key_get_u64(k + 5);
    epoch = key_get_u64(val);
    family = key_get_u64((const uint8_t *)val + 8);
    if (c == NULL || extent_id == 0 || epoch == 0 || family == 0)
        return load_damaged("garbage on an unknown chunk server");
    chunk_garbage_add(c, extent_id, epoch, family);
    return 0;
}

static int load_pair(void *arg, const void *key, size_t key_len, const void *val, size_t val_len)
{
    struct load_scan *scan = arg;
    struct loader *l = scan->l;
    ProtobufCMessage *msg;
    int rc;

    if (scan->key_len != 0 && key_len != scan->key_len)
        return load_damaged("a key of a wrong length");
    msg = protobuf_c_message_unpack(scan->type, &l->pad.allocator, val_len, val);
    if (msg == NULL)
        return load_damaged("a value that is no message");
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
        {&l, KEY_SESSION, 9, &zbs__metalog__kv_session__descriptor, load_session},
        {&l, KEY_EXTENT, 9, &zbs__metalog__kv_extent__descriptor, load_extent},
        {&l, KEY_PAGE, 9, &zbs__metalog__kv_page__descriptor, load_page},
        {&l, KEY_VOLUME, 9, &zbs__metalog__kv_volume__descriptor, load_volume},
        {&l, KEY_TABLE, 13, &zbs__metalog__kv_table__descriptor, load_table},
        {&l, KEY_SLOT, 13, &zbs__metalog__kv_slot__descriptor, load_slot},
        {&l, KEY_TARGET, 0, &zbs__metalog__kv_target__descriptor, load_target},
        {&l, KEY_RESERVATION, 9, &zbs__metalog__kv_reservation__descriptor, load_reservation},
        {&l, KEY_SETTING, 0, &zbs__metalog__kv_setting__descriptor, load_setting},
        {&l, KEY_SHARE, 5, &zbs__metalog__kv_share__descriptor, load_share},
        {&l, KEY_INODE, 9, &zbs__metalog__kv_inode__descriptor, load_inode},
        {&l, KEY_ENTRY, 17, &zbs__metalog__kv_entry__descriptor, load_entry},
        {&l, KEY_LOCKS, 17, &zbs__metalog__kv_locks__descriptor, load_locks},
        {&l, KEY_RESULT, 9, &zbs__metalog__kv_result__descriptor, load_result},
    };
    struct load_scan garbage = {&l, KEY_GARBAGE, 13, NULL, NULL};
    int rc = 0;

    pad_init(&l.pad);
    for (size_t i = 0; i < ARRAY_SIZE(scans) && rc == 0; i++)
        rc = load_kind(kv, &scans[i], load_pair);
    if (rc == 0)
        rc = load_kind(kv, &garbage, load_garbage);
    if (rc == 0)
        rc = check_references(st);
    if (rc == 0)
        rc = load_check_tree(st);
    pad_fini(&l.pad);
    if (rc == 0 && !l.has_header && (st->pools.count > 0 || st->chunks.count > 0))
        rc = load_damaged("no header");
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
