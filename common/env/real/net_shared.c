/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams whose bytes go through shared memory. The side that connected makes the memory (two
 * rings, common/env/ring.h), two eventfds and a pair of sockets, and passes them over the UNIX
 * socket, together with the memory that its buffers lie in, if that can be shared. The pair takes
 * the socket's place, since that may have left its trace in a loop which the stream moves away
 * from, and carries nothing. It ends when the peer closes or dies, and so when nothing there uses
 * our memory any more; a stream that is only shut down says so in its ring.
 *
 * A loop looks into its rings once a turn, so nobody rings while it is awake; before it sleeps it
 * says so in the ring.
 *
 * What is passed is checked: sizes, that they are sealed (memory that shrinks under a mapping
 * kills whoever touches it), that they are eventfds. A peer that has our rights could still block
 * us by filling a doorbell and taking its O_NONBLOCK away; it could as well stop us by a signal,
 * which is why nobody with fewer rights is dealt with here. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/env/real/net_real.h"
#include "common/env/real/uring.h"
#include "common/env/ring.h"

#define SHARE_MAGIC       0x4d53425au /* "ZBSM" */
#define SHARE_SEALS       (F_SEAL_SHRINK | F_SEAL_GROW)
#define SHARE_ARENA_MAX   (UINT64_C(1) << 32)
#define SHARE_RINGS_BYTES ROUND_UP(2 * sizeof(struct ring_mem), BUF_ALIGN)

/* What the descriptors are, in this order. */
enum { FD_RINGS, FD_BELL_TAKER, FD_BELL_MAKER, FD_END, FD_ARENA, FD_COUNT };

struct share_msg {
    uint32_t magic;
    uint32_t ring_bytes;
    uint64_t arena_bytes; /* 0: there is no FD_ARENA */
};

struct net_shared {
    struct conn_real *conn;
    void *rings; /* the mapping */
    struct ring in, out;
    int bell, peer_bell;                  /* eventfds: rung for us, rung by us */
    struct net_arena arena;               /* the peer's */
    bool ended;                           /* the peer has closed its end */
    bool strayed;                         /* it sent something over the socket */
    struct list readers, writers, enders; /* of co_wait */
    struct real_edge bell_edge, end_edge;
    struct real_poller poller;
    struct real_prewait ringing; /* queued: the peer is to be rung */
};

/* ---- waiting ---- */

static void wake_all(struct list *waiters)
{
    struct list *link;

    while ((link = list_pop_front(waiters)) != NULL)
        co_resume(CONTAINER_OF(link, struct co_wait, link), 0);
}

static void users_wake(struct net_shared *s)
{
    wake_all(&s->readers);
    wake_all(&s->writers);
}

static const uint64_t one = 1;

static void bell_ring_now(const struct net_shared *s)
{
    /* EAGAIN: it is full of rings that nobody has heard yet. */
    if (write(s->peer_bell, &one, sizeof(one)) < 0)
        ASSERTF(errno == EAGAIN, "doorbell: errno %d", errno);
}

static void ringing_fn(struct real_prewait *p)
{
    const struct net_shared *s = CONTAINER_OF(p, struct net_shared, ringing);
    struct real_ring *ring = real_loop_self()->ring;
    struct io_uring_sqe *sqe;

    if (ring == NULL) {
        bell_ring_now(s);
        return;
    }
    sqe = real_ring_sqe(ring);
    io_uring_prep_write(sqe, s->peer_bell, &one, sizeof(one), 0);
    sqe->rw_flags = RWF_NOWAIT; /* as above */
    real_ring_name(ring, sqe, NULL);
}

/* At the end of the turn: on our CPU the peer might push us aside, and we would have to come back
 * merely to fall asleep; who rings and falls asleep in one call need not. */
static void bell_ring(struct net_shared *s)
{
    real_prewait_queue(real_loop_self(), &s->ringing);
}

static void ringing_flush(struct net_shared *s)
{
    if (!list_linked(&s->ringing.link))
        return;
    list_del(&s->ringing.link);
    bell_ring_now(s);
}

void net_shared_shutdown(struct conn_real *c)
{
    ring_close(&c->shared->out);
    bell_ring(c->shared);
    users_wake(c->shared);
}

static void bell_fn(struct real_edge *e)
{
    struct net_shared *s = CONTAINER_OF(e, struct net_shared, bell_edge);

    real_edge_drain(e);
    real_loop_self()->io_events++;
    s->poller.bells++;
    users_wake(s);
}

/* The socket has something to say: its end, or what does not belong there. */
static void end_fn(struct real_edge *e)
{
    struct net_shared *s = CONTAINER_OF(e, struct net_shared, end_edge);
    char byte;
    ssize_t n = recv(s->conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        real_edge_watch(real_loop_self(), e);
        return;
    }
    s->strayed = n > 0;
    s->ended = true;
    users_wake(s);
    wake_all(&s->enders);
}

