/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams of the real environment: non-blocking TCP and UNIX sockets. A call tries the system
 * call first and waits only if it would block.
 *
 * A read that got less than it asked for has emptied the socket: the next one waits first, unless
 * the stream has ended behind what it got. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/net_addr.h"
#include "common/env/real/net_real.h"

#define LISTEN_BACKLOG   512
#define BURST_MAX        64 /* calls in a row that need not wait, before others get a turn */
#define FD_SHORTAGE_WAIT (100 * NSEC_PER_MSEC)
#define UNIX_FULL_WAIT   NSEC_PER_MSEC
#define UNIX_SEND_BYTES  (1 << 20) /* so that a large payload leaves in few calls */
/* A peer that vanished without a word is noticed by idle connections after about a minute. */
#define KEEPALIVE_IDLE_S     30
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_PROBES     3

struct listener_real {
    struct net_listener base; /* must be first */
    int fd;
    char unlink_path[NET_ADDR_MAX]; /* of a UNIX socket, else "" */
    struct list acceptors;          /* of co_wait, any number */
    ev_io io;
};

static struct real_loop *loop_of(struct co_loop *loop)
{
    return co_loop_driver(loop);
}

/* ---- waiting ---- */

static void wake_first(struct list *waiters, int rc)
{
    struct list *link = list_pop_front(waiters);

    if (link != NULL)
        co_resume(CONTAINER_OF(link, struct co_wait, link), rc);
}

static void dir_fn(struct real_edge *e)
{
    struct net_dir *dir = CONTAINER_OF(e, struct net_dir, edge);

    dir->ready = true;
    real_loop_self()->io_events++;
    wake_first(&dir->waiters, 0);
}

void net_dir_init(struct net_dir *dir, int fd, int events)
{
    real_edge_init(&dir->edge, fd, events, dir_fn);
    dir->ready = false;
    list_init(&dir->waiters);
}

co_fn int net_dir_wait(struct net_dir *dir)
{
    struct co_wait w;
    int rc = 0;

    ASSERT(list_empty(&dir->waiters));
    dir->burst = 0;
    if (!dir->ready) {
        co_wait_init(&w);
        list_push_back(&dir->waiters, &w.link);
        real_edge_watch(real_loop_self(), &dir->edge);
        rc = co_suspend(&w, CO_INTERRUPTIBLE);
        list_del(&w.link);
    }
    if (rc == 0)
        dir->ready = false;
    return rc;
}

void net_dirs_forget(struct conn_real *c)
{
    struct real_loop *l = loop_of(c->base.loop);

    real_edge_forget(l, &c->in.edge);
    real_edge_forget(l, &c->out.edge);
}

co_fn int net_dir_burst(struct net_dir *dir)
{
    if (++dir->burst < BURST_MAX)
        return 0;
    dir->burst = 0;
    return co_yield ();
}

/* ---- connections ---- */

static void addr_of(int fd, bool peer, char ret[NET_ADDR_MAX])
{
    struct net_addr addr = {.len = sizeof(addr.storage)};
    struct ucred cred;
    socklen_t cred_len = sizeof(cred);
    int rc;

    rc = peer ? getpeername(fd, &addr.sa, &addr.len) : getsockname(fd, &addr.sa, &addr.len);
    if (rc < 0) {
        strcpy(ret, "?");
        return;
    }
    net_addr_format(&addr, ret);
    if (peer && addr.sa.sa_family == AF_UNIX && strcmp(ret, "unix:") == 0 &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0)
        snprintf(ret, NET_ADDR_MAX, "unix:pid=%d,uid=%u", (int)cred.pid, (unsigned)cred.uid);
}

/* These only tune: a socket that refuses them still works. */
static void tcp_tune(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
    };

    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                         sizeof(options[i].value));
}

