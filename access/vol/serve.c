/* SPDX-License-Identifier: Apache-2.0
 *
 * The Access service: I/O that other access servers forward to us because we own its slot
 * (PROTOCOL 8.1), and status. */
#include "access/vol/vol_int.h"

#include <string.h>

#define START_LIMIT (2 * NSEC_PER_SEC)  /* from acceptance to start */
#define RESULT_KEPT (30 * NSEC_PER_SEC) /* outcomes, for those who ask again */
#define RESULTS     16384u              /* of one session: its latest numbers */

/* One request of a forwarder that changes something: executed at most once. */
struct execution {
    uint64_t number;
    uint32_t users; /* handlers */
    nsec_t ended;
    uint32_t miscompare;
    uint64_t hint;
    struct co_event done; /* its result */
};

struct client {
    struct list link;
    uint64_t session;
    struct execution *results[RESULTS]; /* by number modulo RESULTS */
    nsec_t used;
};

static struct client *client_of(struct vol_engine *e, uint64_t session)
{
    struct client *c;

    LIST_FOREACH (known, &e->clients, struct client, link)
        if (known->session == session)
            return known;
    c = MEM_NEW(struct client);
    c->session = session;
    list_push_back(&e->clients, &c->link);
    return c;
}

/* Forgets outcomes that nobody will ask for any more; true if none are left. */
static bool client_trim(struct client *c, nsec_t before)
{
    bool empty = true;

    for (uint32_t k = 0; k < RESULTS; k++) {
        struct execution *x = c->results[k];

        if (x && x->users == 0 && x->ended < before) {
            mem_free(x);
            c->results[k] = NULL;
        }
        empty &= c->results[k] == NULL;
    }
    return empty;
}

static void client_free(struct client *c)
{
    list_del(&c->link);
    mem_free(c);
}

void serve_trim(struct vol_engine *e)
{
    nsec_t before = co_now() - RESULT_KEPT;

    LIST_FOREACH_SAFE (c, &e->clients, struct client, link)
        if (client_trim(c, before) && c->used < before)
            client_free(c);
}

void serve_fini(struct vol_engine *e)
{
    LIST_FOREACH_SAFE (c, &e->clients, struct client, link) {
        bool empty = client_trim(c, NSEC_NEVER);

        ASSERT(empty);
        client_free(c);
    }
}

/* The execution of this number: a former one (*ret_fresh false) or one to be begun now. */
static int execution_of(struct client *c, uint64_t number, struct execution **ret, bool *ret_fresh)
{
    struct execution **at = &c->results[number % RESULTS];
    struct execution *x = *at;

    *ret_fresh = false;
    if (x && x->number > number)
        return err_set(ERR_AMBIGUOUS, "the outcome of request %" PRIu64 " is forgotten", number);
    if (x && x->number < number) {
        if (x->users > 0)
            return err_set(ERR_AGAIN, "too many requests since %" PRIu64, x->number);
        mem_free(x);
        x = NULL;
    }
    if (!x) {
        *ret_fresh = true;
        x = *at = MEM_NEW(struct execution);
        x->number = number;
        co_event_init(&x->done);
    }
    x->users++;
    *ret = x;
    return 0;
}

/* ---- forwarded I/O ---- */

static int request_check(const struct rpc_request *q, const Zbs__Access__ForwardRequest *m)
{
    uint64_t end = (uint64_t)m->offset + m->length;
    uint32_t payload = 0, max = OP_BYTES_MAX;

    switch (m->op) {
    case ZBS__ACCESS__FORWARD_OP__FORWARD_READ:
        break;
    case ZBS__ACCESS__FORWARD_OP__FORWARD_WRITE:
        payload = m->length;
        break;
    case ZBS__ACCESS__FORWARD_OP__FORWARD_ZERO:
    case ZBS__ACCESS__FORWARD_OP__FORWARD_DISCARD:
        max = ZERO_BYTES_MAX;
        break;
    case ZBS__ACCESS__FORWARD_OP__FORWARD_COMPARE_AND_WRITE:
        payload = 2 * m->length;
        max = PAGE_BYTES - m->offset % PAGE_BYTES;
        break;
    default:
        return err_set(ERR_UNSUPPORTED, "forwarded operation %u is not known", m->op);
    }
    if (m->length == 0 || m->length > max || end > EXTENT_BYTES || m->offset % SECTOR_BYTES != 0 ||
        m->length % SECTOR_BYTES != 0)
        return err_set(ERR_INVAL, "forwarded operation on %u bytes at %u", m->length, m->offset);
    if (q->payload_len != payload)
        return err_set(ERR_INVAL, "forwarded operation with %u bytes of payload instead of %u",
                       q->payload_len, payload);
    return 0;
}

