/* SPDX-License-Identifier: Apache-2.0
 *
 * The login phase (RFC 7143, sections 6.3 and 11.12): security negotiation, operational
 * negotiation, and the step into full feature phase. A refusal is answered with its status class
 * and detail, then the connection ends. */
#include <string.h>
#include <strings.h>
#include "access/iscsi/iscsi_int.h"

enum login_stage { STAGE_SECURITY = 0, STAGE_OPERATIONAL = 1, STAGE_FULL = 3 };

/* status class << 8 | detail */
enum login_status {
    LOGIN_OK = 0,
    LOGIN_MOVED_TEMPORARILY = 0x0101,
    LOGIN_INITIATOR_ERROR = 0x0200,
    LOGIN_AUTH_FAILURE = 0x0201,
    LOGIN_FORBIDDEN = 0x0202,
    LOGIN_NOT_FOUND = 0x0203,
    LOGIN_VERSION = 0x0205,
    LOGIN_TOO_MANY_CONNECTIONS = 0x0206,
    LOGIN_MISSING_PARAMETER = 0x0207,
    LOGIN_SESSION_TYPE = 0x0209,
    LOGIN_NO_SESSION = 0x020a,
    LOGIN_TARGET_ERROR = 0x0300,
    LOGIN_UNAVAILABLE = 0x0301,
};

#define LOGIN_ROUNDS_MAX      64u
#define KNOWN_TARGET_PATIENCE (500 * NSEC_PER_MSEC)

struct login {
    struct iscsi_conn *c;
    struct pdu_in pdu; /* the request in hand */
    enum login_status status;
    bool started; /* the first request was seen: names are known */
    uint8_t stage;
    uint8_t isid[6];
    uint16_t tsih;
    char iqn[ISCSI_NAME_MAX + 1];
    bool chap_agreed, authenticated, declared;
    struct chap chap;
    char *answer;
    struct text_out out;
};

static int login_refuse(struct login *l, enum login_status status, const char *why)
{
    l->status = status;
    return err_set(status == LOGIN_AUTH_FAILURE || status == LOGIN_FORBIDDEN ? ERR_PERM : ERR_PROTO,
                   "login refused (0x%04x): %s", status, why);
}

/* An error of a lower layer becomes the status given; its text stays. */
static int login_fail(struct login *l, enum login_status status, int rc)
{
    l->status = status;
    return err_prefix(rc, "login refused (0x%04x)", status);
}

/* The target as of now: it may go while we wait for the initiator. */
static struct iscsi_node *login_node(struct login *l)
{
    return iscsi_node_find(l->c->t, l->iqn);
}

/* ---- one request ---- */

static bool name_is_sane(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > ISCSI_NAME_MAX)
        return false;
    for (const char *p = name; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return false;
    }
    return true;
}

/* The target as meta has it: an export that was confirmed a moment ago counts, and so does the
 * end of one, lest its number lead to another volume. Where nothing seems to have changed, a meta
 * that does not answer is not waited for as long, and many logins in a row not held up. */
static co_fn void login_refresh(struct login *l, const char *initiator)
{
    struct iscsi_node *node = login_node(l);
    bool known = node != NULL && iscsi_node_allows(node, initiator);
    nsec_t former = co_deadline();

    if (known && !iscsi_target_refresh_ready(l->c->t))
        return;
    if (known)
        (void)co_deadline_push(co_now() + KNOWN_TARGET_PATIENCE);
    if (iscsi_target_refresh(l->c->t) < 0)
        log_info("iscsi.login", "target=%s why=\"export table not refreshed\"", l->iqn);
    co_deadline_restore(former);
}

/* Sends the initiator to another portal if it does better there. */
static int login_redirect(struct login *l, const struct iscsi_node *node)
{
    const char *to = iscsi_redirect(l->c, node, l->isid);

    if (to == NULL)
        return 0;
    log_info("iscsi.redirect", "initiator=%s address=%s target=%s to=%s", l->c->initiator,
             net_peer(l->c->stream.net), l->iqn, to);
    text_add(&l->out, "TargetAddress", to); /* without the tag: RFC 7143, 13.8 */
    return login_refuse(l, LOGIN_MOVED_TEMPORARILY, "sent to another portal");
}