static bool poll_fn(struct real_poller *p, bool sleep)
{
    struct net_shared *s = CONTAINER_OF(p, struct net_shared, poller);
    bool found = false;

    if (!list_empty(&s->readers) &&
        (ring_readable(&s->in) || (sleep && !ring_reader_sleeps(&s->in)))) {
        wake_all(&s->readers);
        found = true;
    }
    if (!list_empty(&s->writers) &&
        (ring_writable(&s->out) || (sleep && !ring_writer_sleeps(&s->out)))) {
        wake_all(&s->writers);
        found = true;
    }
    if (found)
        real_loop_self()->io_events++;
    return found;
}

static co_fn int shared_wait(struct net_shared *s, struct list *waiters)
{
    struct real_loop *l = real_loop_self();
    struct co_wait w;
    int rc;

    co_wait_init(&w);
    list_push_back(waiters, &w.link);
    real_edge_watch(l, &s->bell_edge);
    if (!s->ended)
        real_edge_watch(l, &s->end_edge);
    if (!list_linked(&s->poller.link))
        list_push_back(&l->pollers, &s->poller.link);
    rc = co_suspend(&w, CO_INTERRUPTIBLE);
    list_del(&w.link);
    if (list_empty(&s->readers) && list_empty(&s->writers) && list_empty(&s->enders))
        list_del(&s->poller.link);
    return rc;
}

/* ---- the stream ---- */

/* Why a stream that has nothing more to give or take cannot be waited for; 0: it can. */
static int shared_over(const struct conn_real *c)
{
    if (c->base.shut)
        return err_set(ERR_CLOSED, "connection to %s was shut down", c->base.peer);
    if (c->shared->strayed)
        return err_set(ERR_PROTO, "bytes on the socket under shared memory");
    return c->shared->ended || ring_closed(&c->shared->in) ? err_set(ERR_CLOSED, "end of stream")
                                                           : 0;
}

ssize_t net_shared_readv(struct conn_real *c, const struct iovec *iov, int n)
{
    struct net_shared *s = c->shared;
    int rc = net_dir_burst(&c->in);

    while (rc == 0) {
        bool over = s->ended || c->base.shut || ring_closed(&s->in), ring;
        ssize_t got = ring_read(&s->in, iov, n, &ring);

        if (ring)
            bell_ring(s);
        if (got != 0 && !c->base.shut)
            return got;
        rc = over ? shared_over(c) : shared_wait(s, &s->readers);
    }
    return rc;
}

ssize_t net_shared_writev(struct conn_real *c, const struct iovec *iov, int n)
{
    struct net_shared *s = c->shared;
    int rc = net_dir_burst(&c->out);

    while (rc == 0) {
        bool ring;
        ssize_t put;

        rc = shared_over(c);
        if (rc < 0)
            break;
        put = ring_write(&s->out, iov, n, &ring);
        if (ring)
            bell_ring(s);
        if (put != 0)
            return put;
        rc = shared_wait(s, &s->writers);
    }
    return rc;
}

bool net_shared_readable(const struct conn_real *c)
{
    return ring_readable(&c->shared->in);
}

int real_net_wait_end(struct net_conn *conn)
{
    struct conn_real *c = conn_of(conn);
    int rc = 0;

    while (rc == 0 && !c->shared->ended)
        rc = shared_wait(c->shared, &c->shared->enders);
    return rc;
}

bool real_net_peer_arena(struct net_conn *conn, struct net_arena *ret)
{
    *ret = conn_of(conn)->shared->arena;
    return ret->base != NULL;
}

/* ---- making and taking ---- */

/* Takes over the bells and the end of the pair. rings: the mapping, the maker's outgoing one first.
 */
static void shared_begin(struct conn_real *c, void *rings, bool maker, int bell, int peer_bell,
                         int end)
{
    struct net_shared *s = MEM_NEW(struct net_shared);
    struct ring_mem *mem = rings;

    s->conn = c;
    s->rings = rings;
    s->out.mem = &mem[maker ? 0 : 1];
    s->in.mem = &mem[maker ? 1 : 0];
    s->bell = bell;
    s->peer_bell = peer_bell;
    list_init(&s->readers);
    list_init(&s->writers);
    list_init(&s->enders);
    list_init(&s->poller.link);
    s->poller.fn = poll_fn;
    if (maker)
        s->poller.cpu = &s->out.mem->cpu;
    else
        s->poller.leader_cpu = &s->in.mem->cpu;
    real_prewait_init(&s->ringing, ringing_fn);
    real_edge_init(&s->bell_edge, bell, EV_READ, bell_fn);
    net_dirs_forget(c);
    close(c->fd);
    c->fd = end;
    real_edge_init(&s->end_edge, end, EV_READ, end_fn);
    c->shared = s;
}

