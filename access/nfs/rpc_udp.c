/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC over UDP: a coroutine receives, and each call runs in one of its own. Answers that are
 * lost, and calls that come twice, are the client's to repeat and the procedures' to recognise
 * (README.md, "Answers to retries"); a call that comes again while it is running is dropped. When
 * too many are in flight, further ones wait in the socket, as far as it has room. */
#include "access/nfs/rpc_int.h"

#define UDP_CALLS 64u /* in flight */

struct onc_udp {
    struct onc_conf conf;
    struct net_dgram *net;
    struct list calls; /* struct udp_call, in flight */
    struct co_sem slots;
    struct co_group reader, requests;
    uint8_t rx[ONC_DATAGRAM_BYTES + 1]; /* more than that is too long */
};

struct udp_call {
    struct onc_call call;
    struct list link;
    struct onc_udp *u;
    struct net_way way;
    struct onc_source source;
    const struct onc_procedure *procedure;
    size_t len;
    uint8_t datagram[];
};

/* ---- one call ---- */

static struct udp_call *call_new(struct onc_udp *u, const struct net_way *way, size_t len)
{
    struct udp_call *q = mem_alloc(sizeof(*q) + len);

    q->u = u;
    q->way = *way;
    q->len = len;
    memcpy(q->datagram, u->rx, len);
    onc_source_init(&q->source, &u->conf, q->way.peer, q->way.local);
    q->call.source = &q->source;
    xdr_out_init(&q->call.out);
    list_push_back(&u->calls, &q->link);
    return q;
}

static void call_free(struct udp_call *q)
{
    ASSERT(q->call.tail == NULL);
    xdr_out_fini(&q->call.out);
    list_del(&q->link);
    co_sem_release(&q->u->slots, 1);
    mem_free(q);
}

static void reply(struct udp_call *q)
{
    struct xdr_out *out = &q->call.out;

    if (out->len - ONC_MARK_BYTES > ONC_DATAGRAM_BYTES)
        onc_reply_error(&q->call, ONC_SYSTEM_ERR, 0, 0);
    (void)net_dgram_send(q->u->net, out->data + ONC_MARK_BYTES, out->len - ONC_MARK_BYTES, &q->way);
}

static co_fn int call_main(void *arg)
{
    struct udp_call *q = arg;

    if (onc_call_run(&q->call, q->procedure) && !co_canceled())
        reply(q);
    call_free(q);
    return 0;
}

static bool in_flight_already(const struct udp_call *q)
{
    LIST_FOREACH (other, &q->u->calls, struct udp_call, link) {
        if (other != q && onc_call_same(&other->call, &q->call) &&
            strcmp(other->way.peer, q->way.peer) == 0)
            return true;
    }
    return false;
}

/* Begins it, or answers what is wrong with it. */
static void call_begin(struct udp_call *q)
{
    struct onc_call *call = &q->call;
    struct xdr_in in;
    bool good;

    xdr_in_init(&in, q->datagram, q->len);
    if (!onc_call_begins(call, &in)) {
        call_free(q);
        return;
    }
    good = onc_header_take(call, &in, &q->procedure);
    if (good && q->procedure->bulk != NULL) {
        onc_reply_error(call, ONC_PROC_UNAVAIL, 0, 0);
        good = false;
    }
    if (good && !in_flight_already(q)) {
        call->args = in;
        call->args_start = in.p;
        call->args_len = in.left;
        co_spawn_detached_deadline(&q->u->requests, "onc-udp-call", call_main, q);
        return;
    }
    if (!good)
        reply(q);
    call_free(q);
}

/* ---- the socket ---- */

static co_fn int receive(struct onc_udp *u)
{
    struct net_way way;
    ssize_t got;
    int rc = co_sem_acquire(&u->slots, 1);

    if (rc < 0)
        return rc;
    got = net_dgram_recv(u->net, u->rx, sizeof(u->rx), &way);
    if (got >= 0 && (size_t)got <= ONC_DATAGRAM_BYTES)
        call_begin(call_new(u, &way, (size_t)got));
    else
        co_sem_release(&u->slots, 1);
    return got < 0 ? (int)got : 0;
}

static co_fn int reader_main(void *arg)
{
    struct onc_udp *u = arg;

    while (!co_canceled()) {
        int rc = receive(u);

        if (rc == 0 || co_canceled())
            continue;
        log_warn("onc.receive", "server=%s why=\"%s\"", u->conf.name, err_text(rc));
        (void)co_sleep(100 * NSEC_PER_MSEC);
    }
    return 0;
}

co_fn int onc_udp_start(const struct onc_conf *conf, struct onc_udp **ret)
{
    struct onc_udp *u = MEM_NEW(struct onc_udp);
    int rc = net_dgram_open(conf->listen, &u->net);

    if (rc < 0) {
        mem_free(u);
        return err_prefix(rc, "%s over UDP at %s", conf->name, conf->listen);
    }
    u->conf = *conf;
    list_init(&u->calls);
    co_sem_init(&u->slots, UDP_CALLS);
    co_group_init(&u->reader);
    co_group_init(&u->requests);
    log_info("onc.listen", "server=%s udp=%s", conf->name, onc_udp_addr(u));
    co_spawn_detached_deadline(&u->reader, "onc-udp", reader_main, u);
    *ret = u;
    return 0;
}

co_fn void onc_udp_stop(struct onc_udp *u)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    (void)co_group_close(&u->reader);
    (void)co_group_close(&u->requests);
    co_shield_end(&shield);
    ASSERT(list_empty(&u->calls));
    net_dgram_close(u->net);
    mem_free(u);
}

const char *onc_udp_addr(const struct onc_udp *u)
{
    return net_dgram_addr(u->net);
}
