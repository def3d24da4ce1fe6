/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated datagrams. Each flies for a time of its own, so they overtake each other; between hosts
 * it may be lost or come twice. A socket keeps what arrives until it is received, up to a limit. */
#include <string.h>
#include "common/env/sim/sim_internal.h"

#define QUEUE_MAX 64u /* datagrams that wait in a socket */

struct dgram {
    struct net_dgram base; /* first */
    struct list link;      /* of the world */
    struct list proc_link;
    struct sim_proc *proc;
    char ip[NET_ADDR_MAX];
    uint32_t port;
    struct list queue; /* struct flight, arrived */
    uint32_t queued;
    struct list readers; /* co_wait; 0 or 1 */
};

struct flight {
    struct list link; /* of the world, then of the socket */
    struct sim_event ev;
    char from_host[SIM_HOST_MAX], to_host[SIM_HOST_MAX];
    struct net_way way; /* as the receiver sees it */
    size_t len;
    uint8_t data[];
};

static struct dgram *dgram_of(struct net_dgram *d)
{
    return CONTAINER_OF(d, struct dgram, base);
}

/* ---- sockets ---- */

static struct dgram *dgram_find(struct sim *s, const char *host, const struct sim_addr *a)
{
    LIST_FOREACH (d, &s->dgrams, struct dgram, link) {
        if (strcmp(d->proc->host, host) == 0 && sim_addr_hears(d->ip, d->port, a))
            return d;
    }
    return NULL;
}

int sim_net_dgram_open(struct env *env, const char *addr, struct net_dgram **ret)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_addr a = sim_addr_parse(addr);
    bool free_port = a.port == 0;
    struct dgram *d;
    int rc = sim_addr_check_own(p, &a, addr);

    if (rc < 0)
        return rc;
    do {
        if (free_port)
            a.port = sim_port_next(p->sim);
        if (dgram_find(p->sim, p->host, &a) == NULL)
            break;
        if (!free_port)
            return err_set(ERR_BUSY, "address %s is in use", addr);
    } while (free_port);
    d = SIM_NEW(struct dgram);
    d->base.env = env;
    d->base.loop = co_loop();
    d->proc = p;
    strcpy(d->ip, a.ip);
    d->port = a.port;
    sim_addr_format(d->base.addr, a.ip, a.port);
    list_init(&d->queue);
    list_init(&d->readers);
    list_push_back(&p->sim->dgrams, &d->link);
    list_push_back(&p->dgrams, &d->proc_link);
    *ret = &d->base;
    return 0;
}

static void flights_drop(struct sim *s, struct list *flights)
{
    LIST_FOREACH_SAFE (f, flights, struct flight, link) {
        sim_event_disarm(s, &f->ev);
        list_del(&f->link);
        sim_mem_free(f);
    }
}

void sim_net_dgram_close(struct net_dgram *base)
{
    struct dgram *d = dgram_of(base);

    ASSERT(list_empty(&d->readers));
    flights_drop(d->proc->sim, &d->queue);
    list_del(&d->link);
    list_del(&d->proc_link);
    sim_mem_free(d);
}

void sim_dgrams_proc_ended(struct sim_proc *p)
{
    LIST_FOREACH_SAFE (d, &p->dgrams, struct dgram, proc_link) {
        list_init(&d->readers); /* the waiter dies with its process */
        sim_net_dgram_close(&d->base);
    }
}

void sim_dgrams_free(struct sim *s)
{
    ASSERT(list_empty(&s->dgrams));
    flights_drop(s, &s->flights);
}

/* ---- datagrams ---- */

static void flight_arrives(struct sim *s, struct sim_event *ev)
{
    struct flight *f = CONTAINER_OF(ev, struct flight, ev);
    struct sim_addr a = sim_addr_parse(f->way.local);
    struct dgram *d = NULL;

    if (!sim_net_is_cut(s, f->from_host, f->to_host))
        d = dgram_find(s, f->to_host, &a);
    list_del(&f->link);
    if (d == NULL || d->queued >= QUEUE_MAX) {
        sim_mem_free(f);
        return;
    }
    list_push_back(&d->queue, &f->link);
    d->queued++;
    sim_wake_all(&d->readers, 0);
}

static void flight_begin(struct dgram *d, const void *src, size_t len, const struct net_way *way,
                         const char *host)
{
    struct sim *s = d->proc->sim;
    bool local = strcmp(host, d->proc->host) == 0;
    struct flight *f = sim_alloc(sizeof(*f) + len);

    strcpy(f->from_host, d->proc->host);
    strcpy(f->to_host, host);
    f->way = *way;
    f->len = len;
    memcpy(f->data, src, len);
    sim_event_init(&f->ev, SIM_NET_DGRAM, NULL, sim_id(s), flight_arrives);
    list_push_back(&s->flights, &f->link);
    sim_event_arm(s, &f->ev, s->now + sim_path_delay(s, local));
}

void sim_net_dgram_send(struct net_dgram *base, const void *src, size_t len,
                        const struct net_way *way)
{
    struct dgram *d = dgram_of(base);
    struct sim_addr own = sim_addr_parse(base->addr), to = sim_addr_parse(way->peer);
    const char *host = to.loopback || to.any ? d->proc->host : to.ip;
    struct sim *s = d->proc->sim;
    bool local = strcmp(host, d->proc->host) == 0;
    struct net_way theirs;

    if (strlen(host) >= SIM_HOST_MAX || (!local && sim_chance(s, s->conf.net_loss_ppm)))
        return;
    strcpy(theirs.local, way->peer);
    sim_addr_format(theirs.peer, !own.any ? d->ip : to.loopback ? to.ip : d->proc->host, d->port);
    flight_begin(d, src, len, &theirs, host);
    if (!local && sim_chance(s, s->conf.net_double_ppm))
        flight_begin(d, src, len, &theirs, host);
}

ssize_t sim_net_dgram_recv(struct net_dgram *base, void *dst, size_t len, struct net_way *ret)
{
    struct dgram *d = dgram_of(base);
    struct co_wait wait;
    struct flight *f;
    int rc = 0;

    while (rc == 0 && list_empty(&d->queue)) {
        co_wait_init(&wait);
        list_push_back(&d->readers, &wait.link);
        rc = co_suspend(&wait, CO_INTERRUPTIBLE);
    }
    if (rc < 0)
        return rc;
    f = LIST_ENTRY(list_pop_front(&d->queue), struct flight, link);
    d->queued--;
    len = MIN(len, f->len);
    memcpy(dst, f->data, len);
    *ret = f->way;
    sim_mem_free(f);
    return (ssize_t)len;
}
