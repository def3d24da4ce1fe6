/* SPDX-License-Identifier: Apache-2.0
 *
 * Objects as messages: see view.h. */
#include "meta/view.h"

#include "meta/family.h"
#include "meta/table.h"

static Zbs__Meta__Limits *view_limits(const Zbs__Meta__Limits *l)
{
    return l->iops || l->bandwidth ? (Zbs__Meta__Limits *)(uintptr_t)l : NULL;
}

void limits_set(Zbs__Meta__Limits *to, const Zbs__Metalog__KvLimits *from)
{
    zbs__meta__limits__init(to);
    if (from == NULL)
        return;
    to->iops = from->iops;
    to->iops_burst = from->iops_burst;
    to->bandwidth = from->bandwidth;
    to->bandwidth_burst = from->bandwidth_burst;
}

Zbs__Metalog__KvLimits *limits_kv(const Zbs__Meta__Limits *from, Zbs__Metalog__KvLimits *to)
{
    zbs__metalog__kv_limits__init(to);
    to->iops = from->iops;
    to->iops_burst = from->iops_burst;
    to->bandwidth = from->bandwidth;
    to->bandwidth_burst = from->bandwidth_burst;
    return to;
}

void view_pool(Zbs__Meta__Pool *m, const struct pool *p)
{
    zbs__meta__pool__init(m);
    m->id = p->id;
    m->name = p->name;
    m->replicas = p->replicas;
    m->min_replicas = p->min_replicas;
    m->failure_domain = p->failure_domain;
    m->volumes = p->volumes.count;
    m->size_bytes = p->bytes;
    m->limits = view_limits(&p->limits);
}

void view_volume(Zbs__Meta__Volume *m, const struct state *st, const struct volume *v)
{
    zbs__meta__volume__init(m);
    m->id = v->id;
    m->pool = v->pool != NULL ? v->pool->name : (char *)"";
    m->name = v->name;
    m->size_bytes = v->size_bytes;
    m->replicas = v->replicas;
    m->min_replicas = v->min_replicas;
    m->stripe_count = v->layout.stripe_count;
    m->stripe_bytes = v->layout.stripe_bytes;
    m->preferred_host = v->preferred_host;
    m->created_ns = v->created_ns;
    m->extents = v->extents;
    m->extents_degraded = volume_health(st, v).degraded;
    m->uuid = (ProtobufCBinaryData){.data = (uint8_t *)v->uuid, .len = sizeof(v->uuid)};
    m->version = v->version;
    m->snapshot = v->snapshot;
    m->origin_id = v->origin_id;
    m->shared_at = v->shared_at;
    m->table_at = v->table_at;
    m->limits = view_limits(&v->limits);
    m->pool_limits = v->pool != NULL ? view_limits(&v->pool->limits) : NULL;
    m->pool_id = v->pool_id;
    m->flattening = v->flattening;
    m->flatten_next = v->flatten_next;
    m->provisioning = (Zbs__Meta__Provisioning *)&v->provisioning;
    m->importing = v->importing;
    m->inode_id = v->inode_id;
    if (v->snapshot || v->importing != 0)
        m->content =
            (ProtobufCBinaryData){.data = (uint8_t *)v->content, .len = sizeof(v->content)};
}

void view_target(Zbs__Meta__Target *m, const struct state *st, const struct target *t,
                 struct pad *pad)
{
    zbs__meta__target__init(m);
    m->iqn = t->iqn;
    m->chap_user = t->chap_user;
    m->chap_secret = t->chap_secret;
    m->initiators = t->initiators;
    m->n_initiators = t->n_initiators;
    m->luns = PAD_NEW_ARRAY(pad, Zbs__Meta__Lun *, t->n_luns);
    m->n_luns = t->n_luns;
    for (uint32_t i = 0; i < t->n_luns; i++) {
        const struct volume *v = state_volume(st, t->luns[i].volume_id);

        m->luns[i] = PAD_NEW(pad, Zbs__Meta__Lun);
        zbs__meta__lun__init(m->luns[i]);
        m->luns[i]->lun = t->luns[i].lun;
        m->luns[i]->volume_id = v->id;
        m->luns[i]->pool = v->pool->name;
        m->luns[i]->volume = v->name;
    }
}

void view_replicas(Zbs__Meta__ReplicaChangeReply *m, const struct extent *e)
{
    zbs__meta__replica_change_reply__init(m);
    m->set_number = e->set_number;
    m->members = (uint32_t *)extent_members(e);
    m->n_members = e->n_members;
    m->absent = (uint32_t *)extent_absent(e);
    m->n_absent = e->n_absent;
}

