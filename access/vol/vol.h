/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume engine (design sections 7 and 10): what every protocol front end sees. It knows
 * volumes, bytes and ranges; leases, replicas, epochs, forwarding and recovery stay below.
 *
 * Every call runs in the caller's coroutine and may suspend; many may run at once on one volume.
 * Offsets and lengths are multiples of 512 within the volume's size (ERR_INVAL, ERR_TOO_LARGE
 * beyond). Overlapping calls in flight together are ordered somehow, whole per sector; a call that
 * begins after another returned sees it.
 *
 * The caller's deadline bounds waiting, not writes already sent (PROTOCOL 3.2): an interrupted
 * write has an unknown outcome. Belongs to the loop that created the engine. */
#ifndef ZBS_ACCESS_VOL_VOL_H
#define ZBS_ACCESS_VOL_VOL_H

#include "common/base/buf.h"
#include "common/cluster/layout.h"
#include "common/cluster/meta_client.h"
#include "common/cluster/setting.h"
#include "common/co/co.h"

struct vol_engine;
struct vol;

struct vol_engine_conf {
    const char *name, *host, *rack, *zone;
    const char *rpc_addr;     /* where our Access service listens, for forwarders */
    const char *iscsi_portal; /* told to meta; "" for none */
    uint64_t incarnation;
    bool former_is_dead;         /* the lock file is held: an earlier incarnation ended */
    struct meta_client *meta;    /* shared, outlives the engine */
    uint32_t member_deadline_ms; /* 0: 1000 */
    /* Called on the loop when meta's export table has a newer version. May be NULL. */
    void (*exports_changed)(void *arg, uint64_t version);
    /* What vol_space says, or a setting, may be another. Must not suspend. May be NULL. */
    void (*space_changed)(void *arg);
    /* Another list of portals (vol_engine_portals), perhaps. Must not suspend. May be NULL. */
    void (*portals_changed)(void *arg);
    /* A volume was resized or deleted. May be NULL. */
    void (*volume_changed)(void *arg, uint64_t volume_id);
    /* The session with meta is lost; nothing is served under the next one before this returns. For
     * a front end to forget what it was asked to do so far. Must not suspend. May be NULL. */
    void (*session_expired)(void *arg);
    /* The reservations of these volumes were changed, perhaps by us: 0 once the front end obeys
     * them and nothing else is in flight; otherwise it is asked again. May be NULL. */
    co_fn int (*reservations_changed)(void *arg, const uint64_t *volumes, size_t n);
    /* A write lease of a file is to be given back (FileReturn). Must not suspend. May be NULL. */
    void (*file_recalled)(void *arg, uint64_t inode_id, uint64_t lease);
    void *arg;
};

/* Opens the session with meta (waits for it to be possible) and starts renewing. */
co_fn int vol_engine_start(const struct vol_engine_conf *conf, struct vol_engine **ret) MUST_CHECK;
/* No new I/O (ERR_HALTED); what runs is finished or fails; leases and session are given back. For
 * a server that must end its handlers before the engine goes. Idempotent. */
co_fn void vol_engine_drain(struct vol_engine *e);
/* Drains, frees. Nobody may be calling it. */
co_fn void vol_engine_stop(struct vol_engine *e);
/* A setting of the cluster, as the last renewal had it. */
uint64_t vol_engine_setting(const struct vol_engine *e, enum setting s);
/* Calls fn for the iSCSI portal of each access server that has a session with meta. leaving: it
 * stops soon, or its host is in maintenance. */
void vol_engine_portals(const struct vol_engine *e,
                        void (*fn)(void *arg, const char *portal, bool leaving), void *arg);
/* Announces that this access server stops soon. Returns when the others will have heard of it. */
co_fn void vol_engine_leave(struct vol_engine *e);
uint64_t vol_engine_session(const struct vol_engine *e); /* 0 while there is none */
/* Of the cluster that the first session was opened with. */
const char *vol_engine_cluster_id(const struct vol_engine *e);
/* May a request of unknown age still be executed? 0 if this process ran all the time, or if a
 * renewal that was sent after it had been stopped was confirmed, which is waited for. ERR_EXPIRED:
 * the session ended meanwhile, so others may have served since, and whoever sent the request may
 * have sent it to them. That meta does not answer is no reason to wait (PROTOCOL 1.5). Also
 * ERR_HALTED, ERR_TIMEOUT, ERR_CANCELED. */
co_fn int vol_engine_confirm(struct vol_engine *e) MUST_CHECK;

/* Waits until every access server obeys the reservations up to this version, or its session
 * has ended. ERR_EXPIRED: our session ended first. */
