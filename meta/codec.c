/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects to pairs of the key-value store: see codec.h. Loading is in load.c. */
#include "meta/codec.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "meta/codec_key.h"
#include "meta/view.h"
#include "meta/reservations.h"
#include "meta/settings.h"
#include "proto/metalog.pb-c.h"

static uint64_t digest_mix(uint64_t h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static void sink_put(const struct codec_sink *to, const struct key *k, const void *val, size_t len)
{
    if (to->batch != NULL)
        kv_batch_put(to->batch, k->bytes, k->len, val, len);
    if (to->digest != NULL)
        *to->digest += digest_mix(digest_mix(0xcbf29ce484222325u, k->bytes, k->len), val, len);
}

void codec_sink_put(const struct codec_sink *to, const struct key *k, const ProtobufCMessage *msg)
{
    uint8_t small[512];
    size_t len = protobuf_c_message_get_packed_size(msg);
    uint8_t *buf = len <= sizeof(small) ? small : mem_alloc(len);

    protobuf_c_message_pack(msg, buf);
    sink_put(to, k, buf, len);
    if (buf != small)
        mem_free(buf);
}

/* A field of 16 bytes. */
static ProtobufCBinaryData uuid_field(const uint8_t *uuid)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)uuid, .len = 16};
}

void codec_header_take(struct codec_header *h, const struct state *st)
{
    h->next_mutation = st->next_mutation;
    h->term = st->term;
    h->exports_version = st->exports_version;
    h->next_pool_id = st->next_pool_id;
    h->next_chunk_id = st->next_chunk_id;
    h->next_page_id = st->next_page_id;
    h->shares_version = st->tree.shares_version;
    h->next_share_id = st->tree.next_share_id;
    memcpy(h->cluster_id, st->cluster_id, sizeof(h->cluster_id));
}

