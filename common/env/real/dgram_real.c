/* SPDX-License-Identifier: Apache-2.0
 *
 * Datagrams of the real environment: non-blocking UDP sockets. The kernel is asked at which address
 * each came in, and told from which one its answer is to leave: a socket at all addresses of a host
 * would else answer from one that the client has not asked. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/real/net_addr.h"
#include "common/env/real/net_real.h"

struct dgram_real {
    struct net_dgram base; /* must be first */
    int fd;
    struct net_addr addr;
    struct net_dir in;
};

/* What comes with a datagram beside its bytes. */
union control {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo))];
};

static struct dgram_real *dgram_of(struct net_dgram *d)
{
    return CONTAINER_OF(d, struct dgram_real, base);
}

/* ---- open and close ---- */

static int dgram_bind(int fd, const struct net_addr *addr, const char *text)
{
    bool v6 = addr->sa.sa_family == AF_INET6;
    int one = 1;

    if (v6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVPKTINFO : IP_PKTINFO, &one,
                   sizeof(one)) < 0)
        return err_from_errno(errno, "socket for %s", text);
    if (bind(fd, &addr->sa, addr->len) == 0)
        return 0;
    if (errno == EADDRINUSE)
        return err_set(ERR_BUSY, "%s is in use by another program", text);
    return err_from_errno(errno, "binding %s", text);
}

int real_net_dgram_open(struct env *env, const char *text, struct net_dgram **ret)
{
    struct dgram_real *d;
    struct net_addr addr;
    int fd, rc;

    rc = net_addr_parse(text, &addr);
    if (rc < 0)
        return rc;
    fd = socket(addr.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno, "socket for %s", text);
    rc = dgram_bind(fd, &addr, text);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    d = MEM_NEW(struct dgram_real);
    d->base.env = env;
    d->base.loop = co_loop();
    d->fd = fd;
    d->addr.len = sizeof(d->addr.storage);
    if (getsockname(fd, &d->addr.sa, &d->addr.len) < 0)
        d->addr = addr;
    net_addr_format(&d->addr, d->base.addr);
    net_dir_init(&d->in, fd, EV_READ);
    *ret = &d->base;
    return 0;
}

void real_net_dgram_close(struct net_dgram *base)
{
    struct dgram_real *d = dgram_of(base);

    ASSERT(list_empty(&d->in.waiters));
    real_edge_forget(co_loop_driver(base->loop), &d->in.edge);
    close(d->fd);
    mem_free(d);
}

/* ---- receiving ---- */

/* The address that it came to, with our port. */
static void local_of(const struct dgram_real *d, struct msghdr *msg, char ret[NET_ADDR_MAX])
{
    struct net_addr a = d->addr;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;

            memcpy(&info, CMSG_DATA(c), sizeof(info));
            ((struct sockaddr_in *)(void *)&a.storage)->sin_addr = info.ipi_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;

            memcpy(&info, CMSG_DATA(c), sizeof(info));
            ((struct sockaddr_in6 *)(void *)&a.storage)->sin6_addr = info.ipi6_addr;
        }
    }
    net_addr_format(&a, ret);
}

ssize_t real_net_dgram_recv(struct net_dgram *base, void *dst, size_t len, struct net_way *ret)
{
    struct dgram_real *d = dgram_of(base);
    int rc = net_dir_burst(&d->in);

    while (rc == 0) {
        struct net_addr from = {.len = sizeof(from.storage)};
        struct iovec iov = {dst, len};
        union control control;
        struct msghdr msg = {.msg_name = &from.storage,
                             .msg_namelen = sizeof(from.storage),
                             .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
        ssize_t got = recvmsg(d->fd, &msg, 0);

        if (got >= 0) {
            from.len = msg.msg_namelen;
            net_addr_format(&from, ret->peer);
            local_of(d, &msg, ret->local);
            return got;
        }
        if (errno == EAGAIN)
            rc = net_dir_wait(&d->in);
        else if (errno != EINTR && errno != ECONNREFUSED && errno != EHOSTUNREACH &&
                 errno != ENETUNREACH) /* the fate of one that was sent before */
            return err_from_errno(errno, "receiving at %s", base->addr);
    }
    return rc;
}

/* ---- sending ---- */

/* Bytes of it that are used. */
static size_t control_put(union control *control, const struct net_addr *from)
{
    struct msghdr msg = {.msg_control = control->bytes, .msg_controllen = sizeof(control->bytes)};
    const struct sockaddr_in *in4 = (const void *)&from->storage;
    const struct sockaddr_in6 *in6 = (const void *)&from->storage;
    struct in_pktinfo info4 = {.ipi_spec_dst = in4->sin_addr};
    struct in6_pktinfo info6 = {.ipi6_addr = in6->sin6_addr};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    bool v6 = from->sa.sa_family == AF_INET6;
    size_t len = v6 ? sizeof(info6) : sizeof(info4);

    memset(control, 0, sizeof(*control));
    c->cmsg_level = v6 ? IPPROTO_IPV6 : IPPROTO_IP;
    c->cmsg_type = v6 ? IPV6_PKTINFO : IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), v6 ? (const void *)&info6 : &info4, len);
    return CMSG_SPACE(len);
}

void real_net_dgram_send(struct net_dgram *base, const void *src, size_t len,
                         const struct net_way *way)
{
    struct dgram_real *d = dgram_of(base);
    struct iovec iov = {(void *)(uintptr_t)src, len};
    struct net_addr to, from;
    union control control;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (net_addr_parse(way->peer, &to) < 0 || to.sa.sa_family != d->addr.sa.sa_family)
        return;
    msg.msg_name = &to.storage;
    msg.msg_namelen = to.len;
    if (way->local[0] != '\0' && net_addr_parse(way->local, &from) == 0 &&
        from.sa.sa_family == to.sa.sa_family) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = control_put(&control, &from);
    }
    while (sendmsg(d->fd, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}
