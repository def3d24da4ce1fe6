/* SPDX-License-Identifier: Apache-2.0
 *
 * Disk requests through io_uring: one ring per loop, made on the loop's thread by its first
 * request. Requests queued in one turn of the loop leave in one system call, or a few: with many
 * requests in a turn the device is to work while the loop does. At most as many as the ring has
 * entries are in the kernel, the others wait here in order.
 *
 * Completions arrive by an eventfd that libev watches. The kernel defers their processing to a
 * call that we make (DEFER_TASKRUN), and a flag in the ring says when there is any. The ring's own
 * descriptor must never be polled in this mode. While the loop is awake it looks at that flag once
 * a turn and wants no signal; before it sleeps it says so in the ring, and looks once more. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/real/disk_real.h"

#define BATCH                                                                                      \
    8u /* requests that leave, completions that are taken at once; more would save little */

struct real_ring {
    struct io_uring uring;
    struct real_loop *loop;
    bool deferred;
    int event_fd;
    ev_io event_io;
    uint32_t depth, in_flight;
    uint32_t gathered; /* requests since the last submission */
    struct list queue; /* of disk_req, by its private link */
    struct real_prewait prewait;
    struct real_poller poller;
};

/* Our part of a request lives in its private words. */
struct req_priv {
    struct list link;
    uint64_t done_bytes;
    struct iovec *rest; /* what is left after a short transfer; ours to free */
};
_Static_assert(sizeof(struct req_priv) <= sizeof(((struct disk_req *)0)->priv), "private words");

static struct req_priv *priv_of(struct disk_req *r)
{
    return (struct req_priv *)(void *)r->priv;
}

static struct disk_req *req_of(struct list *link)
{
    return (struct disk_req *)(void *)((char *)link - offsetof(struct req_priv, link) -
                                       offsetof(struct disk_req, priv));
}

static struct disk_real *disk_of(struct disk_req *r)
{
    return CONTAINER_OF(r->disk, struct disk_real, base);
}

/* ---- completion ---- */

static void req_complete(struct disk_req *r, int rc)
{
    struct disk_real *d = disk_of(r);
    struct req_priv *p = priv_of(r);
    struct co_wait *closer;

    mem_free(p->rest);
    p->rest = NULL;
    ASSERT(d->in_flight > 0);
    d->in_flight--;
    r->latency_ns = real_now() - r->submitted;
    r->rc = rc;
    co_resume(&r->wait, rc);
    closer = d->closer;
    if (d->in_flight == 0 && closer != NULL) {
        d->closer = NULL;
        co_resume(closer, 0);
    }
}

static const char *op_name(enum disk_op op)
{
    static const char *const names[] = {"read", "write", "flush", "discard"};

    return names[op];
}

static void req_fail(struct disk_req *r, int errnum)
{
    log_warn("disk.error", "path=%s op=%s offset=%" PRIu64 " length=%" PRIu64 " errno=%d",
             disk_of(r)->path, op_name(r->op), r->off, r->len, errnum);
    req_complete(r, errnum == EOPNOTSUPP ? ERR_UNSUPPORTED : ERR_IO);
}

/* Drops the first done bytes of the request's vector into a copy of our own. */
static void rest_set(struct disk_req *r, size_t done, int *ret_count)
{
    struct req_priv *p = priv_of(r);
    struct iovec *rest = MEM_NEW_ARRAY(struct iovec, r->iov_count);
    int count = 0;

    for (int i = 0; i < r->iov_count; i++) {
        size_t skip = MIN(done, r->iov[i].iov_len);

        done -= skip;
        if (skip == r->iov[i].iov_len)
            continue;
        rest[count].iov_base = (char *)r->iov[i].iov_base + skip;
        rest[count].iov_len = r->iov[i].iov_len - skip;
        count++;
    }
    mem_free(p->rest);
    p->rest = rest;
    *ret_count = count;
}

static void req_requeue(struct real_ring *ring, struct disk_req *r)
{
    list_push_front(&ring->queue, &priv_of(r)->link);
    real_prewait_queue(ring->loop, &ring->prewait);
}

static void req_result(struct real_ring *ring, struct disk_req *r, int res)
{
    struct req_priv *p = priv_of(r);

    if (res == -EINTR || res == -EAGAIN) {
        req_requeue(ring, r);
        return;
    }
    if (res < 0) {
        req_fail(r, -res);
        return;
    }
    if (r->op == DISK_FLUSH) {
        req_complete(r, 0);
        return;
    }
    if (res == 0) { /* beyond the end: the device shrank under us */
        req_fail(r, ENODATA);
        return;
    }
    p->done_bytes += (uint64_t)res;
    ASSERT(p->done_bytes <= r->len);
    if (p->done_bytes < r->len)
        req_requeue(ring, r);
    else
        req_complete(r, 0);
}