static const enum io_kind io_of[] = {
    [ZBS__ACCESS__FORWARD_OP__FORWARD_READ] = IO_READ,
    [ZBS__ACCESS__FORWARD_OP__FORWARD_WRITE] = IO_WRITE,
    [ZBS__ACCESS__FORWARD_OP__FORWARD_ZERO] = IO_ZERO,
    [ZBS__ACCESS__FORWARD_OP__FORWARD_DISCARD] = IO_DISCARD,
    [ZBS__ACCESS__FORWARD_OP__FORWARD_COMPARE_AND_WRITE] = IO_COMPARE_AND_WRITE,
};

/* What arrived must be what was sent. */
static int payload_check(const struct rpc_request *q, const Zbs__Access__ForwardRequest *m)
{
    uint32_t pieces = page_pieces(m->offset, m->length);
    uint32_t *crc;
    bool same;

    if (m->op != ZBS__ACCESS__FORWARD_OP__FORWARD_WRITE)
        return 0;
    if (m->n_crc != pieces)
        return err_set(ERR_INVAL, "forwarded write with %zu checksums instead of %u", m->n_crc,
                       pieces);
    crc = MEM_NEW_ARRAY(uint32_t, pieces);
    page_crcs(m->offset, m->length, q->payload->data, crc);
    same = memcmp(crc, m->crc, pieces * sizeof(*crc)) == 0;
    mem_free(crc);
    /* Not executed: it may come again. */
    return same ? 0 : err_set(ERR_AGAIN, "a forwarded write does not match its checksums");
}

/* Runs it under the limit for its start: everything that waits before a write is sent ends with
 * the deadline, what comes after is shielded from it. */
static int forward_run(struct io *io, nsec_t accepted)
{
    nsec_t former = co_deadline_push(accepted + START_LIMIT);
    int rc = reservations_check(io);

    reservations_forward_begin(io);
    if (rc == 0)
        rc = io_run(io);
    reservations_forward_end(io);
    co_deadline_restore(former);
    if (rc == ERR_TIMEOUT || rc == ERR_CANCELED)
        rc = err_set(ERR_AGAIN, "not started in time");
    return rc;
}

/* *ret_judged: the result is that of the execution, not of a failure to look at it. */
static int forward_once(struct vol_engine *e, const Zbs__Access__ForwardRequest *m, struct io *io,
                        nsec_t accepted, protobuf_c_boolean *ret_judged)
{
    struct client *c = client_of(e, m->session_id);
    struct execution *x = NULL;
    bool fresh;
    int rc;

    c->used = accepted;
    rc = execution_of(c, m->number, &x, &fresh);
    if (rc < 0)
        return rc;
    if (fresh) {
        /* A sender whose session ended may carry what its initiator has long sent elsewhere. */
        rc = access_find(e, m->session_id)
                 ? forward_run(io, accepted)
                 : err_set(ERR_AGAIN, "session %" PRIu64 " is not known here", m->session_id);
        x->miscompare = io->miscompare;
        x->hint = io->fwd_hint;
        x->ended = co_now();
        co_event_set(&x->done, rc);
        *ret_judged = true;
    } else {
        rc = co_event_wait(&x->done);
        *ret_judged = x->done.set;
        if (!x->done.set)
            rc = ERR_BUSY; /* interrupted: its outcome is asked for again */
        io->miscompare = x->miscompare;
        io->fwd_hint = x->hint;
    }
    x->users--;
    return rc;
}