void net_shared_leave(struct conn_real *c)
{
    struct real_loop *l = co_loop_driver(c->base.loop);
    struct net_shared *s = c->shared;

    if (s == NULL)
        return;
    ringing_flush(s);
    real_edge_forget(l, &s->bell_edge);
    real_edge_forget(l, &s->end_edge);
}

void net_shared_free(struct conn_real *c)
{
    struct net_shared *s = c->shared;

    if (s == NULL)
        return;
    net_shared_leave(c);
    ASSERT(list_empty(&s->readers) && list_empty(&s->writers) && list_empty(&s->enders));
    munmap(s->rings, SHARE_RINGS_BYTES);
    if (s->arena.base != NULL)
        munmap(s->arena.base, s->arena.bytes);
    close(s->bell);
    close(s->peer_bell);
    mem_free(s);
    c->shared = NULL;
}

bool real_net_can_share(struct net_conn *conn)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    return strncmp(conn->local, "unix:", 5) == 0 &&
           getsockopt(conn_of(conn)->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
           (cred.uid == geteuid() || cred.uid == 0);
}

static void *map(int fd, uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return p != MAP_FAILED ? p : NULL;
}

static void fds_close(int fds[FD_COUNT])
{
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

/* The arena's descriptor stays the process's own: a copy is sent. */
static int share_make(int fds[FD_COUNT], int *ret_end, void **ret_rings, struct share_msg *msg)
{
    const struct buf_arena *arena = buf_arena();
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
        return err_from_errno(errno, "making shared memory");
    *ret_end = pair[0];
    fds[FD_END] = pair[1];
    fds[FD_RINGS] = memfd_create("zbs-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    fds[FD_BELL_TAKER] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    fds[FD_BELL_MAKER] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (arena != NULL)
        fds[FD_ARENA] = fcntl(arena->fd, F_DUPFD_CLOEXEC, 0);
    if (fds[FD_RINGS] < 0 || fds[FD_BELL_TAKER] < 0 || fds[FD_BELL_MAKER] < 0 ||
        (arena != NULL && fds[FD_ARENA] < 0) || ftruncate(fds[FD_RINGS], SHARE_RINGS_BYTES) < 0 ||
        fcntl(fds[FD_RINGS], F_ADD_SEALS, SHARE_SEALS | F_SEAL_SEAL) < 0)
        return err_from_errno(errno, "making shared memory");
    *ret_rings = map(fds[FD_RINGS], SHARE_RINGS_BYTES);
    if (*ret_rings == NULL)
        return err_from_errno(errno, "mapping shared memory");
    msg->magic = SHARE_MAGIC;
    msg->ring_bytes = RING_BYTES;
    msg->arena_bytes = arena != NULL ? arena->bytes : 0;
    return 0;
}

union share_control {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(FD_COUNT * sizeof(int))];
};

static co_fn int share_send(struct conn_real *c, struct share_msg *msg, const int fds[FD_COUNT])
{
    size_t fds_bytes = (msg->arena_bytes > 0 ? FD_COUNT : FD_ARENA) * sizeof(int);
    union share_control control = {.bytes = {0}};
    struct iovec iov = {msg, sizeof(*msg)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = CMSG_SPACE(fds_bytes)};
    struct cmsghdr *cm = CMSG_FIRSTHDR(&m);
    ssize_t n;

    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(fds_bytes);
    memcpy(CMSG_DATA(cm), fds, fds_bytes);
    for (;;) {
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
        if (n == (ssize_t)sizeof(*msg))
            return 0;
        if (n >= 0)
            return err_set(ERR_CLOSED, "offer of shared memory was cut");
        if (errno == EAGAIN) {
            int rc = net_dir_wait(&c->out);

            if (rc < 0)
                return rc;
        } else if (errno != EINTR) {
            return net_stream_error(c, errno);
        }
    }
}

int real_net_share(struct net_conn *conn)
{
    struct conn_real *c = conn_of(conn);
    int fds[FD_COUNT] = {-1, -1, -1, -1, -1}, end = -1, rc;
    struct share_msg msg;
    void *rings = NULL;

    rc = share_make(fds, &end, &rings, &msg);
    if (rc == 0)
        rc = share_send(c, &msg, fds);
    if (rc == 0) {
        shared_begin(c, rings, true, fds[FD_BELL_MAKER], fds[FD_BELL_TAKER], end);
        fds[FD_BELL_MAKER] = fds[FD_BELL_TAKER] = end = -1;
    } else if (rings != NULL) {
        munmap(rings, SHARE_RINGS_BYTES);
    }
    if (end >= 0)
        close(end);
    fds_close(fds);
    return rc;
}

/* What came with the message: how many; those beyond FD_COUNT are closed. */
static int fds_take(struct msghdr *m, int fds[FD_COUNT])
{
    int count = 0;

    for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm != NULL; cm = CMSG_NXTHDR(m, cm)) {
        size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(fd));
            if (count < FD_COUNT)
                fds[count] = fd;
            else
                close(fd);
            count++;
        }
    }
    return count;
}

