/* SPDX-License-Identifier: Apache-2.0
 *
 * A loop sleeps in its io_uring: one call sends what was queued in this turn (disk requests,
 * doorbells, descriptors to watch), sleeps, and returns when something has happened. libev's
 * epoll descriptor is one of those that are watched, so libev is asked only if it has something.
 *
 * The kernel defers the processing of completions to a call that we make (DEFER_TASKRUN), and a
 * flag in the ring says when there is any. The ring's own descriptor must never be polled in this
 * mode. While the loop is awake it looks at that flag once a turn. */
#include <errno.h>
#include <poll.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/uring.h"

#define BATCH 8u /* disk requests whose completions are taken at once; more would save little */

/* ---- entries ---- */

void real_ring_name(struct real_ring *ring, struct io_uring_sqe *sqe, struct ring_op *op)
{
    io_uring_sqe_set_data(sqe, op);
    if (op == NULL && (ring->uring.features & IORING_FEAT_CQE_SKIP) != 0)
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

struct io_uring_sqe *real_ring_sqe(struct real_ring *ring)
{
    struct io_uring_sqe *sqe;

    while ((sqe = io_uring_get_sqe(&ring->uring)) == NULL)
        real_ring_submit(ring);
    return sqe;
}

/* ---- completions ---- */

static bool completion_take(struct real_ring *ring, struct io_uring_cqe *ret)
{
    struct io_uring_cqe *cqe;
    unsigned head;

    io_uring_for_each_cqe(&ring->uring, head, cqe)
    {
        *ret = *cqe;
        io_uring_cq_advance(&ring->uring, 1);
        return true;
    }
    return false;
}

/* Whoever asked is to have its answers while the others are looked at. */
static void reap(struct real_ring *ring)
{
    struct io_uring_cqe cqe;

    ring->completed = 0;
    while (ring->completed < BATCH && completion_take(ring, &cqe)) {
        struct ring_op *op = io_uring_cqe_get_data(&cqe);

        if (op != NULL)
            op->done(op, cqe.res, (cqe.flags & IORING_CQE_F_MORE) != 0);
    }
}

/* Does the kernel wait to be asked for completions? */
static bool ring_has_work(const struct real_ring *ring)
{
    return (atomic_load_explicit((_Atomic unsigned *)ring->uring.sq.kflags, memory_order_acquire) &
            (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

static void check(int rc)
{
    ASSERTF(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR, "io_uring_enter: %d", rc);
}

void real_ring_submit(struct real_ring *ring)
{
    check(io_uring_submit_and_get_events(&ring->uring));
    reap(ring);
}

void real_ring_look(struct real_ring *ring)
{
    if (io_uring_sq_ready(&ring->uring) > 0 || ring_has_work(ring))
        real_ring_submit(ring);
    else
        reap(ring);
}

static void ev_done(struct ring_op *op, int res UNUSED, bool more UNUSED)
{
    struct real_ring *ring = CONTAINER_OF(op, struct real_ring, ev_op);

    ring->ev_armed = false;
    ring->loop->ev_due = true;
}

/* Asked anew after each answer, so that what libev left undone is told again. */
void real_ring_arm(struct real_ring *ring)
{
    struct io_uring_sqe *sqe;

    if (ring->ev_armed)
        return;
    sqe = real_ring_sqe(ring);
    io_uring_prep_poll_add(sqe, ring->ev_fd, POLLIN);
    real_ring_name(ring, sqe, &ring->ev_op);
    ring->ev_armed = true;
}

void real_ring_sleep(struct real_ring *ring)
{
    check(io_uring_submit_and_wait(&ring->uring, 1));
    reap(ring);
}

/* ---- making ---- */

/* libev keeps its descriptor to itself, but for another loop that is to watch it. */
static int ev_descriptor(struct ev_loop *ev)
{
    struct ev_loop *outer = ev_loop_new(EVBACKEND_POLL | EVFLAG_NOENV);
    ev_embed embed;
    int fd;

    ASSERT(outer != NULL);
    ev_embed_init(&embed, NULL, ev);
    ev_embed_start(outer, &embed);
    fd = embed.io.fd;
    ev_embed_stop(outer, &embed);
    ev_loop_destroy(outer);
    return fd;
}

static int uring_init(struct io_uring *uring, uint32_t entries)
{
    int rc = io_uring_queue_init(entries, uring,
                                 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                     IORING_SETUP_TASKRUN_FLAG);

    if (rc == -EINVAL) /* before Linux 6.1 */
        rc = io_uring_queue_init(entries, uring, 0);
    if (rc == 0)
        (void)io_uring_register_ring_fd(uring); /* saves a look at the table of descriptors */
    return rc;
}

int real_ring_get(struct real_loop *l)
{
    struct real_ring *ring;
    int rc;

    if (l->ring != NULL)
        return 0;
    ring = MEM_NEW(struct real_ring);
    rc = uring_init(&ring->uring, l->env->ring_entries);
    if (rc < 0) {
        mem_free(ring);
        return err_from_errno(-rc, "io_uring of loop %s", l->name);
    }
    ring->loop = l;
    ring->ev_fd = ev_descriptor(l->ev);
    ring->ev_op.done = ev_done;
    list_init(&ring->edges);
    real_disk_init(ring);
    l->ring = ring;
    return 0;
}

void real_ring_free(struct real_loop *l)
{
    struct real_ring *ring = l->ring;

    if (ring == NULL)
        return;
    ASSERTF(ring->in_flight == 0 && list_empty(&ring->queue), "%u disk requests in flight",
            ring->in_flight);
    list_del(&ring->prewait.link);
    io_uring_queue_exit(&ring->uring);
    real_edges_free(ring);
    mem_free(ring);
    l->ring = NULL;
}
