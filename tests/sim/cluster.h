/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole cluster in a simulated world: three hosts, each with a meta, a chunk and an access
 * server, whose code is that of production. All memory here is the world's, none a process's. */
#ifndef ZBS_TESTS_SIM_CLUSTER_H
#define ZBS_TESTS_SIM_CLUSTER_H

#include "access/accessd.h"
#include "chunk/chunkd.h"
#include "common/env/sim.h"
#include "meta/metad.h"
#include "tests/sim/history.h"
#include "tests/sim/scenario.h"

#define DISKS_MAX  3 /* of a chunk server: one or two are configured, one more may be added */
#define DISK_ADDED (DISKS_MAX - 1)
#define EXTRAS_MAX 16
#define FROZEN_MAX 1024

struct cluster;

struct node {
    struct cluster *cluster;
    uint32_t index; /* from 0 */
    char addr[32], host[32], names[ROLES][32], listen[ROLES][40], nfs_listen[40];
    struct sim_proc *procs[ROLES];
    struct metad_conf meta;
    struct chunkd_conf chunk;
    struct accessd_conf access;
    struct vol_engine *engine; /* of the running access server */
    uint32_t moves;            /* of the chunk server to another address */
    bool added;                /* it has one disk more than it was configured with */
};

/* What a sector of a snapshot was found to hold, for ever. */
struct frozen {
    uint64_t sector, value; /* sector + 1; 0: none */
};

/* A volume beside the main one; it comes and goes. Volume number 0 is the main one, n + 1 this one
 * at n. In the history the sectors of a volume begin at SECTOR_OF(space); what it had when that
 * space began is zeroes, or what snapshot `base` holds. */
struct extra {
    char name[32];
    uint64_t id;
    bool there; /* certainly created, nobody has begun to delete it */
    bool snapshot;
    bool rolled_back;      /* or may be: it was asked for */
    uint32_t space, base;  /* base: 0: none, n + 1: the snapshot at n */
    uint32_t of, space_of; /* a snapshot's volume, by number and by space */
    uint64_t call, ret;    /* a snapshot's: when it was taken */
    struct frozen *frozen; /* FROZEN_MAX, of a snapshot */
};

struct workload;
struct files;

struct cluster {
    struct sim *sim;
    uint64_t seed;
    struct node nodes[HOSTS];
    char metas[128];
    uint32_t disks;    /* of each chunk server */
    bool small;        /* the disks: they become full */
    bool fragile;      /* a host may lose or spoil what it holds: the others must hold it, too */
    uint32_t replicas; /* of the volume, as it was created */
    uint64_t volume_id, size_bytes, size_asked, used_at_first;
    struct extra extras[EXTRAS_MAX];
    uint32_t n_extras, n_spaces;
    struct history *history;
    struct workload *workload;
    struct files *files; /* NULL: this seed has none */
    uint64_t watch;      /* sector whose operations are noted in the trace; UINT64_MAX: none */
    char failure[512];   /* first violation found while running; "" so far */
};

/* Builds the world and formats the disks; nothing runs yet. */
struct cluster *cluster_new(const struct scenario *s, bool trace);
void cluster_free(struct cluster *c);

/* The device path of a server's disk number i. */
const char *cluster_disk(uint32_t i);
/* Has that server it? */
bool cluster_has_disk(const struct node *n, uint32_t i);

/* Nothing if it runs. */
void cluster_start(struct cluster *c, uint32_t node, enum role role);
/* Starts everything that does not run and resumes what is paused. */
void cluster_start_all(struct cluster *c);

/* From a control coroutine: waits until every chunk server is there and every extent has all its
 * replicas in-sync. */
co_fn int cluster_wait_in_sync(struct cluster *c, nsec_t limit);

/* From a control coroutine: has the owners compare all replicas; 0 if equal, else
 * cluster->failure says what differs. */
co_fn int cluster_verify(struct cluster *c);

/* From a control coroutine: the node whose meta server says that it leads; HOSTS if none does. */
co_fn uint32_t cluster_leader(struct cluster *c);

/* Do meta servers with the same applied index hold equal states? (invariant 7) */
co_fn int cluster_check_metas(struct cluster *c);

/* Records the first violation. */
void cluster_fail(struct cluster *c, const char *fmt, ...) PRINTF_FMT(2, 3);

/* Called by an access server when its engine runs (accessd_conf.engine_ready). */
void workload_engine_ready(void *arg, struct vol_engine *engine);
/* Called by one that ends in peace (accessd_conf.engine_stopping). */
co_fn void workload_engine_stopping(void *arg);

#endif