/* The session that the connection is to become one of. */
static int login_session(struct login *l, struct iscsi_node *node, struct iscsi_session **ret)
{
    *ret = session_find(node, l->c->initiator, l->isid, l->tsih);
    if (*ret == NULL)
        return login_refuse(l, LOGIN_NO_SESSION, "no such session");
    if (!session_has_room(*ret, l->c->cid))
        return login_refuse(l, LOGIN_TOO_MANY_CONNECTIONS, "more than MaxConnections");
    return 0;
}

/* Names and session type: in the first request only. */
static co_fn int login_names(struct login *l, const char *initiator, const char *target,
                             const char *session_type)
{
    struct iscsi_conn *c = l->c;

    if (initiator == NULL)
        return login_refuse(l, LOGIN_MISSING_PARAMETER, "InitiatorName is missing");
    if (!name_is_sane(initiator))
        return login_refuse(l, LOGIN_INITIATOR_ERROR, "InitiatorName is malformed");
    strcpy(c->initiator, initiator);
    if (session_type != NULL && strcmp(session_type, "Discovery") == 0) {
        c->discovery = true;
        if (l->tsih != 0)
            return login_refuse(l, LOGIN_NO_SESSION, "discovery sessions have one connection");
        return 0;
    }
    if (session_type != NULL && strcmp(session_type, "Normal") != 0)
        return login_refuse(l, LOGIN_SESSION_TYPE, "SessionType is neither Normal nor Discovery");
    if (target == NULL)
        return login_refuse(l, LOGIN_MISSING_PARAMETER, "TargetName is missing");
    if (!name_is_sane(target))
        return login_refuse(l, LOGIN_NOT_FOUND, "TargetName is malformed");
    strcpy(l->iqn, target);
    login_refresh(l, initiator);
    struct iscsi_node *node = login_node(l);
    if (node == NULL)
        return login_refuse(l, LOGIN_NOT_FOUND, "no such target");
    if (!iscsi_node_allows(node, initiator))
        return login_refuse(l, LOGIN_FORBIDDEN, "initiator is not on the target's list");
    if (l->tsih != 0) {
        struct iscsi_session *s;

        return login_session(l, node, &s);
    }
    return login_redirect(l, node);
}

static bool login_needs_chap(struct login *l)
{
    struct iscsi_node *node = l->c->discovery ? NULL : login_node(l);

    return node != NULL && node->chap_user[0] != '\0';
}

static int login_auth_method(struct login *l, const char *offered)
{
    if (login_needs_chap(l)) {
        if (!text_list_has(offered, "CHAP"))
            return login_refuse(l, LOGIN_AUTH_FAILURE, "the target asks for CHAP");
        l->chap_agreed = true;
        text_add(&l->out, "AuthMethod", "CHAP");
        return 0;
    }
    if (!text_list_has(offered, "None"))
        return login_refuse(l, LOGIN_AUTH_FAILURE,
                            "the initiator insists on authentication, the target has none");
    text_add(&l->out, "AuthMethod", "None");
    return 0;
}

static int login_chap(struct login *l, const struct chap_keys *keys)
{
    struct iscsi_node *node = login_node(l);
    int rc;

    if (!l->chap_agreed || node == NULL || node->chap_user[0] == '\0')
        return login_refuse(l, LOGIN_INITIATOR_ERROR, "CHAP keys without an agreement on CHAP");
    rc = chap_step(&l->chap, keys, node->chap_user, node->chap_secret, &l->out);
    if (rc < 0)
        return login_fail(l, rc == ERR_PERM ? LOGIN_AUTH_FAILURE : LOGIN_INITIATOR_ERROR, rc);
    l->authenticated = l->chap.state == CHAP_DONE;
    return 0;
}

/* Keys of one request. Those of names and security are collected, the others negotiated. */
struct login_keys {
    const char *initiator, *target, *session_type, *auth_method;
    struct chap_keys chap;
};

static bool login_keep_key(struct login_keys *k, const char *key, const char *value)
{
    const struct {
        const char *name;
        const char **dst;
    } table[] = {
        {"InitiatorName", &k->initiator},
        {"TargetName", &k->target},
        {"SessionType", &k->session_type},
        {"AuthMethod", &k->auth_method},
        {"CHAP_A", &k->chap.a},
        {"CHAP_I", &k->chap.i},
        {"CHAP_C", &k->chap.c},
        {"CHAP_N", &k->chap.n},
        {"CHAP_R", &k->chap.r},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (strcmp(table[i].name, key) != 0)
            continue;
        *table[i].dst = value;
        return true;
    }
    return strcmp(key, "InitiatorAlias") == 0; /* known, without effect */
}

