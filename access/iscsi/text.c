/* SPDX-License-Identifier: Apache-2.0
 *
 * Text requests in full feature phase: SendTargets (discovery), and a polite answer to the rest.
 * A long answer is handed out in pieces of the initiator's MaxRecvDataSegmentLength. */
#include <string.h>
#include "access/iscsi/iscsi_int.h"

#define TEXT_ANSWER_MAX (512u * 1024)
#define TEXT_TTT        1u

/* Who asks at the virtual portal, from which logins are sent on, is to come back there. */
static void add_portals(const struct iscsi_conn *c, struct text_out *out)
{
    const struct iscsi_target *t = c->t;

    if (iscsi_conn_is_virtual(c) && iscsi_redirects(t)) {
        const char *addr = stream_server_addr(&t->stream, ISCSI_VIRTUAL_PORTAL);

        text_addf(out, "TargetAddress", "%s,%u", addr, iscsi_portal_tag(addr));
        return;
    }
    for (uint32_t i = 0; i < t->ports->count; i++)
        text_addf(out, "TargetAddress", "%s,%u", t->ports->list[i].addr, t->ports->list[i].number);
}

static void send_targets(struct iscsi_conn *c, const char *which, struct text_out *out)
{
    if (which[0] == '\0') { /* the target of this session */
        if (c->session == NULL) {
            text_add(out, "SendTargets", "Reject");
            return;
        }
        which = c->session->node->iqn;
    }
    LIST_FOREACH (node, &c->t->nodes, struct iscsi_node, link) {
        bool all = c->discovery && strcmp(which, "All") == 0;

        if ((!all && strcmp(which, node->iqn) != 0) || !iscsi_node_allows(node, c->initiator))
            continue;
        text_add(out, "TargetName", node->iqn);
        add_portals(c, out);
    }
}

static int text_answer(struct iscsi_conn *c)
{
    struct text_in in = {c->text_in, c->text_in + c->text_in_len};
    struct text_out out = {.cap = TEXT_ANSWER_MAX};
    char *key, *value;
    int rc;

    c->text_answer = buf_alloc(TEXT_ANSWER_MAX);
    out.data = (char *)c->text_answer->data;
    while ((rc = text_next(&in, &key, &value)) > 0) {
        if (strcmp(key, "SendTargets") == 0)
            send_targets(c, value, &out);
        else if (strcmp(key, "MaxRecvDataSegmentLength") == 0)
            text_add(&out, key, "Reject"); /* is not renegotiated */
        else
            text_add(&out, key, "NotUnderstood");
    }
    if (rc == 0 && out.overflow)
        log_warn("iscsi.discovery", "why=\"list of targets cut at %u bytes\"", TEXT_ANSWER_MAX);
    c->text_answer_at = 0;
    c->text_answer_len = (uint32_t)out.len;
    return rc;
}

static void text_send_piece(struct iscsi_conn *c, const struct pdu_in *in, bool ask_for_more)
{
    struct pdu_out *p = conn_pdu(c, OP_TEXT_RESPONSE);
    uint32_t left = c->text_answer_len - c->text_answer_at;
    uint32_t n = MIN(left, c->params.value[PARAM_MAX_RECV_DATA]);

    memcpy(p->bhs + 8, in->lun, 8);
    put_be32(p->bhs + 16, in->itt);
    if (n > 0) {
        p->buf = buf_get(c->text_answer);
        p->data = c->text_answer->data + c->text_answer_at;
        p->len = n;
        c->text_answer_at += n;
    }
    if (ask_for_more || n < left) {
        p->bhs[1] = n < left ? FLAG_CONTINUE : 0;
        put_be32(p->bhs + 20, TEXT_TTT);
    } else {
        p->bhs[1] = FLAG_FINAL;
        put_be32(p->bhs + 20, TAG_NONE);
        buf_put(c->text_answer);
        c->text_answer = NULL;
        c->text_answer_at = c->text_answer_len = 0;
    }
    iscsi_conn_send_plain(c, p);
}

co_fn int text_receive(struct iscsi_conn *c, const struct pdu_in *p)
{
    int rc;

    if (p->ttt == TAG_NONE) { /* a new negotiation resets what was left of another */
        c->text_in_len = 0;
        c->text_itt = p->itt;
        buf_put(c->text_answer);
        c->text_answer = NULL;
        c->text_answer_at = c->text_answer_len = 0;
    } else if (p->ttt != TEXT_TTT || p->itt != c->text_itt) {
        return err_set(ERR_PROTO, "text request continues a negotiation that there is not");
    }
    if (c->text_in_len + p->data_len > ISCSI_TEXT_MAX)
        return err_set(ERR_PROTO, "text is too long");
    rc = conn_read_data(c, (uint8_t *)c->text_in + c->text_in_len, p->data_len);
    if (rc < 0)
        return rc;
    c->text_in_len += p->data_len;
    if (p->flags & FLAG_CONTINUE) {
        text_send_piece(c, p, true);
        return conn_plain_wait(c);
    }
    if (c->text_answer == NULL || c->text_answer_at == 0) {
        buf_put(c->text_answer);
        c->text_answer = NULL;
        /* Who asks which targets there are is about to log in: the latest exports count. */
        if (c->discovery && iscsi_target_refresh(c->t) < 0)
            log_info("iscsi.discovery", "why=\"export table not refreshed: %s\"",
                     err_default_text(c->t->refresh_rc));
        rc = text_answer(c);
        c->text_in_len = 0;
        if (rc < 0)
            return rc;
    }
    text_send_piece(c, p, !p->final);
    return conn_plain_wait(c);
}
