/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving a volume extents and blocks that nothing else has. Slot by slot: the session that is asked
 * to (tasks.c) makes a shared extent a child and writes anew what shares blocks, then says so here,
 * and the volume's mark moves on to the next slot that has anything to do. So after a crash of
 * anybody at most one slot is looked at again. */
#include "common/base/err.h"
#include "meta/decide.h"
#include "meta/table.h"

/* An extent with a family of others may share blocks with them, even if no volume shares it. */
static uint32_t next_slot(const struct state *st, const struct volume *v, uint32_t from)
{
    for (uint32_t n = from; n < v->n_slots; n++) {
        const struct extent *e = volume_extent(v, n);

        if (e != NULL && (e->family != e->id || extent_is_shared(st, e)))
            return n;
    }
    return v->n_slots;
}

static Zbs__Metalog__Record *flatten(const struct decide *d, const struct volume *v, bool end,
                                     uint32_t from)
{
    Zbs__Metalog__Record *r = record_new(d->pad, ZBS__METALOG__RECORD__KIND_VOLUME_FLATTEN);
    uint32_t next = end ? v->n_slots : next_slot(d->st, v, from);

    r->volume_flatten = PAD_NEW(d->pad, Zbs__Metalog__VolumeFlatten);
    zbs__metalog__volume_flatten__init(r->volume_flatten);
    r->volume_flatten->volume_id = v->id;
    r->volume_flatten->end = next == v->n_slots;
    r->volume_flatten->next_slot = r->volume_flatten->end ? 0 : next;
    return r;
}

int decide_volume_flatten(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__VolumeFlattenRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    *ret = NULL;
    if (rc < 0)
        return rc;
    if (v->snapshot)
        return err_set(ERR_PERM, "'%s/%s' is a snapshot: it shares what its volume had", rq->pool,
                       rq->name);
    if (rq->cancel == v->flattening && (rq->cancel || next_slot(d->st, v, 0) < v->n_slots))
        *ret = flatten(d, v, rq->cancel, 0);
    return 0;
}

int answer_volume_flatten(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__VolumeFlattenRequest *rq = (const void *)d->rq;
    struct volume *v;
    int rc = decide_volume(d, rq->pool, rq->name, &v);

    if (rc == 0)
        view_volume((Zbs__Meta__Volume *)reply, d->st, v);
    return rc;
}

int decide_slot_flattened(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__SlotFlattenedRequest *rq = (const void *)d->rq;
    struct volume *v = state_volume(d->st, rq->volume_id);
    struct session *s;
    int rc = decide_session(d, rq->session_id, &s);

    *ret = NULL;
    if (rc == 0 && v != NULL && v->flattening && rq->slot == v->flatten_next)
        *ret = flatten(d, v, false, rq->slot + 1);
    return rc;
}