static co_fn int login_keys(struct login *l)
{
    struct iscsi_conn *c = l->c;
    struct text_in in = {c->text_in, c->text_in + c->text_in_len};
    struct login_keys k = {0};
    bool any_chap;
    char *key, *value;
    int rc;

    /* Whether a key is irrelevant depends on the session type, which may come last. */
    struct text_in scan = in;
    char *copy = mem_alloc(c->text_in_len + 1);
    memcpy(copy, c->text_in, c->text_in_len);
    while ((rc = text_next(&scan, &key, &value)) > 0)
        (void)login_keep_key(&k, key, value);
    if (rc == 0 && !l->started)
        rc = login_names(l, k.initiator, k.target, k.session_type);
    else if (rc < 0)
        rc = login_fail(l, LOGIN_INITIATOR_ERROR, rc);
    if (rc == 0 && !l->started && !c->discovery)
        text_addf(&l->out, "TargetPortalGroupTag", "%u", iscsi_portal_tag(iscsi_target_addr(c->t)));
    l->started = l->started || rc == 0;
    if (rc == 0 && k.auth_method != NULL && l->stage == STAGE_SECURITY)
        rc = login_auth_method(l, k.auth_method);
    any_chap = k.chap.a != NULL || k.chap.n != NULL || k.chap.r != NULL;
    if (rc == 0 && any_chap)
        rc = login_chap(l, &k.chap);
    if (rc == 0) {
        in = (struct text_in){copy, copy + c->text_in_len};
        while ((rc = text_next(&in, &key, &value)) > 0) {
            struct login_keys ignored;

            if (login_keep_key(&ignored, key, value))
                continue;
            if (l->tsih != 0 && param_is_leading(key)) {
                rc = err_set(ERR_PROTO, "key %s is not for a further connection", key);
                break;
            }
            rc = params_negotiate(&c->params, key, value, c->discovery, &l->out);
            if (rc < 0)
                break;
        }
        if (rc < 0)
            rc = login_fail(l, LOGIN_INITIATOR_ERROR, rc);
    }
    mem_free(copy);
    return rc;
}

/* Reads one request, with all its continuations answered: text is complete then. */
static co_fn int login_read(struct login *l)
{
    struct iscsi_conn *c = l->c;
    struct pdu_in *p = &l->pdu;
    enum pdu_reject reason;
    int rc = conn_read_header(c, p, &reason);

    if (rc == 0 && p->opcode != OP_LOGIN)
        rc = err_set(ERR_PROTO, "%s before the login is complete", pdu_op_name(p->opcode));
    if (rc < 0)
        return rc == ERR_INVAL ? ERR_PROTO : rc;
    if (c->text_in_len + p->data_len > ISCSI_TEXT_MAX)
        return err_set(ERR_PROTO, "login text is too long");
    rc = conn_read_data(c, (uint8_t *)c->text_in + c->text_in_len, p->data_len);
    c->text_in_len += p->data_len;
    return rc;
}

static int login_check_header(struct login *l)
{
    struct pdu_in *p = &l->pdu;
    uint8_t stage = p->flags >> 2 & 3, next = p->flags & 3;

    if (!l->started) {
        memcpy(l->isid, p->isid, 6);
        l->tsih = p->tsih;
        l->stage = stage;
        l->c->cid = p->cid;
        l->c->exp_cmdsn = p->cmdsn;
    }
    if (p->bhs[3] != 0) /* lowest version that the initiator speaks */
        return login_refuse(l, LOGIN_VERSION, "version not supported");
    if (memcmp(l->isid, p->isid, 6) != 0 || l->tsih != p->tsih || p->cid != l->c->cid)
        return login_refuse(l, LOGIN_INITIATOR_ERROR, "identifiers changed during login");
    if (stage != l->stage || stage > STAGE_OPERATIONAL)
        return login_refuse(l, LOGIN_INITIATOR_ERROR, "stage out of order");
    if (p->final && (next <= stage || next == 2))
        return login_refuse(l, LOGIN_INITIATOR_ERROR, "next stage is not a later one");
    return 0;
}

/* ---- answers ---- */

