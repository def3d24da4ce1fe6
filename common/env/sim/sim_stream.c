/* SPDX-License-Identifier: Apache-2.0
 *
 * Delivery in simulated streams, cuts between hosts, and what breaks. */
#include "common/env/sim/sim_stream.h"
#include <string.h>

#define ACK_BYTES   (64u * 1024) /* taken bytes are told in such portions */
#define LOCAL_DELAY (20 * NSEC_PER_USEC)

struct sim_seg {
    struct list link;
    nsec_t at;
    uint32_t len, off;
    bool fin;
    uint8_t data[];
};

/* A rule about the path between two hosts ("*": any); the last that matches counts. */
struct sim_cut {
    struct list link;
    char from[SIM_HOST_MAX], to[SIM_HOST_MAX];
    bool cut;
};

/* ---- cuts ---- */

static bool covers(const char *pattern, const char *host)
{
    return strcmp(pattern, "*") == 0 || strcmp(pattern, host) == 0;
}

bool sim_net_is_cut(struct sim *s, const char *from, const char *to)
{
    if (list_empty(&s->cuts) || strcmp(from, to) == 0)
        return false;
    for (struct list *l = s->cuts.prev; l != &s->cuts; l = l->prev) {
        const struct sim_cut *c = LIST_ENTRY(l, struct sim_cut, link);

        if (covers(c->from, from) && covers(c->to, to))
            return c->cut;
    }
    return false;
}

bool sim_pair_cut(const struct sim_pair *pair, int from)
{
    if (pair->dark)
        return true;
    return !pair->local && sim_net_is_cut(pair->sim, pair->host[from], pair->host[1 - from]);
}

/* The paths have changed: what waited goes on, who lost its path starts to lose patience. */
static void pairs_review(struct sim *s)
{
    LIST_FOREACH (pair, &s->pairs, struct sim_pair, link) {
        bool cut[2] = {sim_pair_cut(pair, 0), sim_pair_cut(pair, 1)};

        for (int i = 0; i < 2; i++) {
            struct sim_dir *d = &pair->dir[i];

            if (d->data_stalled && !cut[i]) {
                d->data_stalled = false;
                if (!list_empty(&d->flying)) /* else its sender has gone meanwhile */
                    sim_event_arm(s, &d->data_ev, s->now + sim_net_delay(pair));
            }
            if (d->ack_stalled && !cut[1 - i]) {
                d->ack_stalled = false;
                sim_event_arm(s, &d->ack_ev, s->now + sim_net_delay(pair));
            }
            if (!cut[0] && !cut[1])
                sim_event_disarm(s, &d->stall_ev);
        }
        if (!cut[0] && !cut[1])
            sim_event_disarm(s, &pair->keep_ev);
        else if (!sim_event_armed(&pair->keep_ev))
            sim_event_arm(s, &pair->keep_ev, s->now + SIM_KEEPALIVE);
    }
}

static void cut_set(struct sim *s, const char *from, const char *to, bool cut)
{
    struct sim_cut *rule;

    ASSERT(strlen(from) < SIM_HOST_MAX && strlen(to) < SIM_HOST_MAX);
    sim_note(s, "%s %s -> %s", cut ? "cut" : "heal", from, to);
    LIST_FOREACH_SAFE (c, &s->cuts, struct sim_cut, link) {
        if (covers(from, c->from) && covers(to, c->to)) {
            list_del(&c->link);
            sim_mem_free(c);
        }
    }
    if (cut || !list_empty(&s->cuts)) {
        rule = SIM_NEW(struct sim_cut);
        strcpy(rule->from, from);
        strcpy(rule->to, to);
        rule->cut = cut;
        list_push_back(&s->cuts, &rule->link);
    }
    pairs_review(s);
}

void sim_net_cut(struct sim *s, const char *from_host, const char *to_host)
{
    cut_set(s, from_host, to_host, true);
}

void sim_net_heal(struct sim *s, const char *from_host, const char *to_host)
{
    cut_set(s, from_host, to_host, false);
}

void sim_net_heal_all(struct sim *s)
{
    cut_set(s, "*", "*", false);
}

/* ---- pairs and ends ---- */

