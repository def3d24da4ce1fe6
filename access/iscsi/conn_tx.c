/* SPDX-License-Identifier: Apache-2.0
 *
 * PDUs that leave. Numbers that change while a PDU waits (StatSN, ExpCmdSN, MaxCmdSN) are stamped,
 * and digests computed, when its turn has come. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"
#include "common/base/crc32c.h"

#define TX_FREE_MAX 64u /* PDUs kept for reuse */

struct pdu_out *conn_pdu(struct iscsi_conn *c, enum iscsi_op op)
{
    struct list *l = list_pop_front(&c->tx_free);
    struct pdu_out *p;

    if (l != NULL) {
        p = LIST_ENTRY(l, struct pdu_out, item.link);
        c->tx_free_count--;
        memset(p, 0, offsetof(struct pdu_out, small));
    } else {
        p = MEM_NEW(struct pdu_out);
    }
    p->conn = c;
    p->bhs[0] = (uint8_t)op;
    p->statsn = STATSN_ADVANCE;
    return p;
}

void iscsi_pdu_sent(struct stream_conn *stream, struct stream_item *item)
{
    struct iscsi_conn *c = CONTAINER_OF(stream, struct iscsi_conn, stream);
    struct pdu_out *p = CONTAINER_OF(item, struct pdu_out, item);

    buf_put(p->buf);
    if (p->credit_bytes > 0)
        co_sem_release(&c->credits, p->credit_bytes);
    if (p->plain)
        c->tx_plain--;
    if (c->tx_free_count < TX_FREE_MAX) {
        list_push_back(&c->tx_free, &p->item.link);
        c->tx_free_count++;
    } else {
        mem_free(p);
    }
}

void iscsi_conn_send(struct iscsi_conn *c, struct pdu_out *p)
{
    stream_queue(&c->stream, &p->item);
}

void iscsi_conn_send_plain(struct iscsi_conn *c, struct pdu_out *p)
{
    p->plain = true;
    c->tx_plain++;
    iscsi_conn_send(c, p);
}

co_fn int conn_plain_wait(struct iscsi_conn *c)
{
    while (c->tx_plain > ISCSI_PLAIN_MAX && !c->stream.tx_ended) {
        nsec_t former = co_deadline_push(co_now() + c->t->conf.ping_ms * NSEC_PER_MSEC);
        int rc = co_cond_wait(&c->stream.tx_progress);

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
             (unsigned long long)c->stream.id, reason, pdu_op_name(in->opcode),
             err_text(ERR_INVAL));
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

int iscsi_pdu_pieces(struct stream_conn *stream, struct stream_item *item, struct iovec *iov)
{
    struct iscsi_conn *c = CONTAINER_OF(stream, struct iscsi_conn, stream);
    struct pdu_out *p = CONTAINER_OF(item, struct pdu_out, item);
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