/* A batch: whoever asked is to have its answers while the others are looked at. */
static void reap(struct real_ring *ring)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(&ring->uring, head, cqe)
    {
        struct disk_req *r = io_uring_cqe_get_data(cqe);

        if (n == BATCH)
            break;
        n++;
        ASSERT(ring->in_flight > 0);
        ring->in_flight--;
        ring->loop->io_in_flight--;
        req_result(ring, r, cqe->res);
    }
    io_uring_cq_advance(&ring->uring, n);
    if (!list_empty(&ring->queue))
        real_prewait_queue(ring->loop, &ring->prewait);
}

/* Does the kernel wait to be asked for completions? */
static bool ring_has_work(const struct real_ring *ring)
{
    return (atomic_load_explicit((_Atomic unsigned *)ring->uring.sq.kflags, memory_order_acquire) &
            IORING_SQ_TASKRUN) != 0;
}

static bool ring_has_more(const struct real_ring *ring)
{
    return ring_has_work(ring) || io_uring_cq_ready(&ring->uring) > 0;
}

#ifdef __x86_64__
#define SIGNALS_OFF                                                                                \
    true /* is it certain that the kernel tells of work before it looks who sleeps? */
#else
#define SIGNALS_OFF false
#endif

/* Is the eventfd to be signalled? Where the order is not certain it always is. */
static void ring_signals(struct real_ring *ring, bool on)
{
    if (!ring->deferred || !SIGNALS_OFF || io_uring_cq_eventfd_enabled(&ring->uring) == on)
        return;
    (void)io_uring_cq_eventfd_toggle(&ring->uring, on);
    atomic_thread_fence(memory_order_seq_cst); /* before the ring is looked at */
}

/* The kernel does some of its deferred work a call; if there is more, the flag says so again. */
static void collect(struct real_ring *ring)
{
    if (ring_has_work(ring))
        (void)io_uring_get_events(&ring->uring);
    reap(ring);
}

static void event_cb(struct ev_loop *ev, ev_io *w, int revents)
{
    struct real_ring *ring = w->data;
    uint64_t count;

    (void)ev;
    (void)revents;
    ring_signals(ring, false);
    if (read(ring->event_fd, &count, sizeof(count)) < 0)
        ASSERTF(errno == EAGAIN || errno == EINTR, "eventfd: errno %d", errno);
    if (ring_has_more(ring))
        collect(ring);
}

static bool ring_poll(struct real_poller *p, bool sleep)
{
    struct real_ring *ring = CONTAINER_OF(p, struct real_ring, poller);

    if (ring->in_flight == 0)
        return false;
    if (sleep)
        ring_signals(ring, true);
    if (!ring_has_more(ring))
        return false;
    ring_signals(ring, false);
    collect(ring);
    return true;
}

/* ---- submission ---- */

static void sqe_fill(struct io_uring_sqe *sqe, struct disk_req *r)
{
    struct req_priv *p = priv_of(r);
    const struct iovec *iov = r->iov;
    uint64_t off = r->off + p->done_bytes;
    int fd = disk_of(r)->fd, count = r->iov_count;

    if (r->op == DISK_FLUSH) {
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        io_uring_sqe_set_data(sqe, r);
        return;
    }
    if (p->done_bytes > 0) {
        rest_set(r, p->done_bytes, &count);
        iov = p->rest;
    }
    if (r->op == DISK_READ && count == 1)
        io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, off);
    else if (r->op == DISK_READ)
        io_uring_prep_readv(sqe, fd, iov, (unsigned)count, off);
    else if (count == 1)
        io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, off);
    else
        io_uring_prep_writev(sqe, fd, iov, (unsigned)count, off);
    if (r->op == DISK_WRITE && r->durable)
        sqe->rw_flags = RWF_DSYNC;
    io_uring_sqe_set_data(sqe, r);
}

static void ring_flush(struct real_prewait *pre)
{
    struct real_ring *ring = CONTAINER_OF(pre, struct real_ring, prewait);
    struct list *link;
    int rc;

    ring->gathered = 0;
    while (ring->in_flight < ring->depth && !list_empty(&ring->queue)) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);

        if (sqe == NULL)
            break; /* what an earlier submission left over goes first */
        link = list_pop_front(&ring->queue);
        sqe_fill(sqe, req_of(link));
        ring->in_flight++;
        ring->loop->io_in_flight++;
    }
    ring_signals(ring, false);
    rc = ring->deferred ? io_uring_submit_and_get_events(&ring->uring)
                        : io_uring_submit(&ring->uring);
    ASSERTF(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR, "io_uring_submit: %d", rc);
    reap(ring);
    if (io_uring_sq_ready(&ring->uring) > 0)
        real_prewait_queue(ring->loop, &ring->prewait);
}