nsec_t sim_path_delay(struct sim *s, bool local)
{
    nsec_t delay;

    if (local)
        return sim_span(s, MIN(LOCAL_DELAY, s->conf.net_delay_min) / 2,
                        MIN(LOCAL_DELAY, s->conf.net_delay_max));
    delay = sim_span(s, s->conf.net_delay_min, s->conf.net_delay_max);
    if (sim_chance(s, s->conf.net_spike_ppm))
        delay += sim_span(s, 0, 500 * NSEC_PER_MSEC);
    return delay;
}

nsec_t sim_net_delay(struct sim_pair *pair)
{
    return sim_path_delay(pair->sim, pair->local);
}

static void segs_drop(struct list *segs)
{
    LIST_FOREACH_SAFE (seg, segs, struct sim_seg, link) {
        list_del(&seg->link);
        sim_mem_free(seg);
    }
}

static void pair_free(struct sim_pair *pair)
{
    struct sim *s = pair->sim;

    for (int i = 0; i < 2; i++) {
        struct sim_dir *d = &pair->dir[i];

        ASSERT(!pair->end[i]);
        segs_drop(&d->flying);
        segs_drop(&d->ready);
        sim_event_disarm(s, &d->data_ev);
        sim_event_disarm(s, &d->ack_ev);
        sim_event_disarm(s, &d->stall_ev);
        sim_event_disarm(s, &pair->rst_ev[i]);
    }
    sim_event_disarm(s, &pair->syn_ev);
    sim_event_disarm(s, &pair->keep_ev);
    list_del(&pair->link);
    sim_mem_free(pair);
}

struct sim_end *sim_end_new(struct sim_pair *pair, int side, struct sim_proc *p)
{
    struct sim_end *e = SIM_NEW(struct sim_end);

    ASSERT(!pair->end[side]);
    e->base.env = &p->env;
    e->proc = p;
    e->pair = pair;
    e->side = side;
    list_init(&e->backlog_link);
    list_init(&e->readers);
    list_init(&e->writers);
    list_push_back(&p->ends, &e->link);
    pair->end[side] = e;
    return e;
}

void sim_end_break(struct sim_end *e, const char *why)
{
    struct sim_dir *out = &e->pair->dir[e->side];

    if (e->broken)
        return;
    e->broken = true;
    e->why = why;
    segs_drop(&out->flying);
    sim_event_disarm(e->pair->sim, &out->data_ev);
    sim_event_disarm(e->pair->sim, &out->stall_ev);
    sim_wake_all(&e->readers, 0);
    sim_wake_all(&e->writers, 0);
}

void sim_pair_reset(struct sim_pair *pair, int side)
{
    struct sim *s = pair->sim;

    if (pair->end[1 - side] && !sim_event_armed(&pair->rst_ev[1 - side]))
        sim_event_arm(s, &pair->rst_ev[1 - side], s->now + sim_net_delay(pair));
}

void sim_end_close(struct sim_end *e, enum sim_close_how how)
{
    struct sim_pair *pair = e->pair;
    struct sim_dir *out = &pair->dir[e->side];

    /* As TCP does: what was not read will not be, and a sender that waits for room must hear it. */
    if (how == SIM_CLOSE_FIN && pair->dir[1 - e->side].ready_bytes > 0)
        how = SIM_CLOSE_RST;
    sim_event_disarm(pair->sim, &pair->rst_ev[e->side]);
    if (!pair->connected && e->side == 0)
        sim_event_disarm(pair->sim, &pair->syn_ev);
    segs_drop(&pair->dir[1 - e->side].ready);
    list_del(&e->link);
    if (list_linked(&e->backlog_link))
        e->listener->backlog_count--;
    list_del(&e->backlog_link);
    pair->end[e->side] = NULL;
    if (!pair->end[1 - e->side]) {
        pair_free(pair);
    } else if (how == SIM_CLOSE_SILENT) {
        pair->dark = true;
        sim_event_arm(pair->sim, &pair->keep_ev, pair->sim->now + SIM_KEEPALIVE);
    } else if (how == SIM_CLOSE_RST) {
        segs_drop(&out->flying);
        sim_event_disarm(pair->sim, &out->data_ev);
        sim_pair_reset(pair, e->side);
    } else if (!e->broken) {
        sim_dir_send_fin(out);
    }
    sim_mem_free(e);
}

