/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations on simulated listeners and connections. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env/sim/sim_stream.h"

#define BACKLOG_MAX     128u
#define CONNECT_TIMEOUT (3 * NSEC_PER_SEC)
#define SYN_RETRY       (1 * NSEC_PER_SEC)
#define PORT_FIRST      20000u
#define PORT_LAST       60000u

struct sim_addr sim_addr_parse(const char *text)
{
    struct sim_addr a = {0};
    const char *colon = strrchr(text, ':');
    size_t len;

    if (strncmp(text, "unix:", 5) == 0) {
        a.unix_socket = true;
        return a;
    }
    a.port = (uint32_t)strtoul(colon + 1, NULL, 10);
    len = (size_t)(colon - text);
    if (text[0] == '[') {
        text++;
        len -= 2;
    }
    memcpy(a.ip, text, len);
    a.ip[len] = 0;
    a.loopback = strcmp(a.ip, "127.0.0.1") == 0 || strcmp(a.ip, "::1") == 0;
    a.any = strcmp(a.ip, "0.0.0.0") == 0 || strcmp(a.ip, "::") == 0;
    return a;
}

void sim_addr_format(char *dst, const char *ip, uint32_t port)
{
    snprintf(dst, NET_ADDR_MAX, strchr(ip, ':') ? "[%.60s]:%u" : "%.60s:%u", ip, port);
}

uint32_t sim_port_next(struct sim *s)
{
    uint32_t port = s->next_port++;

    if (s->next_port > PORT_LAST)
        s->next_port = PORT_FIRST;
    return port;
}

bool sim_addr_hears(const char *own_ip, uint32_t own_port, const struct sim_addr *a)
{
    return own_port == a->port && (strcmp(own_ip, a->ip) == 0 || strcmp(own_ip, "0.0.0.0") == 0 ||
                                   strcmp(own_ip, "::") == 0);
}

int sim_addr_check_own(const struct sim_proc *p, const struct sim_addr *a, const char *text)
{
    if (!a->any && !a->loopback && strcmp(a->ip, p->host) != 0)
        return err_set(ERR_INVAL, "%s is not an address of this host (%s)", text, p->host);
    return 0;
}

/* ---- listeners ---- */

/* The listener that a connection from a process to the address meets. */
static struct sim_listener *listener_find(struct sim *s, const char *host, const char *text)
{
    struct sim_addr a = sim_addr_parse(text);

    LIST_FOREACH (l, &s->listeners, struct sim_listener, link) {
        if (strcmp(l->proc->host, host) != 0)
            continue;
        if (a.unix_socket && strcmp(l->base.addr, text) == 0)
            return l;
        if (!a.unix_socket && l->ip[0] && sim_addr_hears(l->ip, l->port, &a))
            return l;
    }
    return NULL;
}

static int listener_addr(struct sim_proc *p, const char *text, struct sim_listener *l)
{
    struct sim_addr a = sim_addr_parse(text);
    int rc;

    if (a.unix_socket) {
        strcpy(l->base.addr, text);
        return listener_find(p->sim, p->host, text) ? ERR_BUSY : 0;
    }
    rc = sim_addr_check_own(p, &a, text);
    if (rc < 0)
        return rc;
    strcpy(l->ip, a.ip);
    l->port = a.port;
    do {
        if (a.port == 0)
            l->port = sim_port_next(p->sim);
        sim_addr_format(l->base.addr, a.ip, l->port);
    } while (a.port == 0 && listener_find(p->sim, p->host, l->base.addr));
    return listener_find(p->sim, p->host, l->base.addr) ? ERR_BUSY : 0;
}

int sim_net_listen(struct env *env, const char *addr, struct net_listener **ret)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_listener *l = SIM_NEW(struct sim_listener);
    int rc = listener_addr(p, addr, l);

    if (rc < 0) {
        sim_mem_free(l);
        return rc == ERR_BUSY ? err_set(rc, "address %s is in use", addr) : rc;
    }
    l->base.env = env;
    l->base.loop = co_loop();
    l->proc = p;
    list_init(&l->backlog);
    list_init(&l->acceptors);
    list_push_back(&p->sim->listeners, &l->link);
    list_push_back(&p->listeners, &l->proc_link);
    *ret = &l->base;
    return 0;
}

static int end_wait(struct list *queue)
{
    struct co_wait wait;

    co_wait_init(&wait);
    list_push_back(queue, &wait.link);
    return co_suspend(&wait, CO_INTERRUPTIBLE);
}

