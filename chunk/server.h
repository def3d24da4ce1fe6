/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk server around its engines: disks, workers, RPC service, heartbeats. Everything in
 * struct server belongs to the main loop, apart from what is fixed before the workers start. */
#ifndef ZBS_CHUNK_SERVER_H
#define ZBS_CHUNK_SERVER_H

#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/cluster/meta_client.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/rpc/rpc.h"
#include "proto/chunk.pb-c.h"

struct server;

struct worker {
    struct server *server;
    uint32_t index;
    struct co_loop *loop;
    struct engine *engine;          /* used on loop */
    struct rpc_service services[2]; /* ended by an empty one */
};
struct server_disk {
    char *path;
    struct super_block sb;
    struct disk *guard; /* open exclusively, so that nobody else uses the device */
    bool taken;         /* it is one of this server's */
    bool bad;           /* found unusable at start: in no worker, no guard */
    bool isolated;      /* while it was running */
    char why[256];      /* it is bad or isolated */
    /* health.c */
    uint32_t errors, error_windows, slow_windows;
    char slow[200]; /* it is slow, and serves nevertheless; "": it is not */
};
struct server {
    const struct chunkd_conf *conf;
    struct co_loop *loop; /* the main one */
    uint64_t incarnation;
    uint8_t uuid[16];
    uint32_t chunk_id;   /* 0: not given yet */
    char cluster_id[64]; /* "": not registered yet */
    uint32_t n_workers;
    struct worker *workers;
    struct server_disk disks[CHUNKD_DISKS_MAX];
    uint32_t n_disks, n_bad;
    bool disks_busy;     /* somebody changes the list, or a superblock: one at a time */
    bool disks_checking; /* somebody goes through the list (health.c) */
    struct co_cond disks_free;
    bool disk_failed; /* a worker says so */
    nsec_t resumed;   /* when this process was last found to have been stopped */
    struct co_cond health_work;
    struct rpc_server *rpc;
};

/* What is told about a disk, summed over the workers. The strings live as long as the array. */
struct disk_view {
    uint8_t uuid[16];
    char path[256], model[64], error[256];
    char journal_on[256]; /* the disk that has its journals; "": itself */
    uint64_t size_bytes, used_bytes, extents;
    uint64_t reserved_bytes; /* of used_bytes: promised, and nothing is there yet */
    uint32_t state;          /* enum disk_state */
    uint32_t drain;          /* enum drain */
};
/* *ret: mem_ memory. */
co_fn uint32_t server_disk_views(struct server *s, struct disk_view **ret);
void disk_view_message(const struct disk_view *v, Zbs__Chunk__Disk *m);

/* devices.c. load: finds the server's disks and who it is. open: gives them to the workers. A disk
 * that is bad is left out; an error if none is good. */
co_fn int disks_load(struct server *s) MUST_CHECK;
co_fn int disks_open(struct server *s) MUST_CHECK;
co_fn void disks_close(struct server *s); /* the workers have ended */

bool disk_known(const struct server *s, const char *path);
struct server_disk *disk_new(struct server *s, const char *path);
co_fn void disk_drop(struct server *s, struct server_disk *sd); /* the others move up */
/* Opens a device for this server alone and reads its superblock. */
co_fn int disk_read_super(struct server_disk *sd) MUST_CHECK;
/* Is it one of this server's, and like the others? */
int disk_check(const struct server *s, const struct server_disk *sd) MUST_CHECK;
void disk_take(struct server *s, struct server_disk *sd);
bool disk_serves(const struct server_disk *sd);
/* The disk that has this one's journals; NULL: it has them itself, or the server has no such disk.
 */
struct server_disk *disk_host(struct server *s, const struct server_disk *sd);
co_fn int workers_disk_add(struct server *s,
                           const struct server_disk *sd) MUST_CHECK; /* its host is open */
co_fn void workers_tell_absent(struct server *s);
char *disks_file(const struct server *s);
co_fn void disks_lock(struct server *s);
void disks_unlock(struct server *s);

/* devices_change.c. Adds a device to the running server; formats it unless it is one of this
 * server's. */
struct disk_add {
    const char *path;
    const char *journal_on; /* the disk to have its journals; NULL or "": itself */
    uint32_t guests;        /* room for the journals of so many others */
    bool force;             /* also if it carries data */
};
co_fn int server_disk_add(struct server *s, const struct disk_add *a) MUST_CHECK;
co_fn int server_disk_drain(struct server *s, const char *path, bool cancel,
                            bool copies) MUST_CHECK;
/* force: also one that has failed, whose replicas are given up. */
co_fn int server_disk_remove(struct server *s, const char *path, bool force,
                             bool *ret_configured) MUST_CHECK;
co_fn void drains_resume(struct server *s); /* those that a former run began */
/* Writes chunk id and cluster id to all superblocks: an error if none could be written. */
co_fn int server_identity_save(struct server *s) MUST_CHECK;

/* health.c: a coroutine's body, until cancelled. */
co_fn int health_main(void *server);
void health_dev_failed(void *server); /* for engine_conf */
co_fn void server_disk_isolate(struct server *s, struct server_disk *sd, const char *why);

/* scrub_server.c. A running round takes the new rate. */
co_fn void server_scrub_start(struct server *s, uint64_t bytes_per_s);
co_fn void server_scrub_stop(struct server *s);
/* Sums over the workers; returns how many bad pages were stored. */
co_fn uint32_t server_scrub_view(struct server *s, struct scrub_status *ret,
                                 struct corrupt_page *bad, uint32_t max);
co_fn int scrub_server_main(void *server); /* a coroutine's body, until cancelled */

/* svc_server.c: handlers of requests about the whole server */
co_fn int svc_info(struct rpc_request *q);
co_fn int svc_disk_add(struct rpc_request *q);
co_fn int svc_disk_drain(struct rpc_request *q);
co_fn int svc_disk_remove(struct rpc_request *q);
co_fn int svc_scrub(struct rpc_request *q);

/* svc.c */
extern const struct rpc_method chunk_methods[];

/* heartbeat.c: a coroutine's body, until cancelled. */
co_fn int heartbeat_main(void *server);

#endif