void codec_put_header(const struct codec_sink *to, const struct codec_header *h)
{
    struct key k = key_of(KEY_HEADER);
    Zbs__Metalog__KvHeader m = ZBS__METALOG__KV_HEADER__INIT;

    m.format = STORE_FORMAT;
    m.applied = h->applied;
    m.next_mutation = h->next_mutation;
    m.term = h->term;
    m.cluster_id = (char *)h->cluster_id;
    m.exports_version = h->exports_version;
    m.next_pool_id = h->next_pool_id;
    m.next_chunk_id = h->next_chunk_id;
    m.next_page_id = h->next_page_id;
    m.shares_version = h->shares_version;
    m.next_share_id = h->next_share_id;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_pool(const struct codec_sink *to, const struct pool *p)
{
    struct key k = key_of_u32(KEY_POOL, p->id);
    Zbs__Metalog__KvPool m = ZBS__METALOG__KV_POOL__INIT;
    Zbs__Metalog__KvLimits limits;

    m.id = p->id;
    m.name = p->name;
    m.replicas = p->replicas;
    m.min_replicas = p->min_replicas;
    m.failure_domain = p->failure_domain;
    m.limits = limits_kv(&p->limits, &limits);
    codec_sink_put(to, &k, &m.base);
}

/* NULL: a thin volume, with nothing to do. */
static Zbs__Metalog__KvProvisioning *provisioning_kv(const Zbs__Meta__Provisioning *from,
                                                     Zbs__Metalog__KvProvisioning *to)
{
    zbs__metalog__kv_provisioning__init(to);
    to->thick = from->thick;
    to->pass = from->pass;
    to->next_slot = from->next_slot;
    to->no_space = from->no_space;
    return from->thick || from->pass != 0 ? to : NULL;
}

void codec_put_volume(const struct codec_sink *to, const struct volume *v)
{
    struct key k = key_of_u64(KEY_VOLUME, v->id);
    Zbs__Metalog__KvVolume m = ZBS__METALOG__KV_VOLUME__INIT;
    Zbs__Metalog__KvProvisioning provisioning;
    Zbs__Metalog__KvLimits limits;

    m.id = v->id;
    m.pool_id = v->pool_id;
    m.name = v->name;
    m.size_bytes = v->size_bytes;
    m.replicas = v->replicas;
    m.min_replicas = v->min_replicas;
    m.stripe_count = v->layout.stripe_count;
    m.stripe_bytes = v->layout.stripe_bytes;
    m.preferred_host = v->preferred_host;
    m.created_ns = v->created_ns;
    m.uuid = uuid_field(v->uuid);
    m.version = v->version;
    m.removed = v->removed;
    m.sweep_next = v->sweep_next;
    m.snapshot = v->snapshot;
    m.origin_id = v->origin_id;
    m.shared_at = v->shared_at;
    m.table_at = v->table_at;
    m.limits = limits_kv(&v->limits, &limits);
    m.policy_left = v->policy_left;
    m.flattening = v->flattening;
    m.flatten_next = v->flatten_next;
    m.provisioning = provisioning_kv(&v->provisioning, &provisioning);
    m.importing = v->importing;
    m.inode_id = v->inode_id;
    m.file_bytes = v->file_bytes;
    if (v->snapshot || v->importing != 0)
        m.content = uuid_field(v->content);
    codec_sink_put(to, &k, &m.base);
}

void codec_put_slot(const struct codec_sink *to, const struct slot *s)
{
    struct key k = key_slot(s->volume->id, s->number);
    Zbs__Metalog__KvSlot m = ZBS__METALOG__KV_SLOT__INIT;

    m.epoch = s->epoch;
    m.owner = s->owner;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_extent(const struct codec_sink *to, const struct extent *e)
{
    struct key k = key_of_u64(KEY_EXTENT, e->id);
    Zbs__Metalog__KvExtent m = ZBS__METALOG__KV_EXTENT__INIT;

    m.family = e->family;
    m.origin = e->origin != NULL ? e->origin->id : 0;
    m.epoch = e->epoch;
    m.owner = e->lease != NULL ? e->lease->owner : 0;
    m.set_number = e->set_number;
    m.created = e->created;
    m.slot = e->slot;
    m.pool_id = e->pool_id;
    m.replicas = e->wanted;
    m.min_replicas = e->min_replicas;
    m.members = (uint32_t *)extent_members(e);
    m.n_members = e->n_members;
    m.absent = (uint32_t *)extent_absent(e);
    m.n_absent = e->n_absent;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_page(const struct codec_sink *to, const struct table_page *p)
{
    struct key k = key_of_u64(KEY_PAGE, p->id);
    Zbs__Metalog__KvPage m = ZBS__METALOG__KV_PAGE__INIT;
    uint64_t ids[SLOTS_PER_PAGE];

    for (uint32_t i = 0; i < SLOTS_PER_PAGE; i++)
        ids[i] = p->extents[i] != NULL ? p->extents[i]->id : 0;
    m.index = p->index;
    m.extent_ids = ids;
    m.n_extent_ids = SLOTS_PER_PAGE;
    codec_sink_put(to, &k, &m.base);
}

void codec_sink_del(const struct codec_sink *to, struct key k)
{
    if (to->batch != NULL)
        kv_batch_delete(to->batch, k.bytes, k.len);
}

void codec_put_table(const struct codec_sink *to, const struct volume *v, uint32_t page_index)
{
    uint32_t first = ROUND_DOWN(page_index, TABLE_GROUP), used = 0;
    struct key k = key_table(v->id, page_index / TABLE_GROUP);
    Zbs__Metalog__KvTable m = ZBS__METALOG__KV_TABLE__INIT;
    uint64_t ids[TABLE_GROUP];

    for (uint32_t i = 0; i < TABLE_GROUP; i++) {
        const struct table_page *p = first + i < v->n_pages ? v->table[first + i] : NULL;

        ids[i] = p != NULL ? p->id : 0;
        if (p != NULL)
            used = i + 1;
    }
    if (used == 0) {
        codec_sink_del(to, k);
        return;
    }
    m.page_ids = ids;
    m.n_page_ids = used;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_chunk(const struct codec_sink *to, const struct chunk *c)
{
    struct key k = key_of_u32(KEY_CHUNK, c->id);
    Zbs__Metalog__KvChunk m = ZBS__METALOG__KV_CHUNK__INIT;

    m.id = c->id;
    m.uuid = uuid_field(c->uuid);
    m.addr = c->addr;
    m.addr_unix = c->addr_unix;
    m.host = c->host;
    m.rack = c->rack;
    m.zone = c->zone;
    m.workers = c->workers;
    m.maintenance = c->maintenance;
    m.removing = c->removing;
    m.marked_at = c->marked_at;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_session(const struct codec_sink *to, const struct session *s)
{
    struct key k = key_of_u64(KEY_SESSION, s->id);
    Zbs__Metalog__KvSession m = ZBS__METALOG__KV_SESSION__INIT;

    m.id = s->id;
    m.name = s->name;
    m.incarnation = s->incarnation;
    m.addr = s->addr;
    m.host = s->host;
    m.rack = s->rack;
    m.zone = s->zone;
    m.iscsi_portal = s->iscsi_portal;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_target(const struct codec_sink *to, const struct target *t)
{
    struct key k = key_target(t->iqn);
    Zbs__Metalog__KvTarget m = ZBS__METALOG__KV_TARGET__INIT;
    Zbs__Metalog__KvLun *luns = MEM_NEW_ARRAY(Zbs__Metalog__KvLun, t->n_luns + 1);
    Zbs__Metalog__KvLun **ptrs = MEM_NEW_ARRAY(Zbs__Metalog__KvLun *, t->n_luns + 1);

    for (uint32_t i = 0; i < t->n_luns; i++) {
        zbs__metalog__kv_lun__init(&luns[i]);
        luns[i].lun = t->luns[i].lun;
        luns[i].volume_id = t->luns[i].volume_id;
        ptrs[i] = &luns[i];
    }
    m.iqn = t->iqn;
    m.chap_user = t->chap_user;
    m.chap_secret = t->chap_secret;
    m.initiators = t->initiators;
    m.n_initiators = t->n_initiators;
    m.luns = ptrs;
    m.n_luns = t->n_luns;
    codec_sink_put(to, &k, &m.base);
    mem_free(luns);
    mem_free(ptrs);
}

void codec_put_reservation(const struct codec_sink *to, const struct reservation *r)
{
    struct key k = key_of_u64(KEY_RESERVATION, r->volume_id);
    Zbs__Metalog__KvReservation m = ZBS__METALOG__KV_RESERVATION__INIT;

    m.volume_id = r->volume_id;
    m.version = r->version;
    m.record = (ProtobufCBinaryData){.data = r->record, .len = r->len};
    codec_sink_put(to, &k, &m.base);
}

void codec_del_reservation(const struct codec_sink *to, uint64_t volume_id)
{
    codec_sink_del(to, key_of_u64(KEY_RESERVATION, volume_id));
}

void codec_put_setting(const struct codec_sink *to, const struct setting_value *v)
{
    struct key k = key_setting(v->name);
    Zbs__Metalog__KvSetting m = ZBS__METALOG__KV_SETTING__INIT;

    m.name = v->name;
    m.value = v->value;
    m.version = v->version;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_garbage(const struct codec_sink *to, uint32_t chunk_id, uint64_t extent_id,
                       const struct garbage *g)
{
    struct key k = key_garbage(chunk_id, extent_id);
    struct key val = {0};

    key_u64(&val, g->epoch);
    key_u64(&val, g->family);
    sink_put(to, &k, val.bytes, val.len);
}

void codec_put_result(const struct codec_sink *to, const struct result *r)
{
    struct key k = key_of_u64(KEY_RESULT, r->mutation);
    Zbs__Metalog__KvResult m = ZBS__METALOG__KV_RESULT__INIT;

    m.client = r->client;
    m.number = r->number;
    m.reply = (ProtobufCBinaryData){.data = r->reply, .len = r->reply_len};
    codec_sink_put(to, &k, &m.base);
}

void codec_del_chunk(const struct codec_sink *to, uint32_t id)
{
    codec_sink_del(to, key_of_u32(KEY_CHUNK, id));
}

void codec_del_pool(const struct codec_sink *to, uint32_t id)
{
    codec_sink_del(to, key_of_u32(KEY_POOL, id));
}

void codec_del_volume(const struct codec_sink *to, uint64_t id)
{
    codec_sink_del(to, key_of_u64(KEY_VOLUME, id));
}

void codec_del_slot(const struct codec_sink *to, uint64_t volume_id, uint32_t slot)
{
    codec_sink_del(to, key_slot(volume_id, slot));
}

void codec_del_extent(const struct codec_sink *to, uint64_t id)
{
    codec_sink_del(to, key_of_u64(KEY_EXTENT, id));
}

void codec_del_page(const struct codec_sink *to, uint64_t id)
{
    codec_sink_del(to, key_of_u64(KEY_PAGE, id));
}

void codec_del_session(const struct codec_sink *to, uint64_t id)
{
    codec_sink_del(to, key_of_u64(KEY_SESSION, id));
}

void codec_del_target(const struct codec_sink *to, const char *iqn)
{
    codec_sink_del(to, key_target(iqn));
}

void codec_del_garbage(const struct codec_sink *to, uint32_t chunk_id, uint64_t extent_id)
{
    codec_sink_del(to, key_garbage(chunk_id, extent_id));
}

void codec_del_result(const struct codec_sink *to, uint64_t mutation)
{
    codec_sink_del(to, key_of_u64(KEY_RESULT, mutation));
}

static void put_volume_slots(const struct codec_sink *to, const struct volume *v)
{
    for (uint32_t i = 0; i < v->n_pages; i++) {
        if (v->pages[i] == NULL)
            continue;
        for (uint32_t n = 0; n < SLOTS_PER_PAGE; n++) {
            if (v->pages[i]->slots[n].used)
                codec_put_slot(to, &v->pages[i]->slots[n]);
        }
    }
}

static void put_volume_table(const struct codec_sink *to, const struct volume *v)
{
    for (uint32_t i = 0; i < v->n_pages; i += TABLE_GROUP)
        codec_put_table(to, v, i);
}

static void put_chunk_garbage(const struct codec_sink *to, const struct chunk *c)
{
    for (uint64_t i = 0; i < c->garbage.cap; i++) {
        if (c->garbage.entries[i].id != 0)
            codec_put_garbage(to, c->id, c->garbage.entries[i].id,
                              chunk_garbage(c, c->garbage.entries[i].id));
    }
}

uint64_t codec_digest(const struct state *st)
{
    uint64_t digest = 0;
    struct codec_sink to = {.digest = &digest};
    struct codec_header h = {0};

    codec_header_take(&h, st);
    codec_put_header(&to, &h);
    for (uint32_t i = 0; i < st->pools.count; i++)
        codec_put_pool(&to, st->pools.items[i]);
    for (uint64_t i = 0; i < st->volumes.cap; i++) {
        struct volume *v = (struct volume *)(uintptr_t)st->volumes.entries[i].value;

        if (st->volumes.entries[i].id == 0)
            continue;
        codec_put_volume(&to, v);
        put_volume_slots(&to, v);
        put_volume_table(&to, v);
    }
    for (uint64_t i = 0; i < st->extents.cap; i++) {
        if (st->extents.entries[i].id != 0)
            codec_put_extent(&to, (struct extent *)(uintptr_t)st->extents.entries[i].value);
    }
    for (uint64_t i = 0; i < st->pages.cap; i++) {
        if (st->pages.entries[i].id != 0)
            codec_put_page(&to, (struct table_page *)(uintptr_t)st->pages.entries[i].value);
    }
    for (uint32_t i = 0; i < st->chunks.count; i++) {
        codec_put_chunk(&to, st->chunks.items[i]);
        put_chunk_garbage(&to, st->chunks.items[i]);
    }
    for (uint32_t i = 0; i < st->sessions.count; i++)
        codec_put_session(&to, st->sessions.items[i]);
    for (uint32_t i = 0; i < st->targets.count; i++)
        codec_put_target(&to, st->targets.items[i]);
    for (uint32_t i = 0; i < st->reservations.count; i++)
        codec_put_reservation(&to, st->reservations.items[i]);
    for (uint32_t i = 0; i < st->settings.count; i++)
        codec_put_setting(&to, st->settings.items[i]);
    codec_put_tree(&to, &st->tree);
    LIST_FOREACH (r, &st->results, struct result, link)
        codec_put_result(&to, r);
    return digest;
}