static void listener_unlink(struct sim_listener *l, enum sim_close_how how)
{
    while (!list_empty(&l->backlog))
        sim_end_close(LIST_FIRST(&l->backlog, struct sim_end, backlog_link), how);
    list_del(&l->link);
}

static void listener_free(struct sim_listener *l)
{
    list_del(&l->proc_link);
    sim_mem_free(l);
}

void sim_net_listener_close(struct net_listener *base)
{
    struct sim_listener *l = CONTAINER_OF(base, struct sim_listener, base);

    l->closed = true;
    listener_unlink(l, SIM_CLOSE_RST);
    if (l->accepting == 0)
        listener_free(l);
    else
        sim_wake_all(&l->acceptors, 0); /* the last one frees it */
}

int sim_net_accept(struct net_listener *base, struct net_conn **ret)
{
    struct sim_listener *l = CONTAINER_OF(base, struct sim_listener, base);
    struct sim_end *e;
    int rc = 0;

    l->accepting++;
    while (rc == 0 && !l->closed && list_empty(&l->backlog))
        rc = end_wait(&l->acceptors);
    l->accepting--;
    if (l->closed) {
        rc = err_set(ERR_CLOSED, "listener was closed");
        if (l->accepting == 0)
            listener_free(l);
    }
    if (rc < 0)
        return rc;
    e = LIST_FIRST(&l->backlog, struct sim_end, backlog_link);
    list_del(&e->backlog_link);
    l->backlog_count--;
    e->base.loop = co_loop();
    *ret = &e->base;
    return 0;
}

/* ---- connecting ---- */

/* The request has reached the host: is anyone there? */
static void syn_received(struct sim_pair *pair)
{
    struct sim *s = pair->sim;
    struct sim_listener *l = listener_find(s, pair->host[1], pair->addr);
    struct sim_end *client = pair->end[0], *e;

    if (!l) {
        pair->syn_phase = 2;
        return;
    }
    if (l->backlog_count >= BACKLOG_MAX) {
        sim_event_arm(s, &pair->syn_ev, s->now + SYN_RETRY);
        return;
    }
    e = sim_end_new(pair, 1, l->proc);
    strcpy(e->base.local, client->base.peer);
    strcpy(e->base.peer, client->base.local);
    e->listener = l;
    list_push_back(&l->backlog, &e->backlog_link);
    l->backlog_count++;
    pair->syn_phase = 1;
    if (sim_pair_cut(pair, 1))
        sim_event_arm(s, &pair->keep_ev, s->now + SIM_KEEPALIVE);
    sim_wake_all(&l->acceptors, 0);
}

static void syn_event(struct sim *s, struct sim_event *ev)
{
    struct sim_pair *pair = CONTAINER_OF(ev, struct sim_pair, syn_ev);

    if (sim_pair_cut(pair, pair->syn_phase == 0 ? 0 : 1)) {
        sim_event_arm(s, ev, s->now + SYN_RETRY);
        return;
    }
    if (pair->syn_phase == 0) {
        syn_received(pair);
        if (pair->syn_phase != 0)
            sim_event_arm(s, ev, s->now + sim_net_delay(pair));
        return;
    }
    if (pair->syn_phase == 2) {
        sim_end_break(pair->end[0], "refused");
        return;
    }
    pair->connected = true;
    sim_wake_all(&pair->end[0]->readers, 0);
}

static int connect_wait(struct sim_end *e)
{
    nsec_t former = co_deadline_push(co_now() + CONNECT_TIMEOUT);
    struct co_wait wait;
    int rc = 0;

    while (rc == 0 && !e->pair->connected && !e->broken) {
        co_wait_init(&wait);
        list_push_back(&e->readers, &wait.link);
        rc = co_suspend(&wait, CO_INTERRUPTIBLE);
    }
    co_deadline_restore(former);
    if (rc == ERR_TIMEOUT && co_now() < former)
        return err_set(ERR_UNREACHABLE, "no answer from %s", e->base.peer);
    if (rc < 0)
        return rc;
    if (e->broken)
        return err_set(ERR_UNREACHABLE, "%s: %s", e->base.peer, e->why);
    return 0;
}

/* A host has one address, and itself: `from` says no more than that. */
static int check_from(const struct sim_proc *p, const char *from)
{
    struct sim_addr a;

    if (from == NULL)
        return 0;
    a = sim_addr_parse(from);
    return sim_addr_check_own(p, &a, from);
}