static int uring_init(struct real_ring *ring, uint32_t entries)
{
    int rc;

    rc = io_uring_queue_init(entries, &ring->uring,
                             IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                 IORING_SETUP_TASKRUN_FLAG);
    ring->deferred = rc == 0;
    if (rc == -EINVAL) /* before Linux 6.1 */
        rc = io_uring_queue_init(entries, &ring->uring, 0);
    return rc;
}

static int ring_new(struct real_loop *l)
{
    struct real_ring *ring = MEM_NEW(struct real_ring);
    int rc;

    rc = uring_init(ring, l->env->ring_entries);
    if (rc < 0) {
        rc = err_from_errno(-rc, "io_uring of loop %s", l->name);
        goto err_alloc;
    }
    ring->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (ring->event_fd < 0) {
        rc = err_from_errno(errno, "eventfd of loop %s", l->name);
        goto err_uring;
    }
    rc = io_uring_register_eventfd(&ring->uring, ring->event_fd);
    if (rc < 0) {
        rc = err_from_errno(-rc, "eventfd of loop %s", l->name);
        goto err_event;
    }
    ring->loop = l;
    ring->depth = l->env->ring_entries;
    list_init(&ring->queue);
    real_prewait_init(&ring->prewait, ring_flush);
    ring->poller.fn = ring_poll;
    list_push_back(&l->pollers, &ring->poller.link);
    ev_io_init(&ring->event_io, event_cb, ring->event_fd, EV_READ);
    ring->event_io.data = ring;
    ev_io_start(l->ev, &ring->event_io);
    l->ring = ring;
    return 0;

err_event:
    close(ring->event_fd);
err_uring:
    io_uring_queue_exit(&ring->uring);
err_alloc:
    mem_free(ring);
    ASSERT(rc < 0);
    return rc;
}

int real_ring_get(struct real_loop *l)
{
    return l->ring != NULL ? 0 : ring_new(l);
}

void real_ring_free(struct real_loop *l)
{
    struct real_ring *ring = l->ring;

    if (ring == NULL)
        return;
    ASSERTF(ring->in_flight == 0 && list_empty(&ring->queue), "%u disk requests in flight",
            ring->in_flight);
    list_del(&ring->prewait.link);
    list_del(&ring->poller.link);
    ev_io_stop(l->ev, &ring->event_io);
    io_uring_queue_exit(&ring->uring);
    close(ring->event_fd);
    mem_free(ring);
    l->ring = NULL;
}

/* ---- discard: blocks, so it goes to the pool ---- */

static void discard_done(void *arg)
{
    struct disk_req *r = arg;
    int errnum = (int)priv_of(r)->done_bytes;

    if (errnum != 0)
        req_fail(r, errnum);
    else
        req_complete(r, 0);
}

static void discard_run(void *arg)
{
    struct disk_req *r = arg;
    struct disk_real *d = disk_of(r);
    uint64_t range[2] = {r->off, r->len};
    int rc;

    do {
        rc = d->base.info.is_file ? fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                              (off_t)r->off, (off_t)r->len)
                                  : ioctl(d->fd, BLKDISCARD, range);
    } while (rc < 0 && errno == EINTR);
    priv_of(r)->done_bytes = rc < 0 ? (uint64_t)errno : 0;
    co_post(d->base.loop, discard_done, r);
}

void real_disk_queue(struct disk_req *r)
{
    struct real_loop *l = co_loop_driver(disk_of(r)->base.loop);
    struct real_ring *ring = l->ring;

    list_push_back(&ring->queue, &priv_of(r)->link);
    ring->gathered++;
    if (!r->urgent && ring->gathered < BATCH) {
        real_prewait_queue(l, &ring->prewait);
        return;
    }
    list_del(&ring->prewait.link);
    ring_flush(&ring->prewait);
}

void real_disk_submit(struct disk_req *r)
{
    struct disk_real *d = disk_of(r);
    struct req_priv *p = priv_of(r);

    ASSERT(co_loop() == d->base.loop);
    *p = (struct req_priv){0};
    list_init(&p->link);
    r->submitted = co_now();
    d->in_flight++;
    if (r->op == DISK_READ || r->op == DISK_WRITE) {
        r->len = 0;
        for (int i = 0; i < r->iov_count; i++)
            r->len += r->iov[i].iov_len;
    }
    if (r->op == DISK_DISCARD) {
        co_post(real_pool(d->base.env), discard_run, r);
        return;
    }
    if (d->delay > 0)
        real_disk_hold(r, r->submitted + d->delay);
    else
        real_disk_queue(r);
}
