/* SPDX-License-Identifier: Apache-2.0
 *
 * The ZooKeeper handle, shared by coord_zk.c (session), coord_zk_ops.c (reads and writes) and
 * coord_zk_watch.c. */
#ifndef ZBS_ENV_REAL_COORD_ZK_H
#define ZBS_ENV_REAL_COORD_ZK_H

#include <zookeeper/zookeeper.h>
#include "common/co/sync.h"
#include "common/env/real/real.h"

struct coord_zk {
    struct coord base; /* must be first */
    zhandle_t *zh;
    char *root; /* "" or "/zbs" */
    bool root_made;
    bool session_up; /* the client says connected; base state waits for root_made too */
    bool closing;
    enum coord_state state;
    struct co_cond changed;     /* of state */
    struct co_mutex gate;       /* held or waited for by requests until it is connected */
    nsec_t wait_max;            /* how long one of them waits */
    struct co_group group;      /* the driver, and whoever makes the root */
    struct list driver_waiters; /* of co_wait; 0 or 1 */
    int poll_fd;                /* holds the library's descriptor; libev watches it */
    ev_io io;
    int watched_fd, watched_interest;
    uint32_t server_count, failures; /* to connect, in a row */
    bool attempted;                  /* to connect, since the last look at the state */
    nsec_t attempt_max;              /* what one attempt may take */
    nsec_t attempt_until;            /* when the present one is given up; 0: there is none */
    struct list reqs, watches;       /* zk_req, zk_watch */
};

/* A request in the client library. It belongs to the library until its completion came; if the
 * coroutine has gone by then, the completion frees it. */
struct zk_req {
    struct list link; /* coord_zk.reqs until it completed */
    struct coord_zk *zk;
    struct co_wait *wait; /* NULL: nobody waits any more */
    bool done;
    int zrc;
    /* results */
    struct Stat stat;
    void *data; /* mem_ memory */
    size_t len;
    char **names;
    uint32_t count;
    char *path;
    /* multi: what the library writes into at completion */
    zoo_op_t *ops;
    zoo_op_result_t *results;
    struct Stat *stats;
    char *path_room;
    struct zk_watch *watch;       /* arming: which record */
    struct coord_watch *watch_of; /* arming: whose, NULL once given up */
};

static inline struct coord_zk *zk_of(const struct coord *c)
{
    return (struct coord_zk *)(uintptr_t)c;
}

/* ---- session (coord_zk.c) ---- */

/* Has the driver look at the client's interests again: after each submission. */
void zk_kick(struct coord_zk *zk);

/* ---- requests (coord_zk_ops.c) ---- */

/* Full path of the service's tree, mem_ memory. */
char *zk_path(const struct coord_zk *zk, const char *path);
struct zk_req *zk_req_new(struct coord_zk *zk);
void zk_req_free(struct zk_req *req);
/* Called by completions: hands the result over, or frees it if nobody waits. */
void zk_req_complete(struct zk_req *req, int zrc);
/* zrc: what the library's call returned. Waits for the completion unless it failed at once.
 * 0 with req->zrc set (the caller frees req), or an error (req is no longer the caller's). */
co_fn int zk_req_wait(struct zk_req *req, int zrc, bool write, const char *path) MUST_CHECK;
/* 0 if a request may be submitted now. While the client is connecting, waits for it, for a bounded
 * time, and lets requests through in the order they came. */
co_fn int zk_usable(struct coord_zk *zk);
int zk_error(int zrc, bool write, const char *path);
/* Wakes everybody whose request will not complete before the handle goes. */
void zk_reqs_abandon(struct coord_zk *zk);
/* One create without regard to the state, for the root. */
co_fn int zk_create_plain(struct coord_zk *zk, const char *full_path) MUST_CHECK;

/* ---- watches (coord_zk_watch.c) ---- */

void zk_watches_fire(struct coord_zk *zk, int rc); /* all, session over */
void zk_watches_free(struct coord_zk *zk);         /* after the library forgot them */

#endif