static void unix_tune(int fd)
{
    int bytes = UNIX_SEND_BYTES;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static struct conn_real *conn_new(struct env *env, int fd)
{
    struct conn_real *c = MEM_NEW(struct conn_real);

    c->base.env = env;
    c->base.loop = co_loop();
    c->fd = fd;
    net_dir_init(&c->in, fd, EV_READ);
    net_dir_init(&c->out, fd, EV_WRITE);
    return c;
}

static void conn_name(struct conn_real *c)
{
    addr_of(c->fd, false, c->base.local);
    addr_of(c->fd, true, c->base.peer);
    if (strncmp(c->base.local, "unix:", 5) != 0)
        tcp_tune(c->fd);
    else
        unix_tune(c->fd);
}

int net_stream_error(const struct conn_real *c, int errnum)
{
    if (c->base.shut)
        return err_set(ERR_CLOSED, "connection to %s was shut down", c->base.peer);
    if (errnum == ECONNRESET || errnum == EPIPE || errnum == ETIMEDOUT || errnum == ENOTCONN ||
        errnum == EHOSTUNREACH || errnum == ENETUNREACH || errnum == ECONNABORTED)
        return err_set(ERR_CLOSED, "connection to %s: %s", c->base.peer, strerror(errnum));
    return err_from_errno(errnum, "connection to %s", c->base.peer);
}

static size_t iov_bytes(const struct iovec *iov, int n)
{
    size_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    return sum;
}

ssize_t real_net_readv(struct net_conn *conn, const struct iovec *iov, int n)
{
    struct conn_real *c = conn_of(conn);
    ssize_t got;
    int rc;

    if (c->shared != NULL)
        return net_shared_readv(c, iov, n);
    rc = c->empty && !conn->shut ? net_dir_wait(&c->in) : net_dir_burst(&c->in);
    while (rc == 0) {
        if (conn->shut)
            return err_set(ERR_CLOSED, "connection to %s was shut down", conn->peer);
        got = readv(c->fd, iov, n);
        if (got > 0) {
            c->empty = (size_t)got < iov_bytes(iov, n) && !c->in.edge.ended;
            return got;
        }
        if (got == 0)
            return err_set(ERR_CLOSED, "end of stream");
        if (errno == EAGAIN)
            rc = net_dir_wait(&c->in);
        else if (errno != EINTR)
            return net_stream_error(c, errno);
    }
    return rc;
}

ssize_t real_net_writev(struct net_conn *conn, const struct iovec *iov, int n)
{
    struct conn_real *c = conn_of(conn);
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
    ssize_t sent;
    int rc;

    if (c->shared != NULL)
        return net_shared_writev(c, iov, n);
    rc = net_dir_burst(&c->out);
    while (rc == 0) {
        if (conn->shut)
            return err_set(ERR_CLOSED, "connection to %s was shut down", conn->peer);
        sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
        if (sent >= 0)
            return sent;
        if (errno == EAGAIN)
            rc = net_dir_wait(&c->out);
        else if (errno != EINTR)
            return net_stream_error(c, errno);
    }
    return rc;
}

bool real_net_readable(struct net_conn *conn)
{
    struct conn_real *c = conn_of(conn);
    int bytes = 0;

    if (c->shared != NULL)
        return net_shared_readable(c);
    return ioctl(c->fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

void real_net_shutdown(struct net_conn *conn)
{
    struct conn_real *c = conn_of(conn);

    if (c->shared != NULL) {
        net_shared_shutdown(c);
        return;
    }
    (void)shutdown(c->fd, SHUT_RDWR);
    wake_first(&c->in.waiters, 0);
    wake_first(&c->out.waiters, 0);
}

void real_net_close(struct net_conn *conn)
{
    struct conn_real *c = conn_of(conn);

    ASSERT(list_empty(&c->in.waiters) && list_empty(&c->out.waiters));
    net_dirs_forget(c);
    net_shared_free(c);
    close(c->fd);
    mem_free(c);
}

/* The former loop's libev interest in the descriptor, if any is left in the kernel, goes at the
 * first event that it does not want. */
void real_net_conn_move(struct net_conn *conn, struct co_loop *target)
{
    struct conn_real *c = conn_of(conn);

    ASSERT(list_empty(&c->in.waiters) && list_empty(&c->out.waiters));
    net_dirs_forget(c);
    net_shared_leave(c);
    net_dir_init(&c->in, c->fd, EV_READ);
    net_dir_init(&c->out, c->fd, EV_WRITE);
    conn->loop = target;
}

/* ---- connect ---- */

static int connect_error(const char *addr, int errnum)
{
    return err_set(ERR_UNREACHABLE, "connecting to %s: %s", addr, strerror(errnum));
}

static co_fn int connect_wait(struct conn_real *c, const char *addr)
{
    socklen_t len = sizeof(int);
    int errnum = 0, rc;

    rc = net_dir_wait(&c->out);
    if (rc < 0)
        return err_prefix(rc, "connecting to %s", addr);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
        errnum = errno;
    return errnum == 0 ? 0 : connect_error(addr, errnum);
}

static co_fn int connect_fd(struct conn_real *c, const struct net_addr *to, const char *addr)
{
    int rc;

    while (connect(c->fd, &to->sa, to->len) < 0) {
        switch (errno) {
        case EISCONN:
            return 0;
        case EINTR:
            break;
        case EINPROGRESS:
        case EALREADY:
            return connect_wait(c, addr);
        case EAGAIN: /* a UNIX listener whose queue is full: nothing tells when it is not */
            rc = co_sleep(UNIX_FULL_WAIT);
            if (rc < 0)
                return err_prefix(rc, "connecting to %s", addr);
            break;
        default:
            return connect_error(addr, errno);
        }
    }
    return 0;
}

/* With any port, which is chosen when the peer is known. */
static int connect_bind(int fd, const char *from)
{
    struct net_addr addr;
    int one = 1, rc;

    rc = net_addr_parse(from, &addr);
    if (rc < 0)
        return rc;
    net_addr_any_port(&addr);
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    return bind(fd, &addr.sa, addr.len) < 0 ? err_from_errno(errno, "binding %s", from) : 0;
}

int real_net_connect(struct env *env, const char *from, const char *addr, struct net_conn **ret)
{
    struct net_addr to;
    struct conn_real *c;
    int fd, rc;

    rc = net_addr_parse(addr, &to);
    if (rc < 0)
        return rc;
    fd = socket(to.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno, "socket for %s", addr);
    c = conn_new(env, fd);
    rc = from != NULL ? connect_bind(fd, from) : 0;
    if (rc == 0)
        rc = connect_fd(c, &to, addr);
    if (rc < 0) {
        real_net_close(&c->base);
        return rc;
    }
    conn_name(c);
    *ret = &c->base;
    return 0;
}

/* ---- listen and accept ---- */

static void accept_cb(struct ev_loop *ev, ev_io *w, int revents)
{
    struct listener_real *l = w->data;

    (void)revents;
    wake_first(&l->acceptors, 0);
    if (list_empty(&l->acceptors))
        ev_io_stop(ev, w);
}

/* Does nobody listen on this UNIX socket any more? */
static bool unix_is_stale(const struct net_addr *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool stale;

    if (fd < 0)
        return false;
    stale = connect(fd, &addr->sa, addr->len) < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int listen_fd(int fd, const struct net_addr *addr, const char *text)
{
    int one = 1, rc;

    if (addr->sa.sa_family != AF_UNIX)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (addr->sa.sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    rc = bind(fd, &addr->sa, addr->len);
    if (rc < 0 && errno == EADDRINUSE && addr->sa.sa_family == AF_UNIX && unix_is_stale(addr) &&
        unlink(addr->un.sun_path) == 0)
        rc = bind(fd, &addr->sa, addr->len);
    if (rc < 0 && errno == EADDRINUSE)
        return err_set(ERR_BUSY, "%s is in use by another program", text);
    if (rc < 0)
        return err_from_errno(errno, "binding %s", text);
    if (listen(fd, LISTEN_BACKLOG) < 0)
        return err_from_errno(errno, "listening on %s", text);
    return 0;
}

int real_net_listen(struct env *env, const char *text, struct net_listener **ret)
{
    struct listener_real *l;
    struct net_addr addr;
    int fd, rc;

    rc = net_addr_parse(text, &addr);
    if (rc < 0)
        return rc;
    fd = socket(addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno, "socket for %s", text);
    rc = listen_fd(fd, &addr, text);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    l = MEM_NEW(struct listener_real);
    l->base.env = env;
    l->base.loop = co_loop();
    l->fd = fd;
    list_init(&l->acceptors);
    ev_io_init(&l->io, accept_cb, fd, EV_READ);
    l->io.data = l;
    addr_of(fd, false, l->base.addr);
    if (addr.sa.sa_family == AF_UNIX)
        strcpy(l->unlink_path, addr.un.sun_path);
    *ret = &l->base;
    return 0;
}

/* rc ERR_CLOSED: the listener is gone. */
static co_fn int accept_wait(struct listener_real *l)
{
    struct real_loop *loop = real_loop_self();
    struct co_wait w;
    int rc;

    co_wait_init(&w);
    list_push_back(&l->acceptors, &w.link);
    real_ev_io_start(loop, &l->io);
    rc = co_suspend(&w, CO_INTERRUPTIBLE);
    return rc == ERR_CLOSED ? err_set(rc, "listener closed") : rc;
}

/* Out of descriptors: the connection stays in the queue, so trying at once would spin. Waits in
 * the acceptors' queue, so that closing the listener ends it. */
static co_fn int accept_pause(struct listener_real *l)
{
    nsec_t former = co_deadline(), until = co_now() + FD_SHORTAGE_WAIT;
    struct co_wait w;
    int rc;

    co_wait_init(&w);
    list_push_back(&l->acceptors, &w.link);
    (void)co_deadline_push(until);
    rc = co_suspend(&w, CO_INTERRUPTIBLE);
    co_deadline_restore(former);
    return rc == ERR_TIMEOUT && former > until ? 0 : rc;
}

int real_net_accept(struct net_listener *listener, struct net_conn **ret)
{
    struct listener_real *l = CONTAINER_OF(listener, struct listener_real, base);
    struct env *env = listener->env;
    struct conn_real *c;
    int fd, rc = 0;

    while (rc == 0) {
        fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            c = conn_new(env, fd);
            conn_name(c);
            *ret = &c->base;
            return 0;
        }
        if (errno == EAGAIN)
            rc = accept_wait(l);
        else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            rc = accept_pause(l);
        else if (errno != EINTR && errno != ECONNABORTED && errno != EPROTO)
            return err_from_errno(errno, "accepting on %s", listener->addr);
    }
    return rc;
}

void real_net_listener_close(struct net_listener *listener)
{
    struct listener_real *l = CONTAINER_OF(listener, struct listener_real, base);

    ev_io_stop(loop_of(listener->loop)->ev, &l->io);
    while (!list_empty(&l->acceptors))
        wake_first(&l->acceptors, ERR_CLOSED);
    if (l->unlink_path[0] != '\0')
        (void)unlink(l->unlink_path);
    close(l->fd);
    mem_free(l);
}