/* ---- sending and taking ---- */

static void dir_send_seg(struct sim_dir *d, struct sim_seg *seg)
{
    struct sim *s = d->pair->sim;
    bool first = list_empty(&d->flying);

    seg->at = MAX(d->last_at + 1, s->now + sim_net_delay(d->pair));
    d->last_at = seg->at;
    list_push_back(&d->flying, &seg->link);
    if (first && !d->data_stalled)
        sim_event_arm(s, &d->data_ev, seg->at);
}

void sim_dir_send(struct sim_dir *d, const struct iovec *iov, int n, size_t len)
{
    struct sim_seg *seg = sim_alloc(sizeof(*seg) + len);

    ASSERT(len > 0 && len <= SIM_WINDOW - d->unacked && !d->fin_sent);
    for (int i = 0; i < n && seg->len < len; i++) {
        size_t part = MIN(iov[i].iov_len, len - seg->len);

        if (part > 0)
            memcpy(seg->data + seg->len, iov[i].iov_base, part);
        seg->len += (uint32_t)part;
    }
    ASSERT(seg->len == len);
    d->unacked += len;
    dir_send_seg(d, seg);
}

void sim_dir_send_fin(struct sim_dir *d)
{
    struct sim_seg *seg;

    if (d->fin_sent)
        return;
    seg = SIM_NEW(struct sim_seg);
    seg->fin = true;
    d->fin_sent = true;
    dir_send_seg(d, seg);
}

size_t sim_dir_take(struct sim_dir *d, const struct iovec *iov, int n)
{
    struct sim *s = d->pair->sim;
    size_t taken = 0;

    for (int i = 0; i < n; i++) {
        size_t filled = 0;

        while (filled < iov[i].iov_len && !list_empty(&d->ready)) {
            struct sim_seg *seg = LIST_FIRST(&d->ready, struct sim_seg, link);
            size_t part = MIN(iov[i].iov_len - filled, seg->len - seg->off);

            memcpy((uint8_t *)iov[i].iov_base + filled, seg->data + seg->off, part);
            seg->off += (uint32_t)part;
            filled += part;
            if (seg->off == seg->len) {
                list_del(&seg->link);
                sim_mem_free(seg);
            }
        }
        taken += filled;
    }
    d->ready_bytes -= taken;
    d->consumed += taken;
    if (d->consumed >= ACK_BYTES && !d->ack_stalled && !sim_event_armed(&d->ack_ev))
        sim_event_arm(s, &d->ack_ev, s->now + sim_net_delay(d->pair));
    return taken;
}

/* ---- events ---- */

static void dir_lose_patience(struct sim_dir *d)
{
    struct sim *s = d->pair->sim;

    if (d->pair->end[d->from] && !sim_event_armed(&d->stall_ev))
        sim_event_arm(s, &d->stall_ev, s->now + SIM_RST_AFTER);
}

static void seg_deliver(struct sim_dir *d, struct sim_end *reader)
{
    struct sim_seg *seg = LIST_FIRST(&d->flying, struct sim_seg, link);

    list_del(&seg->link);
    if (seg->fin) {
        d->fin_seen = true;
        sim_mem_free(seg);
    } else {
        d->ready_bytes += seg->len;
        list_push_back(&d->ready, &seg->link);
    }
    sim_wake_all(&reader->readers, 0);
}

static void data_arrives(struct sim *s, struct sim_event *ev)
{
    struct sim_dir *d = CONTAINER_OF(ev, struct sim_dir, data_ev);
    struct sim_pair *pair = d->pair;
    struct sim_end *reader = pair->end[1 - d->from];

    if (sim_pair_cut(pair, d->from)) {
        d->data_stalled = true;
        dir_lose_patience(d);
        return;
    }
    if (!reader || reader->broken || reader->base.shut) {
        segs_drop(&d->flying);
        sim_pair_reset(pair, 1 - d->from);
        return;
    }
    if (!pair->local && sim_chance(s, s->conf.net_reset_ppm)) {
        sim_end_break(reader, "reset");
        if (pair->end[d->from])
            sim_end_break(pair->end[d->from], "reset");
        return;
    }
    seg_deliver(d, reader);
    if (sim_pair_cut(pair, 1 - d->from))
        dir_lose_patience(d); /* the sender hears nothing */
    if (!list_empty(&d->flying))
        sim_event_arm(s, &d->data_ev, LIST_ENTRY(d->flying.next, struct sim_seg, link)->at);
}