static void login_respond(struct login *l, uint8_t flags, uint16_t tsih)
{
    struct iscsi_conn *c = l->c;
    struct pdu_out *p = conn_pdu(c, OP_LOGIN_RESPONSE);

    p->bhs[1] = flags;
    memcpy(p->bhs + 8, l->isid, 6);
    put_be16(p->bhs + 14, tsih);
    put_be32(p->bhs + 16, l->pdu.itt);
    put_be16(p->bhs + 36, (uint16_t)l->status);
    if ((l->status == LOGIN_OK || l->status == LOGIN_MOVED_TEMPORARILY) && l->out.len > 0) {
        p->buf = buf_alloc(l->out.len);
        memcpy(p->buf->data, l->out.data, l->out.len);
        p->data = p->buf->data;
        p->len = (uint32_t)l->out.len;
    }
    p->item.last = l->status != LOGIN_OK;
    l->out.len = 0;
    iscsi_conn_send_plain(c, p);
}

static co_fn int login_join(struct login *l, struct iscsi_node *node)
{
    struct iscsi_session *s;
    int rc = login_session(l, node, &s);

    if (rc < 0)
        return rc;
    params_join(&l->c->params, &s->params);
    return session_join(l->c, s);
}

/* One exchange. 0: more to come; 1: full feature phase. */
static co_fn int login_round(struct login *l)
{
    struct iscsi_conn *c = l->c;
    uint8_t stage, next, flags;
    bool transit;
    int rc = login_check_header(l);

    if (rc < 0)
        return rc;
    stage = l->stage;
    next = l->pdu.flags & 3;
    if (l->pdu.flags & FLAG_CONTINUE) { /* the rest of the text comes with the next request */
        login_respond(l, (uint8_t)(stage << 2), l->tsih);
        return 0;
    }
    rc = login_keys(l);
    c->text_in_len = 0;
    if (rc < 0)
        return rc;
    transit = l->pdu.final;
    if (login_needs_chap(l) && !l->authenticated) {
        if (stage != STAGE_SECURITY || !l->chap_agreed)
            return login_refuse(l, LOGIN_AUTH_FAILURE, "the target asks for CHAP");
        transit = false;
    }
    if (stage == STAGE_OPERATIONAL && !l->declared) {
        text_addf(&l->out, "MaxRecvDataSegmentLength", "%u", OUR_MAX_RECV_DATA);
        l->declared = true;
    }
    if (l->out.overflow)
        return login_refuse(l, LOGIN_INITIATOR_ERROR, "too many keys");
    flags = (uint8_t)(stage << 2);
    if (transit) {
        flags |= (uint8_t)(FLAG_FINAL | next);
        l->stage = next;
    }
    if (l->stage != STAGE_FULL) {
        login_respond(l, flags, l->tsih);
        return 0;
    }
    params_finish(&c->params);
    if (!c->discovery) {
        struct iscsi_node *node = login_node(l);

        if (node == NULL)
            return login_refuse(l, LOGIN_NOT_FOUND, "the target was removed");
        rc = l->tsih != 0 ? login_join(l, node) : session_open(c, node, l->isid, l->pdu.cmdsn);
        if (rc < 0 && l->status == LOGIN_OK)
            return login_fail(l, LOGIN_UNAVAILABLE, rc);
        if (rc < 0)
            return rc;
    }
    login_respond(l, flags, c->session != NULL ? c->session->tsih : 1);
    return 1;
}

co_fn int iscsi_login(struct iscsi_conn *c)
{
    struct login l = {.c = c};
    uint32_t rounds = 0;
    int rc;

    l.answer = mem_alloc(8192); /* what an initiator takes during login */
    l.out = (struct text_out){.data = l.answer, .cap = 8192};
    do {
        rc = login_read(&l);
        if (rc < 0)
            goto out; /* no login request that could be answered */
        rc = ++rounds > LOGIN_ROUNDS_MAX
                 ? login_refuse(&l, LOGIN_INITIATOR_ERROR, "login takes too many steps")
                 : login_round(&l);
    } while (rc == 0);
    if (rc > 0) {
        /* The last response leaves without digests: they hold from the next PDU on, and the
         * initiator sends none before it has seen the response. */
        while (c->tx_plain > 0 && !c->stream.tx_ended)
            co_cond_wait_always(&c->stream.tx_progress);
        c->header_digest = c->params.value[PARAM_HEADER_DIGEST];
        c->data_digest = c->params.value[PARAM_DATA_DIGEST];
        c->phase = CONN_FULL;
        rc = 0;
    } else {
        login_respond(&l, 0, l.tsih);
    }
out:
    mem_free(l.answer);
    return rc;
}
