/* SPDX-License-Identifier: Apache-2.0
 *
 * One meta server: what its parts share. Everything runs on one loop.
 *
 *   server.c  start, and the change between the two roles
 *   zk.c      the nodes in ZooKeeper
 *   follow.c  standby: follows the log, takes over when the leader is silent
 *   snapshot.c a server with a gap: loads the state from another one
 *   lead.c    leader: its term, authority, the appending of the log
 *   upkeep.c  leader: expiry, sweeping, trimming
 *   live.c    leader: who was heard from, what they said (never in the log)
 *   tasks.c   leader: what sessions are asked to do
 *   svc.c     the Meta service;  status.c its reports
 *   peer.c    the MetaPeer service and its callers */
#ifndef ZBS_META_SERVER_H
#define ZBS_META_SERVER_H

#include "common/co/sync.h"
#include "common/coord/coord.h"
#include "common/env/phase.h"
#include "common/kv/kv.h"
#include "common/rpc/rpc.h"
#include "meta/metad.h"
#include "meta/state.h"
#include "proto/meta.pb-c.h"
#include "proto/metalog.pb-c.h"

enum role { ROLE_STANDBY, ROLE_LEADER };

/* Another configured meta server, as last seen. */
struct peer {
    struct metad *m;
    char *addr;
    struct rpc_client *client;
    char name[NAME_BYTES_MAX + 1];
    bool alive; /* the last call was answered */
    uint64_t applied, synced;
};

/* Sizes of log entries, for the bound on the untrimmed log. */
struct log_sizes {
    uint64_t first; /* index of sizes[0] */
    uint32_t *sizes;
    uint32_t count, cap;
    uint64_t sum;
};

struct metad {
    struct metad_conf conf; /* defaults filled in */
    struct kv *kv;
    struct coord *coord; /* NULL: none open */
    struct rpc_server *rpc;
    struct rpc_service services[3]; /* the last one ends the list */
    const struct rpc_service *instances[1];
    struct peer peers[PEERS_MAX]; /* without ourselves */
    uint32_t n_peers;
    struct co_group group;

    struct state st;     /* the leader's is ahead of `applied` */
    uint64_t applied;    /* log index in the store */
    uint64_t synced;     /* durable there */
    bool loading;        /* a snapshot, from another server: the store is not whole */
    bool st_moving;      /* standby: st is between two positions */
    uint64_t entry_term; /* term of the last entry applied */
    struct log_sizes log_sizes;

    enum role role;
    struct lead *lead;      /* while leader */
    struct co_cond changed; /* of lead, and of anything in it that requests wait for */
    uint64_t term;          /* as last read or taken */
    char leader_addr[ADDR_BYTES_MAX + 1]; /* "" unknown */
    char leader_name[NAME_BYTES_MAX + 1];
    bool is_ready;       /* conf.ready was called */
    char cluster_id[40]; /* as ZooKeeper has it */
    bool announced;      /* our ephemeral node belongs to the present session */
    nsec_t zk_lost;      /* when ZooKeeper was first found not connected; 0: it was connected */
    nsec_t complained;   /* last log line about ZooKeeper being absent */

    struct snapshots *snapshots; /* being given to peers */
};

static inline uint32_t metad_majority(const struct metad *m)
{
    return (m->n_peers + 1) / 2 + 1;
}
void metad_set_ready(struct metad *m);
/* Reads state and position from the store; what was in memory is discarded. */
co_fn int metad_load(struct metad *m) MUST_CHECK;

void log_sizes_add(struct log_sizes *l, uint64_t index, size_t bytes);
void log_sizes_trim(struct log_sizes *l, uint64_t below);
void log_sizes_fini(struct log_sizes *l);

/* ---- zk.c: errors as in coord.h ---- */

/* Makes sure that there is a connected session; opens a new one in place of an expired one. At
 * most about half a second. Nobody else may be using m->coord. */
co_fn int zk_ready(struct metad *m) MUST_CHECK;
void zk_close(struct metad *m);
/* Creates the cluster's nodes if there are none yet, and checks that they are ours. ERR_AGAIN:
 * not possible yet (other servers must be asked first and are not there). */
co_fn int zk_bootstrap(struct metad *m) MUST_CHECK;
/* A discovery node for this server, once per session. Best effort. */
co_fn void zk_announce(struct metad *m);

struct zk_term {
    uint64_t term;
    char name[NAME_BYTES_MAX + 1], addr[ADDR_BYTES_MAX + 1];
    int32_t version; /* of the node */
};
co_fn int zk_term_read(struct metad *m, struct zk_term *ret) MUST_CHECK;
/* Compare-and-set; t->version is the one expected and becomes the new one. */
co_fn int zk_term_write(struct metad *m, struct zk_term *t) MUST_CHECK;

struct zk_beat {
    uint64_t term, head;
    char name[NAME_BYTES_MAX + 1], addr[ADDR_BYTES_MAX + 1];
    int64_t change; /* grows with every write of it */
};
co_fn int zk_beat_read(struct metad *m, struct zk_beat *ret) MUST_CHECK;
co_fn int zk_beat_write(struct metad *m, int32_t term_version, const struct zk_beat *b) MUST_CHECK;

/* Highest index in the log, and the node's version. After a sync, so it is the present one. */
co_fn int zk_head_read(struct metad *m, uint64_t *ret_index, int32_t *ret_version) MUST_CHECK;
/* Lowest index that the log still has (head + 1 if it has none). */
co_fn int zk_tail_read(struct metad *m, uint64_t *ret_index) MUST_CHECK;
/* mem_ memory. */
co_fn int zk_entry_read(struct metad *m, uint64_t index, uint8_t **ret, size_t *ret_len) MUST_CHECK;
/* Sends before it first suspends. */
co_fn int zk_append(struct metad *m, int32_t term_version, int32_t head_version, uint64_t index,
                    const void *bytes, size_t len) MUST_CHECK;
/* Deletes from .. from + n - 1, n <= ZK_TRIM_MAX. */
#define ZK_TRIM_MAX 200u
co_fn int zk_trim(struct metad *m, int32_t term_version, uint64_t from, uint32_t n) MUST_CHECK;

/* ---- follow.c ---- */

/* Returns 0 once the term is ours: *ret_term holds it, *ret_since when its write was confirmed.
 * Else ERR_CANCELED. */
co_fn int follow_run(struct metad *m, struct zk_term *ret_term, nsec_t *ret_since) MUST_CHECK;

/* ---- snapshot.c ---- */
co_fn int snapshot_load(struct metad *m) MUST_CHECK;
int snapshot_give(struct rpc_request *q);
struct snapshots *snapshots_new(void);
co_fn void snapshots_close(struct snapshots *s);

/* ---- peer.c ---- */
int peers_init(struct metad *m) MUST_CHECK;
co_fn void peers_close(struct metad *m);
/* Asks all for their state, at most `patience`; fills the peers' fields. Returns how many
 * answered. */
co_fn uint32_t peers_ask(struct metad *m, nsec_t patience);
int peer_state(struct rpc_request *q);

/* ---- svc.c ---- */
extern const struct rpc_method svc_meta_methods[];
extern const struct rpc_method svc_peer_methods[];

#endif
