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

#define HOSTS      3
#define DISK_PATH  "/dev/disk"
#define DISK_BYTES (4096ull * 1024 * 1024)

enum role { ROLE_META, ROLE_CHUNK, ROLE_ACCESS, ROLES };

struct cluster;

struct node {
    struct cluster *cluster;
    uint32_t index; /* from 0 */
    char addr[32], host[32], names[ROLES][32], listen[ROLES][40];
    struct sim_proc *procs[ROLES];
    struct metad_conf meta;
    struct chunkd_conf chunk;
    struct accessd_conf access;
    struct vol_engine *engine; /* of the running access server */
};

struct workload;

struct cluster {
    struct sim *sim;
    uint64_t seed;
    struct node nodes[HOSTS];
    char metas[128];
    uint64_t volume_id;
    struct history *history;
    struct workload *workload;
    uint64_t watch;    /* sector whose operations are noted in the trace; UINT64_MAX: none */
    char failure[512]; /* first violation found while running; "" so far */
};

/* Builds the world and formats the disks; nothing runs yet. */
struct cluster *cluster_new(const struct sim_conf *conf);
void cluster_free(struct cluster *c);

void cluster_start(struct cluster *c, uint32_t node, enum role role);
/* Starts everything that does not run and resumes what is paused. */
void cluster_start_all(struct cluster *c);

/* Creates pool and volume through the meta leader; call from a control coroutine. */
co_fn int cluster_create_volume(struct cluster *c, uint32_t replicas, uint64_t size_bytes);

/* From a control coroutine: waits until every extent has all its replicas in-sync. */
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

#endif
