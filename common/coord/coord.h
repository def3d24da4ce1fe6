/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordination service (ZooKeeper; in the simulator an in-memory twin): a tree of small nodes
 * with versions, ephemerals and watches. Design section 6, PROTOCOL 6.
 *
 * Ordering guarantees that callers may rely on: writes through one handle are applied in the
 * order of submission (several may be in flight, from several coroutines); all handles see
 * changes in one total order; a read sees at least all earlier writes of the same handle but may
 * be behind other handles' (use coord_sync first where that matters).
 *
 * A call that ends in ERR_UNCERTAIN may or may not have been applied (the connection broke):
 * read before acting again. ERR_EXPIRED: the session is gone with its ephemerals; close the
 * handle and open another. All calls are interruptible; an interrupted write counts as
 * ERR_UNCERTAIN whatever the code says.
 *
 * A handle belongs to the loop that opened it. */
#ifndef ZBS_COORD_COORD_H
#define ZBS_COORD_COORD_H

#include "common/co/co.h"

struct coord;

enum coord_state { COORD_CONNECTING, COORD_CONNECTED, COORD_EXPIRED };

struct coord_stat {
    int32_t version;
    int64_t czxid, mzxid; /* order of creation and of last change */
    int32_t children;
    bool ephemeral;
    uint32_t data_len;
};

#define COORD_DATA_MAX  (256u * 1024) /* bytes in one node (PROTOCOL 6.2) */
#define COORD_MULTI_MAX 256           /* operations in one multi */

/* servers: "127.0.0.2:2181,127.0.0.3:2181", numeric. Returns at once; the connection is made (and
 * made again) in the background. root: a path that is put before every path ("/zbs"), "" for
 * none; created when first connected. session_ms: asked of the servers. */
co_fn int coord_open(const char *servers, const char *root, uint32_t session_ms,
                     struct coord **ret) MUST_CHECK;
co_fn void coord_close(struct coord *c); /* ends the session: its ephemerals go */

enum coord_state coord_state(const struct coord *c);
/* Waits until connected; ERR_EXPIRED, ERR_TIMEOUT, ERR_CANCELED. */
co_fn int coord_wait_connected(struct coord *c) MUST_CHECK;

/* *ret_data: mem_ memory, NUL after its end, may be NULL if not wanted. ERR_NOTFOUND. */
co_fn int coord_get(struct coord *c, const char *path, void **ret_data, size_t *ret_len,
                    struct coord_stat *ret_stat) MUST_CHECK;

enum coord_create_flags { COORD_EPHEMERAL = 1, COORD_SEQUENCE = 2 };
/* ret_path (may be NULL): the real path (with the sequence number), mem_ memory. ERR_EXISTS,
 * ERR_NOTFOUND (no parent). */
co_fn int coord_create(struct coord *c, const char *path, const void *data, size_t len,
                       unsigned flags, char **ret_path) MUST_CHECK;
/* version -1: any. ERR_STALE on another version, ERR_NOTFOUND. */
co_fn int coord_set(struct coord *c, const char *path, const void *data, size_t len,
                    int32_t version, struct coord_stat *ret_stat) MUST_CHECK;
co_fn int coord_delete(struct coord *c, const char *path, int32_t version) MUST_CHECK;
/* Names, sorted; *ret is one mem_ block (pointers and strings). For small folders only. */
co_fn int coord_children(struct coord *c, const char *path, char ***ret,
                         uint32_t *ret_n) MUST_CHECK;
/* After it returns, reads of this handle see all writes that completed anywhere before. */
co_fn int coord_sync(struct coord *c, const char *path) MUST_CHECK;

enum coord_op_kind { COORD_OP_CHECK, COORD_OP_CREATE, COORD_OP_SET, COORD_OP_DELETE };
struct coord_op {
    enum coord_op_kind kind;
    const char *path;
    const void *data;
    size_t len;
    int32_t version;     /* CHECK, SET, DELETE; -1: any */
    unsigned flags;      /* CREATE */
    int rc;              /* filled: why this one failed (ERR_STALE, ERR_EXISTS, ERR_NOTFOUND) */
    int32_t ret_version; /* SET: the node's new version */
};
/* All or nothing. Fails with the first op's error. */
co_fn int coord_multi(struct coord *c, struct coord_op *ops, int n) MUST_CHECK;

/* One-shot watches. The event is set (rc 0: changed, ERR_EXPIRED, ERR_CLOSED: session over) on
 * the first change after the call returned; arm again after each. what: data or existence of the
 * node, or its list of children. The watch is in the caller's memory; cancel before freeing. */
enum coord_watch_kind { COORD_WATCH_NODE, COORD_WATCH_CHILDREN };
struct coord_watch {
    struct list link;
    struct coord *coord;
    bool fired;
    int rc;
    struct list waiters;
    void *priv;
};
co_fn int coord_watch_arm(struct coord *c, struct coord_watch *w, enum coord_watch_kind kind,
                          const char *path) MUST_CHECK;
co_fn int coord_watch_wait(struct coord_watch *w);
void coord_watch_cancel(struct coord_watch *w);

#endif
