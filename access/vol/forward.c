/* SPDX-License-Identifier: Apache-2.0
 *
 * Forwarding an I/O to the session that owns its slot (PROTOCOL 8.1): one hop. A request keeps
 * its (session, number) until its outcome is known, so that the owner executes it at most once
 * however often it is sent. */
#include "access/vol/vol_int.h"

#include <string.h>

#define ATTEMPT_LIMIT (5 * NSEC_PER_SEC)

static int read_check(const struct io *io, const struct rpc_reply *r)
{
    const Zbs__Access__ForwardReply *a = (const Zbs__Access__ForwardReply *)r->msg;
    uint32_t pieces = page_pieces(io->off, io->len);
    uint32_t *crc;
    int rc = 0;

    if (r->payload_len != io->len || a->n_crc != pieces)
        return err_set(ERR_PROTO, "a forwarded read was answered with %u of %u bytes",
                       r->payload_len, io->len);
    crc = MEM_NEW_ARRAY(uint32_t, pieces);
    page_crcs(io->off, io->len, io->buf->data + io->buf_off, crc);
    if (memcmp(crc, a->crc, pieces * sizeof(*crc)) != 0)
        rc = err_set(ERR_CORRUPT, "a forwarded read does not match its checksums");
    mem_free(crc);
    return rc;
}

static const uint32_t forward_op[] = {
    [IO_READ] = ZBS__ACCESS__FORWARD_OP__FORWARD_READ,
    [IO_WRITE] = ZBS__ACCESS__FORWARD_OP__FORWARD_WRITE,
    [IO_ZERO] = ZBS__ACCESS__FORWARD_OP__FORWARD_ZERO,
    [IO_DISCARD] = ZBS__ACCESS__FORWARD_OP__FORWARD_DISCARD,
    [IO_COMPARE_AND_WRITE] = ZBS__ACCESS__FORWARD_OP__FORWARD_COMPARE_AND_WRITE,
};

static void payload_fill(const struct io *io, struct rpc_payload *out)
{
    if (io->kind == IO_WRITE || io->kind == IO_COMPARE_AND_WRITE)
        rpc_payload_add(out, io->buf, io->buf_off, io->len);
    if (io->kind == IO_COMPARE_AND_WRITE)
        rpc_payload_add(out, io->buf2, io->buf2_off, io->len);
}

static int forward_call(struct io *io, struct access_peer *a, struct rpc_reply *r)
{
    Zbs__Access__ForwardRequest req = ZBS__ACCESS__FORWARD_REQUEST__INIT;
    struct rpc_payload out = {.count = 0};
    uint32_t small[OP_BYTES_MAX / PAGE_BYTES / 16 + 1];
    uint32_t pieces = io->kind == IO_WRITE ? page_pieces(io->off, io->len) : 0;
    uint32_t *crc = pieces > ARRAY_SIZE(small) ? MEM_NEW_ARRAY(uint32_t, pieces) : small;
    nsec_t former;
    int rc;

    req.session_id = io->fwd_as;
    req.owner_session = io->fwd_session;
    req.number = io->fwd_number;
    req.reservations = io->reservations;
    req.volume_id = io->slot->vol->info.id;
    req.slot = io->slot->index;
    req.op = forward_op[io->kind];
    req.offset = io->off;
    req.length = io->len;
    if (pieces) {
        req.n_crc = page_crcs(io->off, io->len, io->buf->data + io->buf_off, crc);
        req.crc = crc;
    }
    payload_fill(io, &out);
    if (io->kind == IO_READ) {
        r->dst = io->buf;
        r->dst_off = io->buf_off;
        r->dst_cap = io->len;
    }
    former = co_deadline_push(co_now() + ATTEMPT_LIMIT);
    rc = rpc_call(a->rpc, &zbs__access__access__descriptor, 0, &req.base, out.count ? &out : NULL,
                  r);
    co_deadline_restore(former);
    if (crc != small)
        mem_free(crc);
    return rc;
}

/* What an answer, or its absence, says about the execution. */
static int forward_judge(struct io *io, int rc, const struct rpc_reply *r)
{
    const Zbs__Access__ForwardReply *a = (const Zbs__Access__ForwardReply *)r->msg;
    bool known = r->answered || rc == ERR_UNREACHABLE;

    if (rc == 0)
        return io->kind == IO_READ ? read_check(io, r) : 0;
    if (rc == ERR_UNREACHABLE && !r->answered)
        return rc; /* nothing was sent now; what was sent before is as unknown as before */
    if (rc == ERR_BUSY && r->answered)
        return ERR_TIMEOUT; /* it is being executed since an earlier attempt */
    if (!known && io->kind == IO_COMPARE_AND_WRITE)
        return err_set(ERR_AMBIGUOUS, "the owner did not answer a compare and write");
    if (!known) {
        io->unknown = io->kind != IO_READ;
        return rc;
    }
    if (a && rc == ERR_NOT_OWNER)
        io->fwd_hint = a->owner_session;
    if (io->unknown && !(a && a->judged))
        return rc; /* refused now, which says nothing about the attempt that was not answered */
    io->unknown = false;
    if (a && rc == ERR_MISCOMPARE)
        io->miscompare = MIN(a->miscompare_offset, io->len - 1);
    io->fwd_number = 0; /* answered: another attempt is another request */
    if (rc == ERR_TIMEOUT || rc == ERR_CANCELED || rc == ERR_CLOSED)
        rc = ERR_AGAIN; /* the owner's own, before it started */
    return rc;
}

int forward_io(struct io *io, uint64_t owner)
{
    struct vol_engine *e = io->slot->vol->e;
    struct access_peer *a = access_find(e, owner);
    struct rpc_reply r;
    int rc;

    io->fwd_hint = 0;
    if (!a || !a->addr[0])
        return err_set(ERR_UNREACHABLE, "the address of session %" PRIu64 " is not known", owner);
    if (!e->session)
        return err_set(ERR_AGAIN, "there is no session with meta");
    if (!io->fwd_number || io->fwd_session != owner) {
        io->fwd_session = owner;
        io->fwd_as = e->session;
        io->fwd_number = ++e->next_number;
    }
    if (!a->rpc)
        a->rpc = rpc_client_new(&(struct rpc_client_conf){
            .addr = a->addr,
            .self = e->name,
            .cluster_id = e->cluster_id,
            .connect_timeout = e->member_deadline / 2,
        });
    a->users++;
    rpc_reply_init(&r);
    phase_enter(PHASE_FORWARDING);
    rc = forward_call(io, a, &r);
    phase_leave(PHASE_FORWARDING);
    rc = forward_judge(io, rc, &r);
    rpc_reply_free(&r);
    a->users--;
    return rc;
}