/* Is it with a member of this extent, which tells the difference, and where a replica is to be? */
static bool helps(const struct extent *elder, const struct extent *e)
{
    bool there = false, here = false;

    for (uint32_t i = 0; i < elder->n_members; i++) {
        there |= extent_has_absent(e, elder->replicas[i]);
        here |= extent_has_member(e, elder->replicas[i]);
    }
    return there && here;
}

static void grant_relatives(Zbs__Meta__Grant *m, const struct state *st, const struct extent *e,
                            struct pad *pad)
{
    const struct extent *elders[ELDERS_MAX];
    uint32_t n = family_elders(st, e, elders);

    m->relatives = PAD_NEW_ARRAY(pad, Zbs__Meta__Relative *, ELDERS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        Zbs__Meta__Relative *r;

        if (!helps(elders[i], e))
            continue;
        r = m->relatives[m->n_relatives++] = PAD_NEW(pad, Zbs__Meta__Relative);
        zbs__meta__relative__init(r);
        r->extent_id = elders[i]->id;
        r->epoch = elders[i]->epoch;
        r->members = (uint32_t *)extent_members(elders[i]);
        r->n_members = elders[i]->n_members;
    }
}

static void grant_extent(Zbs__Meta__Grant *m, const struct state *st, const struct extent *e,
                         struct pad *pad)
{
    m->extent_id = e->id;
    m->set_number = e->set_number;
    m->members = (uint32_t *)extent_members(e);
    m->n_members = e->n_members;
    m->absent = (uint32_t *)extent_absent(e);
    m->n_absent = e->n_absent;
    m->created = e->created;
    m->family = e->family;
    m->extent_epoch = e->epoch;
    if (e->origin != NULL) {
        m->origin = e->origin->id;
        m->origin_epoch = e->origin->epoch;
    }
    if (e->n_absent > 0 && family_is_large(e))
        grant_relatives(m, st, e, pad);
}

void view_grant(Zbs__Meta__Grant *m, const struct state *st, const struct volume *v,
                uint32_t number, struct pad *pad)
{
    const struct slot *s = volume_slot(v, number);
    const struct extent *e = volume_extent(v, number);

    zbs__meta__grant__init(m);
    m->slot = number;
    if (s != NULL) {
        m->owner_session = slot_owner(st, s) != NULL ? s->owner : 0;
        m->epoch = s->epoch;
    }
    m->shared = v->snapshot;
    m->thick = v->provisioning.thick;
    if (e == NULL)
        return;
    grant_extent(m, st, e, pad);
    m->shared = s == NULL || !slot_writes(s, e);
}

void view_extent(Zbs__Meta__ExtentView *m, const struct state *st, const struct volume *v,
                 uint32_t number)
{
    const struct extent *e = volume_extent(v, number);
    const struct slot *s = volume_slot(v, number);
    const struct session *owner = s != NULL ? slot_owner(st, s) : NULL;

    zbs__meta__extent_view__init(m);
    m->slot = number;
    m->extent_id = e->id;
    m->epoch = e->epoch;
    m->set_number = e->set_number;
    m->members = (uint32_t *)extent_members(e);
    m->n_members = e->n_members;
    m->absent = (uint32_t *)extent_absent(e);
    m->n_absent = e->n_absent;
    if (owner != NULL)
        m->owner = owner->name;
    m->created = e->created;
    m->family = e->family;
    m->shared = extent_is_shared(st, e);
}

void view_grant_shared(Zbs__Meta__Grant *m, const struct state *st, const struct extent *e,
                       struct pad *pad)
{
    const struct session *owner = e->lease != NULL ? slot_owner(st, e->lease) : NULL;

    zbs__meta__grant__init(m);
    m->slot = e->slot;
    m->owner_session = owner != NULL ? owner->id : 0;
    m->epoch = e->epoch;
    grant_extent(m, st, e, pad);
    m->shared = true;
}

void view_access(Zbs__Meta__AccessView *m, const struct session *s)
{
    zbs__meta__access_view__init(m);
    m->session_id = s->id;
    m->name = s->name;
    m->addr = s->addr;
    m->host = s->host;
    m->iscsi_portal = s->iscsi_portal;
}

struct packed view_pack(const ProtobufCMessage *msg, struct pad *pad)
{
    struct packed p = {.len = protobuf_c_message_get_packed_size(msg)};

    p.bytes = pad_alloc(pad, p.len);
    protobuf_c_message_pack(msg, p.bytes);
    return p;
}