static void ack_arrives(struct sim *s, struct sim_event *ev)
{
    struct sim_dir *d = CONTAINER_OF(ev, struct sim_dir, ack_ev);
    struct sim_end *writer = d->pair->end[d->from];

    (void)s;
    if (sim_pair_cut(d->pair, 1 - d->from)) {
        d->ack_stalled = true;
        dir_lose_patience(d);
        return;
    }
    d->unacked -= d->consumed;
    d->consumed = 0;
    if (writer)
        sim_wake_all(&writer->writers, 0);
}

static void stall_over(struct sim *s, struct sim_event *ev)
{
    struct sim_dir *d = CONTAINER_OF(ev, struct sim_dir, stall_ev);
    struct sim_end *e = d->pair->end[d->from];

    (void)s;
    if (!e)
        return;
    sim_end_break(e, "no answer from the peer's host");
    sim_pair_reset(d->pair, d->from);
}

static void keepalive_over(struct sim *s, struct sim_event *ev)
{
    struct sim_pair *pair = CONTAINER_OF(ev, struct sim_pair, keep_ev);

    (void)s;
    for (int i = 0; i < 2; i++)
        if (pair->end[i])
            sim_end_break(pair->end[i], "no answer from the peer's host");
}

static void reset_arrives(struct sim_pair *pair, int side)
{
    if (!sim_pair_cut(pair, 1 - side) && pair->end[side])
        sim_end_break(pair->end[side], "reset by the peer");
}

static void reset_arrives_0(struct sim *s, struct sim_event *ev)
{
    (void)s;
    reset_arrives(CONTAINER_OF(ev, struct sim_pair, rst_ev[0]), 0);
}

static void reset_arrives_1(struct sim *s, struct sim_event *ev)
{
    (void)s;
    reset_arrives(CONTAINER_OF(ev, struct sim_pair, rst_ev[1]), 1);
}

struct sim_pair *sim_pair_new(struct sim *s, const char *from, const char *to)
{
    struct sim_pair *pair = SIM_NEW(struct sim_pair);

    pair->sim = s;
    pair->id = sim_id(s);
    strcpy(pair->host[0], from);
    strcpy(pair->host[1], to);
    pair->local = strcmp(from, to) == 0;
    for (int i = 0; i < 2; i++) {
        struct sim_dir *d = &pair->dir[i];

        d->pair = pair;
        d->from = i;
        list_init(&d->flying);
        list_init(&d->ready);
        sim_event_init(&d->data_ev, SIM_NET_DATA, NULL, pair->id * 2 + (uint64_t)i, data_arrives);
        sim_event_init(&d->ack_ev, SIM_NET_ACK, NULL, pair->id * 2 + (uint64_t)i, ack_arrives);
        sim_event_init(&d->stall_ev, SIM_NET_STALL, NULL, pair->id * 2 + (uint64_t)i, stall_over);
    }
    sim_event_init(&pair->rst_ev[0], SIM_NET_RESET, NULL, pair->id * 2, reset_arrives_0);
    sim_event_init(&pair->rst_ev[1], SIM_NET_RESET, NULL, pair->id * 2 + 1, reset_arrives_1);
    sim_event_init(&pair->keep_ev, SIM_NET_KEEP, NULL, pair->id, keepalive_over);
    list_push_back(&s->pairs, &pair->link);
    return pair;
}

void sim_net_free(struct sim *s)
{
    ASSERT(list_empty(&s->listeners) && list_empty(&s->pairs));
    sim_dgrams_free(s);
    LIST_FOREACH_SAFE (c, &s->cuts, struct sim_cut, link)
        sim_mem_free(c);
}
