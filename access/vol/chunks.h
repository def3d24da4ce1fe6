/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunk servers as the volume engine sees them: their connections, calls to them, how they fare. */
#ifndef ZBS_ACCESS_VOL_CHUNKS_H
#define ZBS_ACCESS_VOL_CHUNKS_H

#include "common/base/list.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/rpc/rpc.h"
#include "proto/chunk.pb-c.h"
#include "proto/meta.pb-c.h"

struct vol_engine;
struct open_batch;

enum chunk_method {
    CHUNK_INFO,
    CHUNK_CREATE,
    CHUNK_OPEN,
    CHUNK_WRITE,
    CHUNK_READ,
    CHUNK_COMMIT_POINT,
    CHUNK_CHECK_EPOCH,
    CHUNK_RESERVE,
    CHUNK_MISSING_START,
    CHUNK_MISSING_UPDATE,
    CHUNK_MISSING_GET,
    CHUNK_DELETE,
    CHUNK_DIGEST,
    CHUNK_LIST_REPLICAS,
    CHUNK_DISK_ADD,
    CHUNK_SCRUB,
    CHUNK_DISK_DRAIN,
    CHUNK_DISK_REMOVE,
    CHUNK_DIFF,
    CHUNK_REPLICA_RESERVE,
};

/* How clients' requests fare at a server while copies run there (pace.c). */
struct pace {
    nsec_t smooth;    /* latency of late, averaged */
    nsec_t low[2];    /* its lowest in the present and in the former window */
    nsec_t window;    /* begin of the present one */
    nsec_t last;      /* sample */
    nsec_t judged;    /* when the share was last changed */
    uint32_t backoff; /* what is taken from the full share, in 1/256 */
};

struct peer {
    struct chunk *chunk;
    uint32_t worker;
    struct rpc_client *rpc;
    struct list open_queue; /* struct open_call, waiting for the next batch */
    bool open_flusher;
};

struct chunk {
    struct list link;
    struct vol_engine *e;
    uint32_t id;
    char addr[NET_ADDR_MAX];
    char host[64];
    uint32_t workers; /* 0: not in meta's view yet */
    bool local;       /* on our host */
    bool alive;       /* as meta sees it */
    nsec_t alive_changed;
    uint32_t in_flight;
    nsec_t last_heard;   /* any answer */
    nsec_t silent_since; /* sending of the first request that failed since then; 0: none */
    nsec_t last_unheard; /* when a request failed for want of an answer */
    struct pace pace;
    struct peer **peers; /* one for each worker */
    uint32_t n_peers;
};

struct chunk *chunk_get(struct vol_engine *e, uint32_t id); /* makes it if unknown */
void chunks_update(struct vol_engine *e, Zbs__Meta__ChunkView *const *views, size_t n);
void chunks_reset(struct vol_engine *e); /* breaks all connections */
co_fn void chunks_close(struct vol_engine *e);
/* Has it been silent for so long that whoever waits for it may remove it? */
bool chunk_given_up(const struct chunk *c);
/* Whom to read from: the local one first, then the least loaded; those that are silent at present
 * come last. */
static inline uint64_t chunk_read_cost(const struct chunk *c)
{
    return c->in_flight + (c->local ? 0 : UINT64_C(1) << 32) +
           (c->silent_since ? UINT64_C(1) << 33 : 0);
}
/* One call to the worker of a family of extents; at most timeout. Keeps the record of silence. */
co_fn int chunk_call(struct chunk *c, uint64_t family, enum chunk_method method,
                     const ProtobufCMessage *req, struct rpc_payload *out, struct rpc_reply *r,
                     nsec_t timeout) MUST_CHECK;

/* An open, batched with others to the same worker (PROTOCOL 2.6). */
struct open_call {
    struct list link;
    uint64_t extent_id, epoch, family;
    uint32_t credit_blocks;
    bool thaw; /* no volume shares it (any more) */
    struct co_wait wait;
    struct open_batch *batch;             /* keeps result alive until open_call_done */
    const Zbs__Chunk__OpenResult *result; /* valid after 0 and after errors of the item */
    uint64_t incarnation;
};
/* 0, the item's error, or the call's. Always followed by open_call_done. */
co_fn int chunk_open(struct chunk *c, struct open_call *call) MUST_CHECK;
void open_call_done(struct open_call *call);

#endif
