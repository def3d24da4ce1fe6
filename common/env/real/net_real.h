/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream of the real environment: net_real.c has sockets, net_shared.c what changes when its
 * bytes go through shared memory. */
#ifndef ZBS_ENV_REAL_NET_REAL_H
#define ZBS_ENV_REAL_NET_REAL_H

#include "common/env/real/real.h"

struct net_shared;

/* One direction of a descriptor: at most one coroutine waits for it. */
struct net_dir {
    struct real_edge edge;
    bool ready;          /* was told so while nobody waited */
    struct list waiters; /* of co_wait; 0 or 1 */
    uint32_t burst;
};

struct conn_real {
    struct net_conn base; /* must be first */
    int fd;
    bool empty;                /* nothing was left to read */
    struct net_dir in, out;    /* of the socket */
    struct net_shared *shared; /* NULL: a socket and no more */
};

static inline struct conn_real *conn_of(struct net_conn *c)
{
    return CONTAINER_OF(c, struct conn_real, base);
}

void net_dir_init(struct net_dir *dir, int fd, int events); /* EV_READ or EV_WRITE */
/* Waits until the descriptor is ready, as far as one can know: try again and wait again. */
co_fn int net_dir_wait(struct net_dir *dir);
/* A peer that is always ready must not keep the loop for itself. */
co_fn int net_dir_burst(struct net_dir *dir);
/* Before the descriptor is closed. */
void net_dirs_forget(struct conn_real *c);
int net_stream_error(const struct conn_real *c, int errnum);

co_fn ssize_t net_shared_readv(struct conn_real *c, const struct iovec *iov, int n);
co_fn ssize_t net_shared_writev(struct conn_real *c, const struct iovec *iov, int n);
bool net_shared_readable(const struct conn_real *c);
void net_shared_shutdown(struct conn_real *c);
/* Leaves nothing behind in the loop. This and the next also of a stream that is not shared. */
void net_shared_leave(struct conn_real *c);
void net_shared_free(struct conn_real *c);

#endif