co_fn int vol_engine_reservations_settled(struct vol_engine *e, uint64_t version) MUST_CHECK;
/* Waits until the lease clock is good: until then, what other access servers wait for may be over
 * without us. ERR_EXPIRED as for vol_engine_confirm. */
co_fn int vol_engine_lease_wait(struct vol_engine *e) MUST_CHECK;

struct rpc_service;
/* The Access RPC service (forwarding, status, verify) to be put into this process's RPC server. */
const struct rpc_service *vol_engine_service(struct vol_engine *e);

struct rpc_request;
/* Fills the initiators of a status reply (Zbs__Access__StatusReply). Must not suspend. */
typedef void (*vol_initiators_fn)(void *arg, struct rpc_request *q, void *reply);
void vol_engine_set_initiators(struct vol_engine *e, vol_initiators_fn fn, void *arg);

struct vol_info {
    uint64_t id;
    char pool[64], name[128];
    uint64_t size_bytes;
    uint32_t replicas;
    bool read_only;     /* a snapshot: writes answer ERR_PERM */
    uint64_t importing; /* not 0: so do all but those of this import */
    uint8_t uuid[16];
    struct layout layout;
};

/* ERR_NOTFOUND. One handle per caller; the same volume may be open many times. */
co_fn int vol_open(struct vol_engine *e, uint64_t volume_id, struct vol **ret) MUST_CHECK;
/* For the import of that number (Volume.importing of proto/meta.proto). ERR_STALE: there is none.
 */
co_fn int vol_open_import(struct vol_engine *e, uint64_t volume_id, uint64_t importing,
                          struct vol **ret) MUST_CHECK;
co_fn void vol_close(struct vol *v); /* waits for the handle's calls */
/* Current (a resize is seen after volume_changed, or vol_refresh). */
const struct vol_info *vol_info(const struct vol *v);
/* Asks meta what the volume is like now. */
co_fn int vol_refresh(struct vol *v) MUST_CHECK;

/* Room on the cluster's disks for volumes of as many replicas, and what is left of it, as the last
 * renewals had it. Both 0: not known. */
void vol_space(const struct vol *v, uint64_t *ret_bytes, uint64_t *ret_free);

/* Reads [off, off+len) into dst->data + dst_off. What was never written reads as zeroes. */
co_fn int vol_read(struct vol *v, uint64_t off, uint32_t len, struct buf *dst,
                   uint32_t dst_off) MUST_CHECK;

/* Durable on every in-sync replica when 0 is returned. The bytes must not change until then; the
 * engine takes its own references. ERR_NOSPACE: nothing was applied. ERR_AMBIGUOUS (also of zero
 * and discard): ownership was lost while it was under way, it may or may not have taken effect;
 * never executed twice. */
co_fn int vol_write(struct vol *v, uint64_t off, uint32_t len, struct buf *src,
                    uint32_t src_off) MUST_CHECK;

/* The range reads as zeroes afterwards; whole blocks are freed. len up to the volume's size. */
co_fn int vol_zero(struct vol *v, uint64_t off, uint64_t len) MUST_CHECK;
co_fn int vol_discard(struct vol *v, uint64_t off, uint64_t len) MUST_CHECK;

/* Compares len bytes (512 .. 4096, not crossing a 4 KiB page) with cmp; if equal writes from src;
 * atomic against everything else. ERR_MISCOMPARE with *ret_offset the first differing byte.
 * Never retried inside the cluster: ERR_AMBIGUOUS if the outcome is not known (PROTOCOL 8.2). */
co_fn int vol_compare_and_write(struct vol *v, uint64_t off, uint32_t len, struct buf *cmp,
                                uint32_t cmp_off, struct buf *src, uint32_t src_off,
                                uint32_t *ret_offset) MUST_CHECK;

/* Does the range begin with a hole: extents that nobody has written, ours under a valid lease?
 * *ret_len: how far the answer holds, 1 .. len. What is allocated, and what another access server
 * owns, is no hole, whatever it reads as. len > 0. */
co_fn int vol_hole(struct vol *v, uint64_t off, uint64_t len, bool *ret_hole,
                   uint64_t *ret_len) MUST_CHECK;

/* Acknowledged writes are durable already: returns at once if the handle is healthy. */
co_fn int vol_flush(struct vol *v) MUST_CHECK;

/* For status: counters since start. */
struct vol_engine_stats {
    uint64_t reads, writes, read_bytes, write_bytes;
    uint64_t leases_moved; /* given to a session that did most of a slot's I/O */
    uint32_t extents_owned;
    nsec_t longest_write_ns, longest_read_ns;
};
void vol_engine_stats(const struct vol_engine *e, struct vol_engine_stats *ret);

#endif
