/* SPDX-License-Identifier: Apache-2.0
 *
 * Disk requests through the loop's ring. Requests queued in one turn of the loop leave in one
 * system call, that in which it sleeps, or a few: with many requests in a turn the device is to
 * work while the loop does. At most as many as the ring has entries are in the kernel, the others
 * wait here in order. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/real/disk_real.h"
#include "common/env/real/uring.h"

#define BATCH 8u /* requests that leave at once; more would save little */

/* Our part of a request lives in its private words. */
struct req_priv {
    struct ring_op op;
    struct list link;
    uint64_t done_bytes;
    struct iovec *rest; /* what is left after a short transfer; ours to free */
};
_Static_assert(sizeof(struct req_priv) <= sizeof(((struct disk_req *)0)->priv), "private words");

static struct req_priv *priv_of(struct disk_req *r)
{
    return (struct req_priv *)(void *)r->priv;
}

static struct disk_req *req_of(struct req_priv *p)
{
    return (struct disk_req *)(void *)((char *)p - offsetof(struct disk_req, priv));
}

static struct disk_real *disk_of(struct disk_req *r)
{
    return CONTAINER_OF(r->disk, struct disk_real, base);
}

static struct real_loop *loop_of(struct disk_req *r)
{
    return co_loop_driver(disk_of(r)->base.loop);
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

static void req_done(struct ring_op *op, int res, bool more UNUSED)
{
    struct disk_req *r = req_of(CONTAINER_OF(op, struct req_priv, op));
    struct real_ring *ring = loop_of(r)->ring;

    ASSERT(ring->in_flight > 0);
    ring->in_flight--;
    ring->completed++;
    ring->loop->io_in_flight--;
    req_result(ring, r, res);
    if (!list_empty(&ring->queue))
        real_prewait_queue(ring->loop, &ring->prewait);
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
}

static void requests_fill(struct real_prewait *pre)
{
    struct real_ring *ring = CONTAINER_OF(pre, struct real_ring, prewait);

    ring->gathered = 0;
    while (ring->in_flight < ring->depth && !list_empty(&ring->queue)) {
        struct io_uring_sqe *sqe = real_ring_sqe(ring);
        struct req_priv *p;

        p = CONTAINER_OF(list_pop_front(&ring->queue), struct req_priv, link);
        sqe_fill(sqe, req_of(p));
        p->op.done = req_done;
        real_ring_name(ring, sqe, &p->op);
        ring->in_flight++;
        ring->loop->io_in_flight++;
    }
}

void real_disk_init(struct real_ring *ring)
{
    ring->depth = ring->loop->env->ring_entries;
    list_init(&ring->queue);
    real_prewait_init(&ring->prewait, requests_fill);
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
    struct real_loop *l = loop_of(r);
    struct real_ring *ring = l->ring;

    list_push_back(&ring->queue, &priv_of(r)->link);
    ring->gathered++;
    if (ring->gathered < BATCH && !(r->urgent && co_loop_ready(l->co))) {
        real_prewait_queue(l, &ring->prewait); /* if nothing else is ready, the turn ends here */
        return;
    }
    list_del(&ring->prewait.link);
    requests_fill(&ring->prewait);
    real_ring_submit(ring);
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
