/* SPDX-License-Identifier: Apache-2.0
 *
 * The table behind env.h, coord.h and kv.h. Each implementation fills one; env.c, coord.c and
 * kv.c check arguments at the boundary and dispatch through the running loop's environment.
 * Product code never includes this. */
#ifndef ZBS_ENV_ENV_OPS_H
#define ZBS_ENV_ENV_OPS_H

#include <stdarg.h>
#include "common/coord/coord.h"
#include "common/env/env.h"
#include "common/env/phase.h"
#include "common/kv/kv.h"

struct env;

/* Every object starts with the environment that made it. */
struct disk {
    struct env *env;
    struct co_loop *loop;
    struct disk_info info;
    /* kept by env.c */
    struct list waited; /* struct disk_req, oldest first */
    struct disk_window window;
    struct disk_overlay *overlay; /* NULL: none */
};
struct net_listener {
    struct env *env;
    struct co_loop *loop;
    char addr[NET_ADDR_MAX];
};
struct net_conn {
    struct env *env;
    struct co_loop *loop;
    char local[NET_ADDR_MAX], peer[NET_ADDR_MAX];
    bool reading, writing, shut; /* boundary checks */
    bool shared;                 /* net_share or net_share_take succeeded */
    struct tls_stream *tls;      /* net_tls_accept or net_tls_connect was called; NULL: plain */
};
struct net_dgram {
    struct env *env;
    struct co_loop *loop;
    char addr[NET_ADDR_MAX];
    bool receiving; /* boundary check */
};
struct coord {
    struct env *env;
    struct co_loop *loop;
};
struct kv {
    struct env *env;
    struct co_loop *loop;
};

/* Contract of the table, beyond the public headers: out pointers are never NULL (env.c, coord.c
 * and kv.c pass their own) and are set on success only; coord paths are valid and still without
 * the root; a failing call sets the error text, except disk_submit, whose text disk_wait makes. */
struct env_ops {
    uint64_t (*random)(struct env *);
    void (*random_bytes)(struct env *, void *dst, size_t len);
    int64_t (*wall_ns)(struct env *);
    void (*halt)(struct env *, const char *reason); /* does not return */
    int (*lock_file)(struct env *, const char *path);
    int (*file_read)(struct env *, const char *path, char **ret, size_t *ret_len);
    int (*file_write)(struct env *, const char *path, const void *data, size_t len);

    int (*thread_start)(struct env *, const char *name, struct co_loop **ret);
    void (*thread_stop)(struct env *, struct co_loop *loop);
    struct co_loop *(*pool)(struct env *);

    int (*disk_open)(struct env *, const char *path, unsigned flags, struct disk **ret);
    void (*disk_close)(struct disk *);
    /* Checked and initialised by disk_submit. Completes with latency_ns (may be left 0) and rc
     * set, then co_resume(&r->wait, rc). */
    void (*disk_submit)(struct disk_req *);
    int (*disk_probe)(struct env *, const char *path);

    int (*net_listen)(struct env *, const char *addr, struct net_listener **ret);
    int (*net_accept)(struct net_listener *, struct net_conn **ret);
    void (*net_listener_close)(struct net_listener *);
    /* from: NULL: any address */
    int (*net_connect)(struct env *, const char *from, const char *addr, struct net_conn **ret);
    ssize_t (*net_readv)(struct net_conn *, const struct iovec *, int n);
    ssize_t (*net_writev)(struct net_conn *, const struct iovec *, int n); /* some, at least 1 */
    bool (*net_readable)(struct net_conn *);
    void (*net_shutdown)(struct net_conn *);
    void (*net_close)(struct net_conn *);
    void (*net_conn_move)(struct net_conn *, struct co_loop *target);
    bool (*net_can_share)(struct net_conn *); /* NULL: never, and the next four are not called */
    int (*net_share)(struct net_conn *);
    int (*net_share_take)(struct net_conn *);
    bool (*net_peer_arena)(struct net_conn *, struct net_arena *ret);
    int (*net_wait_end)(struct net_conn *);
    int (*net_dgram_open)(struct env *, const char *addr, struct net_dgram **ret);
    ssize_t (*net_dgram_recv)(struct net_dgram *, void *dst, size_t len, struct net_way *ret);
    void (*net_dgram_send)(struct net_dgram *, const void *src, size_t len, const struct net_way *);
    void (*net_dgram_close)(struct net_dgram *);

    int (*coord_open)(struct env *, const char *servers, const char *root, uint32_t session_ms,
                      struct coord **ret);
    void (*coord_close)(struct coord *);
    enum coord_state (*coord_state)(const struct coord *);
    int (*coord_wait_connected)(struct coord *);
    int (*coord_get)(struct coord *, const char *, void **, size_t *, struct coord_stat *);
    int (*coord_children)(struct coord *, const char *, char ***, uint32_t *);
    int (*coord_sync)(struct coord *, const char *);
    /* create, set and delete too: with one op, and single set so that errors are the op's own */
    int (*coord_multi)(struct coord *, struct coord_op *ops, int n, bool single, char **ret_path,
                       struct coord_stat *ret_stat);
    int (*coord_watch_arm)(struct coord *, struct coord_watch *, enum coord_watch_kind,
                           const char *);
    void (*coord_watch_cancel)(struct coord_watch *);

    int (*kv_open)(struct env *, const char *path, struct kv **ret);
    void (*kv_close)(struct kv *);
    int (*kv_get)(struct kv *, const void *, size_t, void **, size_t *);
    int (*kv_write)(struct kv *, const struct kv_batch *, bool sync);
    int (*kv_scan)(struct kv *, const void *, size_t, const void *, size_t, kv_scan_fn, void *);
    int (*kv_clear)(struct kv *);
};

struct env {
    const struct env_ops *ops;
    const char *name; /* of the process, for logs */
#ifdef ZBS_MUTATE
    uint32_t phases[PHASES]; /* how often it is in each (phase.h) */
#endif
};

/* For the implementations: ends a watch, once; unlinks it and wakes who waits in
 * coord_watch_wait. On the watch's loop, also outside coroutines. coord_watch_arm has initialised
 * the watch (link, waiters, coord) before the implementation sees it. */
void coord_watch_fire(struct coord_watch *w, int rc);

/* A batch is a list of operations that both stores replay (common/kv/kv.c). */
struct kv_batch_iter {
    const uint8_t *pos, *end;
};
struct kv_batch_item {
    bool is_delete;
    const void *key, *val;
    size_t key_len, val_len;
};
void kv_batch_iter_init(struct kv_batch_iter *it, const struct kv_batch *b);
bool kv_batch_iter_next(struct kv_batch_iter *it, struct kv_batch_item *ret);

#endif
