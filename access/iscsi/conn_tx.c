/* SPDX-License-Identifier: Apache-2.0
 *
 * Sending on a connection: a queue of PDUs and the coroutine that empties it. It runs after the
 * coroutines that filled the queue in this turn of the loop, so everything they queued leaves in
 * one writev. Numbers that change while a PDU waits (StatSN, ExpCmdSN, MaxCmdSN) are stamped, and
 * digests computed, when it leaves. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"
#include "common/base/crc32c.h"

#define TX_FREE_MAX 64u /* PDUs kept for reuse */
#define TX_IOVS     96  /* pieces of one writev */

struct pdu_out *conn_pdu(struct iscsi_conn *c, enum iscsi_op op)
{
    struct list *l = list_pop_front(&c->tx_free);
    struct pdu_out *p;

    if (l != NULL) {
        p = LIST_ENTRY(l, struct pdu_out, link);
        c->tx_free_count--;
        memset(p, 0, offsetof(struct pdu_out, small));
    } else {
        p = MEM_NEW(struct pdu_out);
    }
    list_init(&p->link);
    p->conn = c;
    p->bhs[0] = (uint8_t)op;
    p->statsn = STATSN_ADVANCE;
    return p;
}

static void conn_pdu_done(struct iscsi_conn *c, struct pdu_out *p)
{
    buf_put(p->buf);
    if (p->credit_bytes > 0)
        co_sem_release(&c->credits, p->credit_bytes);
    if (p->plain) {
        c->tx_plain--;
        co_cond_signal(&c->tx_done);
    }
    if (c->tx_free_count < TX_FREE_MAX) {
        list_push_back(&c->tx_free, &p->link);
        c->tx_free_count++;
    } else {
        mem_free(p);
    }
}

void iscsi_conn_send(struct iscsi_conn *c, struct pdu_out *p)
{
    if (c->tx_broken) {
        conn_pdu_done(c, p);
        return;
    }
    list_push_back(&c->tx, &p->link);
    co_cond_signal(&c->tx_wake);
}

void iscsi_conn_send_plain(struct iscsi_conn *c, struct pdu_out *p)
{
    p->plain = true;
    c->tx_plain++;
    iscsi_conn_send(c, p);
}

co_fn int conn_plain_wait(struct iscsi_conn *c)
{
    while (c->tx_plain > ISCSI_PLAIN_MAX && !c->tx_broken) {
        nsec_t former = co_deadline_push(co_now() + c->t->conf.ping_ms * NSEC_PER_MSEC);
        int rc = co_cond_wait(&c->tx_done);

        co_deadline_restore(former);
        if (rc < 0)
            return err_prefix(rc, "initiator does not read its answers");
    }
    return 0;
}

void conn_reject(struct iscsi_conn *c, const struct pdu_in *in, enum pdu_reject reason)
{
    struct pdu_out *p = conn_pdu(c, OP_REJECT);

    log_info("iscsi.reject", "conn=%llu reason=0x%02x pdu=\"%s\" why=\"%s\"",
             (unsigned long long)c->id, reason, pdu_op_name(in->opcode), err_text(ERR_INVAL));
    p->bhs[1] = FLAG_FINAL;
    p->bhs[2] = (uint8_t)reason;
    put_be32(p->bhs + 16, TAG_NONE);
    memcpy(p->small, in->bhs, BHS_BYTES);
    p->data = p->small;
    p->len = BHS_BYTES;
    iscsi_conn_send_plain(c, p);
}

uint32_t conn_exp_cmdsn(const struct iscsi_conn *c)
{
    return c->session != NULL ? c->session->exp_cmdsn : c->exp_cmdsn;
}

/* Stamps and digests; adds the pieces to iov. Number of entries used, at most 3. */
static int conn_pdu_finish(struct iscsi_conn *c, struct pdu_out *p, struct iovec *iov)
{
    uint32_t pad = pdu_pad(p->len), head = BHS_BYTES;
    int n = 1;

    put_be24(p->bhs + 5, p->len);
    if (p->statsn != STATSN_NONE)
        put_be32(p->bhs + 24, c->statsn);
    if (p->statsn == STATSN_ADVANCE)
        c->statsn++;
    put_be32(p->bhs + 28, conn_exp_cmdsn(c));
    put_be32(p->bhs + 32, c->session != NULL ? session_max_cmdsn(c->session) : c->exp_cmdsn + 1);
    if (c->header_digest) {
        put_le32(p->head_digest, crc32c(0, p->bhs, BHS_BYTES));
        head += DIGEST_BYTES;
    }
    iov[0] = (struct iovec){p->bhs, head}; /* head_digest follows bhs */
    if (p->len == 0)
        return n;
    iov[n++] = (struct iovec){(void *)(uintptr_t)p->data, p->len};
    memset(p->tail, 0, pad);
    if (c->data_digest)
        put_le32(p->tail + pad, crc32c(crc32c(0, p->data, p->len), p->tail, pad));
    if (pad > 0 || c->data_digest)
        iov[n++] = (struct iovec){p->tail, pad + (c->data_digest ? DIGEST_BYTES : 0)};
    return n;
}

/* Sends as much of the queue as one writev takes. *ret_last: the connection ends after them. */
static co_fn int conn_send_some(struct iscsi_conn *c, bool *ret_last)
{
    struct iovec iov[TX_IOVS];
    struct list out;
    int n = 0, rc;

    list_init(&out);
    while (!list_empty(&c->tx) && n + 3 <= TX_IOVS) {
        struct pdu_out *p = LIST_ENTRY(list_pop_front(&c->tx), struct pdu_out, link);

        *ret_last = *ret_last || p->last;
        n += conn_pdu_finish(c, p, iov + n);
        list_push_back(&out, &p->link);
    }
    rc = net_writev_full(c->net, iov, n);
    while (!list_empty(&out))
        conn_pdu_done(c, LIST_ENTRY(list_pop_front(&out), struct pdu_out, link));
    return rc;
}

co_fn int iscsi_writer_main(void *arg)
{
    struct iscsi_conn *c = arg;
    bool last = false;
    int rc = 0;

    while (rc == 0 && !last) {
        if (list_empty(&c->tx)) {
            if (c->tx_closing)
                break;
            rc = co_cond_wait(&c->tx_wake);
            continue;
        }
        rc = conn_send_some(c, &last);
    }
    c->tx_broken = true;
    while (!list_empty(&c->tx))
        conn_pdu_done(c, LIST_ENTRY(list_pop_front(&c->tx), struct pdu_out, link));
    co_cond_broadcast(&c->tx_done);
    iscsi_conn_break(c, rc < 0 ? "the initiator takes no answers" : "the last answer was sent");
    return 0;
}
