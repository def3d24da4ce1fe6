/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions that are asked to go elsewhere: to log out (asynchronous event 1, RFC 7143 11.9), and to
 * be sent on when they log in again (redirect.c). When the access server of an initiator's own host
 * fails, its sessions come in elsewhere, and would stay there: they are asked to return once it has
 * been there again for a while. When this access server is leaving, all are asked.
 *
 * Only sessions that came in while logins were sent on are asked; one by one, and none of the same
 * initiator port again within some minutes. Whoever could not log in at home, although that was
 * there, is left alone for as long. Who does not do as he is asked keeps his session. */
#include "access/iscsi/iscsi_int.h"

#define RETURN_TURN    NSEC_PER_SEC
#define RETURN_AGAIN   (300 * NSEC_PER_SEC)
#define RETURN_SECONDS 10u /* that the initiator is given */

enum { ASYNC_LOGOUT = 1 };

void iscsi_ask_logout(struct iscsi_conn *c, uint32_t seconds)
{
    struct pdu_out *p = conn_pdu(c, OP_ASYNC);

    p->bhs[1] = FLAG_FINAL;
    put_be32(p->bhs + 16, TAG_NONE);
    p->bhs[36] = ASYNC_LOGOUT;
    put_be16(p->bhs + 42, (uint16_t)seconds);
    iscsi_conn_send_plain(c, p);
}

/* Number of the portal at home; 0: there is none now, or this is it. */
static uint16_t conn_home(const struct iscsi_conn *c)
{
    uint16_t home = scsi_ports_home(c->t->ports, net_peer(c->stream.net));

    return home == iscsi_portal_tag(iscsi_target_addr(c->t)) && !iscsi_conn_is_virtual(c) ? 0
                                                                                          : home;
}

void session_return_init(struct iscsi_session *s, const struct iscsi_conn *c)
{
    s->follows = iscsi_redirects(c->t);
    s->home = conn_home(c);
    s->home_since = co_now();
    s->came_back = c->came_back;
}

/* Has it had a home elsewhere for that long, without a break (0: never mind), or can't it stay? */
static bool session_should_go(struct iscsi_session *s, nsec_t delay)
{
    const struct iscsi_conn *c = LIST_FIRST(&s->conns, struct iscsi_conn, session_link);
    uint16_t home;

    if (!s->follows || c == NULL || c->phase != CONN_FULL || c->stream.broken != NULL)
        return false;
    home = conn_home(c);
    if (home != s->home) {
        s->home = home;
        s->home_since = co_now();
        s->came_back = false; /* it was turned away because its home was about to be lost */
    }
    if (iscsi_leaves(c->t))
        return true;
    if (s->came_back && delay > 0)
        delay = MAX(delay, RETURN_AGAIN);
    return delay > 0 && home != 0 && co_now() - s->home_since >= delay;
}

static void session_ask(struct iscsi_session *s)
{
    log_info("iscsi.return", "initiator=%s target=%s tsih=%u", s->initiator, s->node->iqn, s->tsih);
    LIST_FOREACH (c, &s->conns, struct iscsi_conn, session_link) {
        if (c->phase == CONN_FULL)
            iscsi_ask_logout(c, RETURN_SECONDS);
    }
}

/* At most one session. */
static void ask_next(struct iscsi_target *t, nsec_t delay)
{
    bool asked = false;

    LIST_FOREACH (node, &t->nodes, struct iscsi_node, link) {
        LIST_FOREACH (s, &node->sessions, struct iscsi_session, link) {
            uint64_t key = seen_key(node->iqn, s->initiator, s->isid);

            if (!session_should_go(s, delay) || asked || seen_lately(&t->asked, key, RETURN_AGAIN))
                continue;
            asked = true;
            seen_note(&t->asked, key);
            session_ask(s);
        }
    }
}

co_fn int iscsi_return_main(void *arg)
{
    struct iscsi_target *t = arg;

    while (co_sleep(RETURN_TURN) == 0) {
        if (iscsi_redirects(t))
            ask_next(t, t->conf.return_delay(t->conf.arg));
    }
    return 0;
}
