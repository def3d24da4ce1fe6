/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors that a loop wants to know of, watched in its ring, or by libev if it has none. In the
 * ring one that becomes readable is watched until it is forgotten, so that to wait for it again
 * and again costs no call at all. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/uring.h"

/* The kernel's until its last completion, which may be after the edge has gone. */
struct edge_poll {
    struct ring_op op;
    struct real_edge *edge; /* NULL: it was forgotten */
    struct list link;       /* real_ring.edges */
};

static void poll_free(struct edge_poll *p)
{
    list_del(&p->link);
    mem_free(p);
}

/* One completion tells of all that has come until now, so of bytes and the end behind them, too. */
static void poll_done(struct ring_op *op, int res, bool more)
{
    struct edge_poll *p = CONTAINER_OF(op, struct edge_poll, op);
    struct real_edge *e = p->edge;

    if (!more) {
        if (e != NULL)
            e->poll = NULL;
        poll_free(p);
    }
    if (e != NULL) {
        e->ended = e->ended || (res > 0 && (res & (POLLRDHUP | POLLHUP | POLLERR)) != 0);
        e->fn(e);
    }
}

static void libev_cb(struct ev_loop *ev, ev_io *w, int revents UNUSED)
{
    struct real_edge *e = w->data;

    ev_io_stop(ev, w);
    e->fn(e);
}

void real_edge_init(struct real_edge *e, int fd, int events, void (*fn)(struct real_edge *e))
{
    e->fn = fn;
    e->poll = NULL;
    e->ended = false;
    ev_io_init(&e->io, libev_cb, fd, events);
    e->io.data = e;
}

static void poll_start(struct real_ring *ring, struct real_edge *e)
{
    struct edge_poll *p = MEM_NEW(struct edge_poll);
    struct io_uring_sqe *sqe = real_ring_sqe(ring);

    p->op.done = poll_done;
    p->edge = e;
    list_push_back(&ring->edges, &p->link);
    e->poll = p;
    if (e->io.events & EV_READ)
        io_uring_prep_poll_multishot(sqe, e->io.fd, POLLIN | POLLRDHUP);
    else
        io_uring_prep_poll_add(sqe, e->io.fd, POLLOUT);
    real_ring_name(ring, sqe, &p->op);
}

void real_edge_watch(struct real_loop *l, struct real_edge *e)
{
    if (e->poll != NULL)
        return;
    if (l->ring != NULL)
        poll_start(l->ring, e);
    else
        real_ev_io_start(l, &e->io);
}

void real_edge_forget(struct real_loop *l, struct real_edge *e)
{
    struct edge_poll *p = e->poll;
    struct io_uring_sqe *sqe;

    ev_io_stop(l->ev, &e->io);
    if (p == NULL)
        return;
    p->edge = NULL;
    e->poll = NULL;
    sqe = real_ring_sqe(l->ring);
    io_uring_prep_cancel(sqe, &p->op, 0); /* to remove a poll does not work while it has news */
    real_ring_name(l->ring, sqe, NULL);
    real_ring_submit(l->ring); /* else the kernel keeps the file open */
}

/* libev tells of an eventfd for as long as it is not zero. */
void real_edge_drain(const struct real_edge *e)
{
    uint64_t count;

    if (e->poll == NULL && read(e->io.fd, &count, sizeof(count)) < 0)
        ASSERTF(errno == EAGAIN || errno == EINTR, "eventfd: errno %d", errno);
}

void real_edges_free(struct real_ring *ring)
{
    while (!list_empty(&ring->edges)) {
        struct edge_poll *p = LIST_FIRST(&ring->edges, struct edge_poll, link);

        if (p->edge != NULL)
            p->edge->poll = NULL;
        poll_free(p);
    }
}