static void read_reply(struct rpc_request *q, Zbs__Access__ForwardReply *reply, const struct io *io)
{
    uint32_t pieces = page_pieces(io->off, io->len);

    reply->crc = rpc_alloc(q, pieces * sizeof(*reply->crc));
    reply->n_crc = page_crcs(io->off, io->len, io->buf->data, reply->crc);
    rpc_payload_add(&q->out, io->buf, 0, io->len);
}

static int access_forward(struct rpc_request *q)
{
    struct vol_engine *e = q->ctx;
    const Zbs__Access__ForwardRequest *m = (const Zbs__Access__ForwardRequest *)q->msg;
    Zbs__Access__ForwardReply *reply = (Zbs__Access__ForwardReply *)q->reply;
    nsec_t accepted = co_now();
    struct io io = {.forwarded = true};
    struct volume *v;
    int rc = request_check(q, m);

    if (rc == 0)
        rc = payload_check(q, m);
    if (rc == 0 && (!e->session || e->stopping || m->owner_session != e->session))
        rc = err_set(ERR_NOT_OWNER, "session %" PRIu64 " is not served here at present",
                     m->owner_session);
    if (rc == 0)
        rc = vol_object_get(e, m->volume_id, &v);
    if (rc == 0) {
        io.slot = vol_slot_at(v, m->slot);
        if (!io.slot)
            rc = err_set(ERR_AGAIN, "slot %u is beyond what is known of the volume", m->slot);
    }
    if (rc < 0)
        return rc;
    slot_forwarded_by(io.slot, m->session_id);
    io.from = m->session_id;
    io.reservations = m->reservations;
    io.kind = io_of[m->op];
    io.off = m->offset;
    io.len = m->length;
    if (io.kind == IO_READ) {
        io.buf = buf_alloc(io.len);
        rc = forward_run(&io, accepted);
        if (rc == 0)
            read_reply(q, reply, &io);
        buf_put(io.buf);
    } else {
        io.buf = io.buf2 = q->payload;
        io.buf2_off = io.len;
        rc = forward_once(e, m, &io, accepted, &reply->judged);
    }
    if (rc == 0)
        return 0;
    reply->owner_session = rc == ERR_NOT_OWNER ? io.fwd_hint : 0;
    reply->miscompare_offset = io.miscompare;
    return rpc_fail_with_reply(q, rc);
}

/* ---- status ---- */

static int access_status(struct rpc_request *q)
{
    struct vol_engine *e = q->ctx;
    Zbs__Access__StatusReply *reply = (Zbs__Access__StatusReply *)q->reply;
    struct vol_engine_stats stats;

    vol_engine_stats(e, &stats);
    reply->session_id = e->session;
    reply->extents_owned = stats.extents_owned;
    reply->longest_write_ns = (uint64_t)stats.longest_write_ns;
    reply->longest_read_ns = (uint64_t)stats.longest_read_ns;
    if (e->initiators)
        e->initiators(e->initiators_arg, q, reply);
    return 0;
}

void serve_init(struct vol_engine *e)
{
    e->methods[0] = (struct rpc_method){
        .handler = access_forward, .payload_max = RPC_PAYLOAD_MAX, .cancel_on_disconnect = true};
    e->methods[1] = (struct rpc_method){.handler = access_status};
    e->methods[2] = (struct rpc_method){.handler = access_verify, .cancel_on_disconnect = true};
    e->methods[3] =
        (struct rpc_method){.handler = access_differences, .cancel_on_disconnect = true};
    e->methods[4] =
        (struct rpc_method){.handler = access_volume_read, .cancel_on_disconnect = true};
    e->methods[5] = (struct rpc_method){.handler = access_volume_write,
                                        .payload_max = RPC_PAYLOAD_MAX,
                                        .cancel_on_disconnect = true};
    e->service.descriptor = &zbs__access__access__descriptor;
    e->service.methods = e->methods;
    e->service.ctx = e;
}