static co_fn int share_receive(struct conn_real *c, struct share_msg *msg, int fds[FD_COUNT])
{
    union share_control control;
    struct iovec iov = {msg, sizeof(*msg)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    int count, rc;

    for (;;) {
        ssize_t n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            rc = net_dir_wait(&c->in);
            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0)
            return net_stream_error(c, errno);
        if (n == 0)
            return err_set(ERR_CLOSED, "end of stream");
        count = fds_take(&m, fds);
        if (n != (ssize_t)sizeof(*msg) || (m.msg_flags & (MSG_CTRUNC | MSG_TRUNC)))
            return err_set(ERR_PROTO, "offer of shared memory was cut");
        break;
    }
    if (msg->magic != SHARE_MAGIC || msg->ring_bytes != RING_BYTES ||
        count != (msg->arena_bytes > 0 ? FD_COUNT : FD_ARENA))
        return err_set(ERR_PROTO,
                       "offer of shared memory: magic 0x%08x, ring of %u, %d descriptors",
                       msg->magic, msg->ring_bytes, count);
    return 0;
}

/* Is it memory of that size, for good, that reads and writes cannot fail on? */
static int memory_check(int fd, uint64_t bytes, const char *what)
{
    struct statfs fs;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return err_from_errno(errno, "%s that was offered", what);
    if (fs.f_type != TMPFS_MAGIC || seals < 0 || (seals & SHARE_SEALS) != SHARE_SEALS ||
        (uint64_t)st.st_size != bytes || bytes > SHARE_ARENA_MAX || bytes % BUF_ALIGN != 0)
        return err_set(ERR_PROTO, "%s that was offered: %lld bytes, seals 0x%x", what,
                       (long long)st.st_size, (unsigned)seals);
    return 0;
}

static int bell_check(int fd)
{
    char path[64], is[64];
    ssize_t len;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    len = readlink(path, is, sizeof(is) - 1);
    is[MAX(len, 0)] = '\0';
    if (strcmp(is, "anon_inode:[eventfd]") != 0 ||
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
        return err_set(ERR_PROTO, "a doorbell that was offered is \"%s\"", is);
    return 0;
}

static int end_check(int fd)
{
    int domain = 0;
    socklen_t len = sizeof(domain);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
        return err_set(ERR_PROTO, "what was offered as the stream's end is no UNIX socket");
    return 0;
}

static int offer_check(const struct share_msg *msg, const int fds[FD_COUNT])
{
    int rc = memory_check(fds[FD_RINGS], SHARE_RINGS_BYTES, "memory for rings");

    if (rc == 0)
        rc = bell_check(fds[FD_BELL_TAKER]);
    if (rc == 0)
        rc = bell_check(fds[FD_BELL_MAKER]);
    if (rc == 0)
        rc = end_check(fds[FD_END]);
    if (rc == 0 && msg->arena_bytes > 0)
        rc = memory_check(fds[FD_ARENA], msg->arena_bytes, "memory for payloads");
    return rc;
}

static int offer_map(const struct share_msg *msg, const int fds[FD_COUNT], void **ret_rings,
                     struct net_arena *ret_arena)
{
    *ret_arena = (struct net_arena){NULL, msg->arena_bytes};
    *ret_rings = map(fds[FD_RINGS], SHARE_RINGS_BYTES);
    if (*ret_rings == NULL)
        return err_from_errno(errno, "mapping shared memory");
    if (msg->arena_bytes == 0)
        return 0;
    ret_arena->base = map(fds[FD_ARENA], msg->arena_bytes);
    if (ret_arena->base != NULL)
        return 0;
    munmap(*ret_rings, SHARE_RINGS_BYTES);
    return err_from_errno(errno, "mapping shared memory");
}

int real_net_share_take(struct net_conn *conn)
{
    struct conn_real *c = conn_of(conn);
    int fds[FD_COUNT] = {-1, -1, -1, -1, -1}, rc;
    struct net_arena arena;
    struct share_msg msg;
    void *rings;

    rc = share_receive(c, &msg, fds);
    if (rc == 0)
        rc = offer_check(&msg, fds);
    if (rc == 0)
        rc = offer_map(&msg, fds, &rings, &arena);
    if (rc == 0) {
        shared_begin(c, rings, false, fds[FD_BELL_TAKER], fds[FD_BELL_MAKER], fds[FD_END]);
        c->shared->arena = arena;
        fds[FD_BELL_MAKER] = fds[FD_BELL_TAKER] = fds[FD_END] = -1;
    }
    fds_close(fds);
    return rc;
}
