/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations of volumes: see reservations.h. */
#include "meta/reservations.h"

#include <string.h>
#include "common/base/mem.h"
#include "meta/apply.h"
#include "meta/codec.h"
#include "meta/live.h"
#include "meta/state_compare.h"

static int compare_reservation(const void *item, const void *key)
{
    return compare_u64(((const struct reservation *)item)->volume_id, *(const uint64_t *)key);
}

struct reservation *state_reservation(const struct state *st, uint64_t volume_id)
{
    return sorted_find(&st->reservations, compare_reservation, &volume_id);
}

void state_reservation_put(struct state *st, uint64_t volume_id, uint64_t version,
                           const uint8_t *record, size_t len)
{
    struct reservation *r = state_reservation(st, volume_id);

    if (r == NULL) {
        r = MEM_NEW(struct reservation);
        r->volume_id = volume_id;
        sorted_insert(&st->reservations, compare_reservation, &volume_id, r);
    }
    mem_free(r->record);
    r->record = mem_alloc(len);
    memcpy(r->record, record, len);
    r->len = (uint32_t)len;
    r->version = version;
    st->reservations_version = MAX(st->reservations_version, version);
}

static void reservation_free(struct reservation *r)
{
    mem_free(r->record);
    mem_free(r);
}

void state_reservations_fini(struct state *st)
{
    for (uint32_t i = 0; i < st->reservations.count; i++)
        reservation_free(st->reservations.items[i]);
    sorted_fini(&st->reservations);
}

/* ---- records ---- */

int apply_reservation_set(struct apply *a)
{
    const Zbs__Metalog__ReservationSet *m = a->record->reservation_set;
    const struct volume *v = state_volume(a->st, m->volume_id);
    Zbs__Meta__ReservationSetReply reply = ZBS__META__RESERVATION_SET_REPLY__INIT;

    if (v == NULL || v->removed || m->record.len == 0 || m->record.len > RESERVATION_BYTES_MAX)
        return apply_misfit(a, "reservation");
    state_reservation_put(a->st, m->volume_id, a->number, m->record.data, m->record.len);
    codec_put_reservation(a->to, state_reservation(a->st, m->volume_id));
    reply.version = a->number;
    a->reply = view_pack(&reply.base, a->pad);
    return 0;
}

void apply_reservation_drop(struct apply *a, uint64_t volume_id)
{
    struct reservation *r = sorted_remove(&a->st->reservations, compare_reservation, &volume_id);

    if (r == NULL)
        return;
    codec_del_reservation(a->to, volume_id);
    reservation_free(r);
}

/* ---- requests ---- */

int decide_reservation_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ReservationSetRequest *rq = (const void *)d->rq;
    const struct reservation *now = state_reservation(d->st, rq->volume_id);
    const struct volume *v = state_volume(d->st, rq->volume_id);
    Zbs__Metalog__ReservationSet *m;
    struct session *s;
    int rc = rq->session_id != 0 ? decide_session(d, rq->session_id, &s) : 0;

    if (rc < 0)
        return rc;
    if (v == NULL || v->removed)
        return err_set(ERR_NOTFOUND, "there is no volume %llu", (unsigned long long)rq->volume_id);
    if (rq->record.len == 0 || rq->record.len > RESERVATION_BYTES_MAX)
        return err_set(ERR_INVAL, "a reservation record has 1 to %u bytes", RESERVATION_BYTES_MAX);
    if (rq->version != (now != NULL ? now->version : 0))
        return err_set(ERR_STALE, "the reservations were changed meanwhile");
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_RESERVATION_SET);
    (*ret)->reservation_set = m = PAD_NEW(d->pad, Zbs__Metalog__ReservationSet);
    zbs__metalog__reservation_set__init(m);
    m->volume_id = rq->volume_id;
    m->record = rq->record;
    return 0;
}

int answer_reservation_get(const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__ReservationGetRequest *rq = (const void *)d->rq;
    Zbs__Meta__ReservationGetReply *m = (void *)reply;
    const struct volume *v = state_volume(d->st, rq->volume_id);
    const struct reservation *r = state_reservation(d->st, rq->volume_id);

    if (v == NULL || v->removed)
        return err_set(ERR_NOTFOUND, "there is no volume %llu", (unsigned long long)rq->volume_id);
    if (r == NULL)
        return 0;
    m->version = r->version;
    m->record = (ProtobufCBinaryData){.data = r->record, .len = r->len};
    return 0;
}

/* ---- renewals ---- */

/* What every other session says that it obeys; one that has not renewed with this leader yet may
 * obey nothing. Sessions that have ended begin nothing any more: their own lease clocks ran out
 * first. */
static uint64_t settled(struct live *l, const struct state *st, uint64_t session_id)
{
    uint64_t version = st->reservations_version;

    for (uint32_t i = 0; i < st->sessions.count; i++) {
        const struct session *s = st->sessions.items[i];

        if (s->id != session_id)
            version = MIN(version, live_session(l, s->id)->reservations_seen);
    }
    return version;
}

void reservations_fill(struct live *l, const struct decide *d, Zbs__Meta__SessionRenewReply *m)
{
    const Zbs__Meta__SessionRenewRequest *rq = (const void *)d->rq;
    const struct state *st = d->st;

    live_session(l, rq->session_id)->reservations_seen = rq->reservations_version;
    m->reservations_version = st->reservations_version;
    m->reservations_settled = settled(l, st, rq->session_id);
    if (rq->reservations_version == st->reservations_version)
        return;
    m->reservations_changed = PAD_NEW_ARRAY(d->pad, uint64_t, st->reservations.count + 1);
    for (uint32_t i = 0; i < st->reservations.count; i++) {
        const struct reservation *r = st->reservations.items[i];

        if (r->version > rq->reservations_version)
            m->reservations_changed[m->n_reservations_changed++] = r->volume_id;
    }
}