int sim_net_connect(struct env *env, const char *from, const char *addr, struct net_conn **ret)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_addr a = sim_addr_parse(addr);
    bool local = a.unix_socket || a.loopback || a.any;
    struct sim *s = p->sim;
    struct sim_pair *pair;
    struct sim_end *e;
    int rc;

    if (!local && strlen(a.ip) >= SIM_HOST_MAX)
        return err_set(ERR_INVAL, "bad address %s", addr);
    rc = check_from(p, from);
    if (rc < 0)
        return rc;
    pair = sim_pair_new(s, p->host, local ? p->host : a.ip);
    strcpy(pair->addr, addr);
    e = sim_end_new(pair, 0, p);
    e->base.loop = co_loop();
    strcpy(e->base.peer, addr);
    if (a.unix_socket)
        strcpy(e->base.local, "unix:");
    else
        sim_addr_format(e->base.local, a.loopback ? a.ip : p->host, sim_port_next(s));
    sim_event_init(&pair->syn_ev, SIM_NET_SYN, p, pair->id, syn_event);
    sim_event_arm(s, &pair->syn_ev, s->now + sim_net_delay(pair));
    rc = connect_wait(e);
    if (rc < 0) {
        sim_end_close(e, SIM_CLOSE_RST);
        return rc;
    }
    *ret = &e->base;
    return 0;
}

/* ---- connections ---- */

static struct sim_end *end_of(struct net_conn *c)
{
    return CONTAINER_OF(c, struct sim_end, base);
}

static int end_error(const struct sim_end *e)
{
    return err_set(ERR_CLOSED, "connection to %s: %s", e->base.peer,
                   e->base.shut ? "shut down" : e->why);
}

ssize_t sim_net_readv(struct net_conn *c, const struct iovec *iov, int n)
{
    struct sim_end *e = end_of(c);
    struct sim_dir *in = &e->pair->dir[1 - e->side];

    for (;;) {
        int rc;

        if (c->shut || e->broken)
            return end_error(e);
        if (in->ready_bytes > 0)
            return (ssize_t)sim_dir_take(in, iov, n);
        if (in->fin_seen)
            return err_set(ERR_CLOSED, "end of stream");
        rc = end_wait(&e->readers);
        if (rc < 0)
            return rc;
    }
}

ssize_t sim_net_writev(struct net_conn *c, const struct iovec *iov, int n)
{
    struct sim_end *e = end_of(c);
    struct sim_dir *out = &e->pair->dir[e->side];
    size_t len = 0;

    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    for (;;) {
        int rc;

        if (c->shut || e->broken)
            return end_error(e);
        if (out->unacked < SIM_WINDOW) {
            len = MIN(len, SIM_WINDOW - out->unacked);
            sim_dir_send(out, iov, n, len);
            return (ssize_t)len;
        }
        rc = end_wait(&e->writers);
        if (rc < 0)
            return rc;
    }
}

bool sim_net_readable(struct net_conn *c)
{
    struct sim_end *e = end_of(c);

    return !e->broken && e->pair->dir[1 - e->side].ready_bytes > 0;
}

void sim_net_shutdown(struct net_conn *c)
{
    struct sim_end *e = end_of(c);

    if (!e->broken)
        sim_dir_send_fin(&e->pair->dir[e->side]);
    sim_wake_all(&e->readers, 0);
    sim_wake_all(&e->writers, 0);
}

void sim_net_close(struct net_conn *c)
{
    sim_end_close(end_of(c), SIM_CLOSE_FIN);
}

void sim_net_conn_move(struct net_conn *c, struct co_loop *target)
{
    c->loop = target;
}

void sim_net_proc_ended(struct sim_proc *p, enum sim_end_how how)
{
    enum sim_close_how close = SIM_CLOSE_FIN;

    if (how == SIM_END_KILL || (how == SIM_END_POWER && sim_coin(p->sim)))
        close = SIM_CLOSE_RST;
    else if (how == SIM_END_POWER)
        close = SIM_CLOSE_SILENT;
    LIST_FOREACH (e, &p->ends, struct sim_end, link) {
        list_init(&e->readers); /* the waiters die with their process */
        list_init(&e->writers);
    }
    while (!list_empty(&p->listeners)) {
        struct sim_listener *l = LIST_FIRST(&p->listeners, struct sim_listener, proc_link);

        if (!l->closed)
            listener_unlink(l, close == SIM_CLOSE_SILENT ? close : SIM_CLOSE_RST);
        listener_free(l);
    }
    sim_dgrams_proc_ended(p);
    while (!list_empty(&p->ends))
        sim_end_close(LIST_FIRST(&p->ends, struct sim_end, link), close);
}
