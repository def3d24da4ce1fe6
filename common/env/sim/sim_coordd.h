/* SPDX-License-Identifier: Apache-2.0
 *
 * Twin of the coordination service. Two servers hold the tree: the leader, where every change is
 * decided in one total order, and a follower, which applies the same changes later. A handle is
 * attached to either, by seed: reads of a follower's handle are stale with respect to other
 * handles (but not to its own writes, and not after a sync), as the real service's are.
 *
 * A session lives at the service: it is heard of while its process runs and can reach the
 * service, and expires session_ms after it was last heard of; not while the service itself is
 * unavailable. The handle is the client's view of it: requests leave in order, replies and fired
 * watches return in order, and a connection that breaks ends what is in flight as uncertain. */
#ifndef ZBS_ENV_SIM_COORDD_H
#define ZBS_ENV_SIM_COORDD_H

#include "common/env/sim/sim_internal.h"

/* ---- the tree (sim_coord_tree.c) ---- */

struct coord_node {
    char *name;
    struct coord_node *parent;
    struct coord_node **kids; /* by name */
    uint32_t kid_count, kid_cap;
    void *data;
    size_t len;
    int32_t version;
    int64_t czxid, mzxid;
    uint32_t next_seq;
    uint64_t owner; /* session of an ephemeral, 0: none */
};

struct coord_tree {
    struct coord_node root;
    struct list watches; /* struct coord_watcher */
};

/* How to take a change back, until it is forgotten. */
struct coord_undo {
    enum coord_op_kind kind;
    struct coord_node *node, *parent;
    void *data; /* SET: the former */
    size_t len;
    int32_t version;
    int64_t mzxid;
};

void coord_tree_init(struct coord_tree *t);
void coord_tree_fini(struct coord_tree *t);
struct coord_node *coord_tree_find(struct coord_tree *t, const char *path);
void coord_node_stat(const struct coord_node *n, struct coord_stat *ret);
/* Checks and makes one change (paths are full, kept is what path became). */
int coord_tree_change(struct coord_tree *t, const struct coord_op *op, uint64_t owner, int64_t zxid,
                      struct coord_undo *undo, char **ret_path);
void coord_tree_undo(struct coord_undo *u);
void coord_tree_forget(struct coord_undo *u);
/* Calls fn(arg, path) for each ephemeral of the owner, in order of the tree. */
void coord_tree_owned(struct coord_tree *t, uint64_t owner, void (*fn)(void *arg, char *path),
                      void *arg);

/* ---- requests and watches ---- */

struct coord_msg { /* from the service to the client */
    struct list link;
    nsec_t at;
    bool is_watch;
};

enum coord_request_kind { REQ_GET, REQ_CHILDREN, REQ_SYNC, REQ_MULTI, REQ_WATCH, REQ_CLOSE };

struct coord_request {
    struct list link; /* to the service */
    struct coord_msg msg;
    enum coord_request_kind kind;
    nsec_t at;           /* arrival */
    struct list waiters; /* co_wait of the caller */
    bool done, abandoned;
    int rc;
    char *path;
    struct coord_op *ops; /* own copies */
    int op_count;
    struct coord_watcher *watcher;
    /* results */
    void *data;
    size_t len;
    struct coord_stat stat;
    char *names; /* each with its NUL */
    uint32_t name_count;
    char *real_path;
};

struct coord_watcher {
    struct list link;        /* of the tree, until it fires */
    struct list handle_link; /* of the handle */
    struct coord_msg msg;
    struct sim_coord *handle;
    enum coord_watch_kind kind;
    char *path;
    struct coord_watch *watch; /* NULL: cancelled */
};

/* ---- sessions and handles ---- */

struct coord_session {
    struct list link;
    uint64_t id;
    struct sim_proc *proc;
    uint32_t ms;
    nsec_t last_heard;
    bool dead;
    struct sim_coord *handle; /* NULL: its process is gone */
    struct sim_event tick_ev;
};

#define COORD_HOSTS_MAX 5

struct sim_coord {
    struct coord base; /* first */
    struct list link;
    struct sim_proc *proc;
    struct sim_coordd *d;
    struct coord_session *session; /* NULL before the first connection */
    uint32_t session_ms;
    enum coord_state state;
    bool follower; /* attached to it */
    struct list to_server, out, unsent, watchers, state_waiters;
    struct sim_event req_ev, out_ev, conn_ev;
    nsec_t last_arrive, last_reply;
    nsec_t follower_at;   /* when the follower has this handle's last write */
    nsec_t stalled_since; /* 0: not */
    char hosts[COORD_HOSTS_MAX][SIM_HOST_MAX];
    int host_count;
    char *root;
};

struct sim_coordd {
    struct sim *sim;
    struct coord_tree leader, follower;
    struct list txns; /* committed, not yet applied by the follower */
    nsec_t txn_last_at;
    struct sim_event follow_ev;
    struct list sessions;
    int64_t zxid;
    uint64_t next_session;
    bool available;
};

/* ---- the service (sim_coord_server.c) ---- */

/* All or nothing; returns the rc of the first that fails and sets its ops[i].rc. Returns when the
 * follower will have it in *ret_at. */
int coordd_commit(struct sim_coordd *d, struct coord_op *ops, int n, uint64_t owner, nsec_t *ret_at,
                  char **ret_path, struct coord_stat *ret_stat);
int coordd_execute(struct sim_coord *h, struct coord_request *r);
bool coordd_is_write(const struct coord_request *r);
void coordd_session_new(struct sim_coord *h);
/* Frees it if it is over and has no handle. */
void coordd_session_release(struct coord_session *ss);
nsec_t coordd_delay(struct sim *s);

/* ---- the client's side (sim_coord_conn.c) ---- */

bool coord_handle_reaches(const struct sim_coord *h);
void coord_handle_connect_later(struct sim_coord *h);
void coord_handle_send(struct sim_coord *h, struct coord_request *r);
void coord_handle_break(struct sim_coord *h);   /* the connection */
void coord_handle_expired(struct sim_coord *h); /* the client learns it */
void coord_handle_free(struct sim_coord *h);
void coord_handle_init(struct sim_coord *h);
void coord_request_complete(struct coord_request *r, int rc);
void coord_request_free(struct coord_request *r);
void coord_watcher_fired(struct coord_watcher *w);
void coord_watcher_free(struct coord_watcher *w);

#endif
