/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the volume engine. The objects, outer to inner:
 *
 *   vol_engine  the session with meta, its lease clock, the views of chunk and access servers
 *   volume      a volume as meta describes it, with its table of slots
 *   slot        one extent slot: who owns it, and the driver that acquires and opens it
 *   tenure      our ownership of a slot's extent at one epoch: members, versions, range lock
 *   op          one versioned write on its way to the members
 *
 * A tenure is lost as a whole (a member refused our epoch, the session expired, ...) and never
 * revived: the slot gets a new one under a new epoch, and what was under way is started again
 * there. That is why everything that must not survive a change of ownership hangs on the tenure.
 *
 * Functions that may suspend are marked co_fn. Error codes with a special meaning in here:
 * ERR_STALE: the tenure is lost (whatever was tried may be tried again under the next one);
 * ERR_NO_REPLICA: the member in question is none any more. */
#ifndef ZBS_ACCESS_VOL_VOL_INT_H
#define ZBS_ACCESS_VOL_VOL_INT_H

#include "access/vol/chunks.h"
#include "access/vol/vol.h"
#include "common/base/assert.h"
#include "common/base/htab.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/mutate.h"
#include "common/base/rangeset.h"
#include "common/base/units.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/phase.h"
#include "common/rpc/rpc.h"
#include <inttypes.h>
#include "proto/access.pb-c.h"
#include "proto/chunk.pb-c.h"
#include "proto/meta.pb-c.h"

#define MEMBERS_MAX    8u             /* replicas of an extent, in the set and absent */
#define OP_BYTES_MAX   (1024u * 1024) /* one write or read of an extent */
#define ZERO_BYTES_MAX (16u << 20)    /* one zero or discard of an extent */
#define OPS_IN_FLIGHT  128u           /* per tenure, those above the commit point included */
#define CREDITS_OPEN   4u             /* blocks asked for at an open */
#define CREDITS_MORE   12u            /* and beyond the need at a reservation */
#define CONFIRMED_KEPT 16u            /* last confirmed writes remembered for each member */
#define COPY_WINDOW    8u             /* copies of one extent in flight to a joining replica */
#define RETRY_PAUSE    (10 * NSEC_PER_MSEC)
#define IDLE_PAUSE     (50 * NSEC_PER_MSEC)
#define OPEN_BATCH     64u

enum io_kind { IO_READ, IO_WRITE, IO_ZERO, IO_DISCARD, IO_COMPARE_AND_WRITE };

/* For what is tried, and does harm to nobody if it fails. */
static inline void best_effort(int rc)
{
    (void)rc;
}

/* ---- versions ---- */

struct ver {
    uint64_t epoch, gen;
};

static inline int ver_cmp(struct ver a, struct ver b)
{
    if (a.epoch != b.epoch)
        return a.epoch < b.epoch ? -1 : 1;
    return a.gen < b.gen ? -1 : a.gen > b.gen;
}
static inline struct ver ver_max(struct ver a, struct ver b)
{
    return ver_cmp(a, b) < 0 ? b : a;
}
static inline struct ver ver_of(const Zbs__Version *v)
{
    return v ? (struct ver){v->epoch, v->gen} : (struct ver){0, 0};
}

/* ---- the engine (engine.c, session.c) ---- */

struct access_peer {
    struct list link;
    uint64_t session;
    char name[64];
    char addr[NET_ADDR_MAX], iscsi_portal[NET_ADDR_MAX];
    struct rpc_client *rpc;
    uint32_t users;
    bool gone;    /* not in meta's view any more */
    bool leaving; /* its iSCSI initiators are to go elsewhere */
};

/* Copying to joining replicas: how much of it at once, and how fast (join.c, pace.c). */
struct recovery {
    uint32_t extents_max; /* at once */
    uint32_t running, waiting;
    struct co_cond room;
    struct list joins;
    uint64_t rate;         /* bytes a second at most */
    nsec_t next;           /* when the next copy may begin */
    nsec_t rate_set;       /* when the rate was last changed */
    uint64_t copied_bytes; /* since the start */
};

struct vol_engine {
    char *name, *host, *rack, *zone, *rpc_addr, *iscsi_portal;
    uint64_t incarnation;
    bool former_is_dead;
    struct meta_client *meta;
    void (*exports_changed)(void *arg, uint64_t version);
    int (*reservations_changed)(void *arg, const uint64_t *volumes, size_t n);
    void (*space_changed)(void *arg);
    void (*portals_changed)(void *arg);
    void (*volume_changed)(void *arg, uint64_t volume_id);
    void (*session_expired)(void *arg);
    void (*file_recalled)(void *arg, uint64_t inode_id, uint64_t lease);
    void *arg;
    nsec_t member_deadline;
    nsec_t boot_wait; /* after the session's begin, for a chunk server that never answered yet */

    uint64_t session; /* 0: none at present */
    nsec_t session_since;
    nsec_t ttl, renew_every;
    nsec_t lease_until; /* 0: no lease */
    nsec_t pulse;       /* when this process certainly ran */
    nsec_t doubted; /* it was stopped until then, and no renewal sent since was confirmed; 0: no */
    struct co_cond lease_changed, renew_wake;
    bool renew_now;
    uint64_t reservations_seen, reservations_settled; /* reserve.c */
    bool reservations_busy;
    struct htab reserved; /* struct reserved, by volume */
    struct list forwards; /* struct io, of other access servers */
    struct co_cond forward_less;
    uint64_t view_version, exports_version, settings_version, volumes_version;
    uint64_t space_bytes, space_free_bytes; /* of healthy disks; 0: not known */
    uint64_t settings[SETTINGS];            /* of the cluster; the defaults until meta was heard */
    char cluster_id[64];
    bool leaving, stopping;

    struct list chunks;
    struct list accesses;
    struct list volumes;
    struct htab volumes_by_id;
    struct volume *extents; /* one of them: shared extents that we work on (recover.c) */
    struct co_group bg;     /* cancelled at stop: timers, drivers, copies */
    struct co_group io;     /* never cancelled: what was sent to members */
    struct list open;       /* slots that serve */
    uint32_t n_open;
    struct list dirty; /* tenures whose members do not all know the commit point */
    struct list op_pool;
    uint32_t op_pool_count;
    struct list clients; /* sessions that forward to us: at-most-once tables */
    uint64_t next_number;
    struct list qos_pools;
    nsec_t qos_reported;
    struct recovery recovery;
    struct co_sem repair_room;
    struct vol_engine_stats stats;
    vol_initiators_fn initiators;
    void *initiators_arg;
    struct rpc_service service;
    struct rpc_method methods[6]; /* by position in the service of proto/access.proto */
};

/* Is the lease certainly good now? (PROTOCOL 1.4) */
bool lease_valid(const struct vol_engine *e);
/* Waits, interruptibly, until lease or session may have changed, and takes over the session's id.
 * ERR_EXPIRED: there was one (*session not 0) and it has ended; ERR_HALTED. */
co_fn int lease_change_wait(struct vol_engine *e, uint64_t *session) MUST_CHECK;
co_fn int meta_session_open(struct vol_engine *e) MUST_CHECK;
int meta_session_renewer(void *arg); /* coroutine */
void meta_session_renew_now(struct vol_engine *e);
void reservations_init(struct vol_engine *e);
void reservations_fini(struct vol_engine *e);
void reservations_renewed(struct vol_engine *e, const Zbs__Meta__SessionRenewReply *a);
struct io;
/* ERR_REFUSED: it was judged by reservations that are not the volume's any more. Of forwarded I/O
 * only: our own front end judges its commands itself. */
int reservations_check(const struct io *io);
/* Around forwarded I/O: what is refused from now on has ended before we say that we obey. */
void reservations_forward_begin(struct io *io);
void reservations_forward_end(struct io *io);
int meta_session_pulse(void *arg); /* coroutine */
/* The session is no more: every tenure is lost. */
void meta_session_lost(struct vol_engine *e, uint64_t session);
struct access_peer *access_find(struct vol_engine *e, uint64_t session);
co_fn void access_peers_close(struct vol_engine *e);

/* Forwarded requests that came in, status, verify (serve.c). */
void serve_init(struct vol_engine *e);
void serve_fini(struct vol_engine *e);
void serve_trim(struct vol_engine *e);
int access_verify(struct rpc_request *q);      /* verify.c */
int access_differences(struct rpc_request *q); /* differ.c */
int access_volume_read(struct rpc_request *q); /* transfer.c */
int access_volume_write(struct rpc_request *q);

/* ---- volumes (volume.c) ---- */

struct volume {
    struct list link;
    struct htab_node by_id; /* not of vol_engine.extents */
    struct vol_engine *e;
    struct vol_info info;
    uint64_t version;
    bool known; /* info is filled */
    bool stale; /* and may have changed since: asked for when it is opened next */
    bool deleted;
    bool held;    /* no I/O begins (hold.c) */
    bool passing; /* its coroutine runs (thick.c) */
    uint64_t shared_at,
        table_at; /* as last told: what was granted before is shared, or forgotten */
    uint32_t handles;
    bool limited;           /* by itself or by its pool */
    struct qos_volume *qos; /* NULL: never limited */
    struct slot **slots;
    uint32_t n_slots, cap_slots; /* cap: what there ever were */
    struct co_mutex loading;
};
/* By id, described by meta: ERR_NOTFOUND. Stays until the engine stops. */
co_fn int vol_object_get(struct vol_engine *e, uint64_t id, struct volume **ret) MUST_CHECK;
co_fn int vol_object_refresh(struct volume *v) MUST_CHECK;
/* What meta says of it; older than what is known: nothing happens. */
int vol_object_told(struct volume *v, const Zbs__Meta__Volume *m) MUST_CHECK;
struct volume *vol_object_find(struct vol_engine *e, uint64_t id);
/* Meta says that it has changed, or that any may have. Those in use are asked for at once. */
co_fn void vol_object_changed(struct vol_engine *e, uint64_t id);
co_fn void vol_objects_changed(struct vol_engine *e);
struct slot *vol_slot_at(struct volume *v, uint32_t index); /* NULL beyond the end */
void vol_objects_free(struct vol_engine *e);

/* ---- limits (qos.c, qos_share.c) ---- */

/* An I/O of a front end enters: waits until the limits of the volume and its pool let it.
 * ERR_TIMEOUT, ERR_CANCELED, ERR_HALTED: it does not. */
co_fn int qos_wait(struct volume *v, uint64_t bytes) MUST_CHECK;
static inline co_fn int qos_enter(struct volume *v, uint64_t bytes)
{
    return UNLIKELY(v->limited) ? qos_wait(v, bytes) : 0;
}
void qos_update(struct volume *v, const Zbs__Meta__Volume *m);
void qos_stop(struct vol_engine *e); /* who waits is sent away: ERR_HALTED */
void qos_fini(struct vol_engine *e);

#define QOS_DEMANDS_MAX 1024u
struct qos_demands {
    Zbs__Meta__LimitDemand items[QOS_DEMANDS_MAX + 1], *ptrs[QOS_DEMANDS_MAX];
};
void qos_report(struct vol_engine *e, Zbs__Meta__SessionRenewRequest *rq, struct qos_demands *d);
void qos_answered(struct vol_engine *e, const Zbs__Meta__SessionRenewReply *a);

/* ---- slots (slot.c, acquire.c) ---- */

struct grant {
    uint64_t epoch, extent_id, set_number;
    uint64_t family;               /* decides the worker at every chunk server */
    uint64_t extent_epoch;         /* no member was opened above it */
    uint64_t origin, origin_epoch; /* not created yet: a copy of this extent */
    uint32_t members[MEMBERS_MAX], absent[MEMBERS_MAX];
    uint32_t n_members, n_absent;
    bool created;
    bool shared; /* with other volumes: read only, without opening */
    bool thick;  /* all replicas are to promise space for all of it */
};

enum slot_state {
    SLOT_NONE,    /* nothing is known */
    SLOT_FOREIGN, /* another session owns it: forward */
    SLOT_HOLE,    /* ours, no extent */
    SLOT_GRANTED, /* ours, not open */
    SLOT_SERVING, /* ours, open: tenure */
    SLOT_SHARED,  /* ours (or a snapshot's), of an extent that volumes share */
};

struct slot {
    struct volume *vol;
    uint32_t index;
    enum slot_state state;
    bool driving;    /* a driver (or a neighbour's acquisition) is at work */
    bool holding;    /* I/O waits: draining */
    bool want_alloc; /* a write waits for an extent */
    bool want_epoch; /* the grant may not be served from: its epoch was used before */
    bool want_open;  /* asked for by a task, without I/O */
    bool want_release;
    bool unplaced;   /* HOLE, SHARED: its extent could not be created yet, for want of space */
    bool flattening; /* its coroutine runs (flatten.c) */
    bool for_task;   /* taken for meta's sake only: given back when idle */
    uint32_t active, waiters;
    struct co_cond changed; /* state, holding */
    struct co_cond idle;    /* active became 0 */
    struct grant grant;
    uint64_t epoch_used; /* highest that a tenure of ours existed under */
    uint64_t owner;      /* FOREIGN */
    nsec_t foreign_until;
    nsec_t avoid_until;         /* others may take it before us */
    struct tenure *opening;     /* GRANTED: its driver opens it */
    struct tenure *tenure;      /* SERVING */
    struct shared *shared;      /* SHARED */
    nsec_t last_write;          /* before it became shared */
    uint64_t extent_id;         /* of a shared extent's own lease (recover.c); else 0 */
    uint32_t tenures;           /* that are not freed yet */
    uint32_t join[MEMBERS_MAX]; /* absent replicas to bring back with the next epoch */
    uint32_t n_join;
    int failed; /* acquiring failed for good */
    nsec_t last_used;
    nsec_t owned_since;
    struct relatives *kin; /* as the last grant names them; NULL: none */
    uint32_t kin_refused;  /* how often, one after the other */
    uint64_t release_to;   /* want_release: to whom; 0: to whoever comes */
    nsec_t given_until;    /* the session that it was released to may not know it before */
    struct follow *follow; /* who uses it; NULL: only we */
    struct list open_link;
};

struct slot *slot_new(struct volume *v, uint32_t index);
void slot_free(struct slot *s);
/* Enters a slot for one I/O. 0: serve from what *ret says, then slot_leave; ERR_NOT_OWNER:
 * ret->owner is the session to forward to. Waits, interruptibly, for anything else. */
enum enter {
    ENTER_READ,
    ENTER_CLEAR, /* a zero or discard: nothing to do in a hole */
    ENTER_WRITE,
};
struct entry {
    struct tenure *t;      /* NULL: */
    struct shared *shared; /* READ: from a member; NULL too: a hole (not WRITE) */
    uint64_t owner;
};
co_fn int slot_enter(struct slot *s, enum enter how, struct entry *ret) MUST_CHECK;
void slot_leave(struct slot *s, struct entry *en);
void slot_set_state(struct slot *s, enum slot_state state); /* not SERVING, SHARED */
/* The members that we know of are out of date. */
void slot_shared_stale(struct slot *s, const struct shared *sh);
/* The hint was wrong: ask meta. owner: a better hint, or 0. */
void slot_not_foreign(struct slot *s, uint64_t was, uint64_t owner);
/* Who forwards to us is not the owner, unless we have just made it that. */
void slot_forwarded_by(struct slot *s, uint64_t session);
void slot_kick(struct slot *s); /* starts the driver if it has something to do */
/* Everything about ownership is forgotten (the session is gone). */
void slot_reset(struct slot *s);
/* Waits until no I/O is inside; new ones wait. ERR_TIMEOUT after limit: not held then. */
co_fn int slot_hold(struct slot *s, nsec_t limit) MUST_CHECK;
void slot_unhold(struct slot *s);
enum {
    TASK_RETURN,
    TASK_RELEASE,
    TASK_OPEN,
    TASK_REPAIR,
    TASK_REMOVE = 10,
    TASK_FLATTEN = 60,
    TASK_THICK,
    TASK_THIN
};
void slot_task(struct slot *s, const Zbs__Meta__Task *task);

/* One LeaseAcquire for a slot and, unless new_epoch, for its neighbours in the same state. */
co_fn int acquire_slots(struct slot *s, bool new_epoch) MUST_CHECK;
co_fn int acquire_peek(struct slot *s, struct grant *ret, uint64_t *ret_owner) MUST_CHECK;
/* clean: all members have confirmed a commit point that covers every write. Without an answer the
 * slot counts as ours still. */
co_fn int release_slot(struct slot *s, bool clean) MUST_CHECK;
void slot_set_shared(struct slot *s, const struct grant *g);

/* ---- holding volumes for a snapshot (hold.c) ---- */

#define HOLD_VOLUMES_MAX 64u
int hold_waiter(void *arg); /* coroutine */
/* Every write is covered by a commit point that all members have confirmed. */
bool tenure_is_clean(const struct tenure *t);
/* Makes it so; nobody may be writing. */
co_fn int tenure_clean(struct tenure *t, nsec_t until) MUST_CHECK;
/* What meta says of a volume, applied to its slots. */
void volume_shared(struct volume *v, uint64_t shared_at, uint64_t table_at);

/* ---- blocks of a volume's own (flatten.c) ---- */

void flatten_start(struct slot *s); /* in the background; meta is told when it is done */

/* ---- space that is promised (thick.c) ---- */

/* Slots of the volume become thick, or thin, one after the other, in the background; meta is told.
 */
void thick_task(struct volume *v, const Zbs__Meta__Task *task);
/* A replica was opened: it promises its space, or takes that back, as the grant says. Best effort.
 */
co_fn void thick_opened(struct tenure *t, uint32_t i, const Zbs__Chunk__OpenResult *r);
/* Meta is told, in the background, if a replica of what serves now has not promised. */
void thick_serve(struct tenure *t);

/* ---- shared extents under their own leases (recover.c) ---- */

void recover_init(struct vol_engine *e);
void recover_task(struct vol_engine *e, const Zbs__Meta__Task *task);
void recover_open(struct vol_engine *e, uint64_t extent_id);
void recover_tidy(struct vol_engine *e); /* forgets what is done */

/* ---- shared extents (shared.c) ---- */

struct shared {
    struct vol_engine *e;
    uint32_t refs;
    uint64_t extent_id, family;
    uint64_t epoch; /* at which we learnt of the members */
    struct chunk *chunks[MEMBERS_MAX];
    uint32_t n;
};
struct shared *shared_new(struct vol_engine *e, const struct grant *g);
void shared_put(struct shared *sh);
/* What a member answered. One that is not clean, or has lost the extent, is seen to by whoever
 * opens it: that is us, unless somebody works on it already. */
void shared_refused(struct shared *sh, int rc);
/* ERR_STALE: meta is to be asked again; ERR_IO, ERR_CORRUPT: no member has it. */
co_fn int shared_read(struct shared *sh, uint32_t off, uint32_t len, struct buf *dst,
                      uint32_t dst_off) MUST_CHECK;

/* ---- leases follow the I/O (follow.c) ---- */

/* One I/O that we serve as the owner; session: who forwards it, 0: our own. */
void follow_count(struct slot *s, uint64_t session);
void follow_forget(struct slot *s);

/* ---- tenures (tenure.c) ---- */

struct confirmed {
    uint32_t first, count;
    struct ver ver;
};

struct member {
    struct chunk *chunk;
    struct ver cp_sent;       /* commit point that it durably has */
    struct ver last_reported; /* at its open */
    struct ver confirmed;     /* highest, copies included */
    struct confirmed recent[CONFIRMED_KEPT];
    uint32_t recent_pos;
    uint64_t incarnation; /* of the process that opened it */
    uint32_t credits;
    uint64_t allocated[BLOCKS_PER_EXTENT / 64]; /* blocks that are written without a credit */
    uint64_t shared[BLOCKS_PER_EXTENT / 64];    /* hold something, but were not at the open */
    nsec_t failing_since;
    bool everything; /* it is known to lack anything: void or unknown there */
    bool vouched;    /* it knows, since its server's start, that it may be read as shared */
    bool unpromised; /* it has no room for all of a thick extent */
    bool reopening;
    struct rangeset missing;         /* JOINING: what the members' missing sets may name */
    struct rangeset stale;           /* JOINING: what it is not known to have */
    uint64_t copy_gens[COPY_WINDOW]; /* JOINING: of the copies on their way to it; 0: none */
};

/* Pages above the commit point, at an open: versions by member. */
struct uncommitted {
    struct rangeset pages;
    struct ver *vers; /* [member * pages.total + rank of the page] */
};

struct tenure {
    struct vol_engine *e;
    struct slot *slot;
    uint32_t refs;
    uint64_t extent_id, family, epoch, set_number, session;
    uint64_t origin, origin_epoch; /* to be made as a copy of this extent */
    struct relatives *kin;         /* or NULL */
    bool repair;                   /* a shared extent's own: nothing but repairs and copies */
    bool thick;                    /* its replicas promise space for all of it */
    bool lost, serving;
    bool may_remove;        /* serving, or all members are open and it is being equalised */
    bool rescuing;          /* members are replaced before it can be opened (rescue.c) */
    struct co_cond changed; /* lost, membership, open members */
    struct member m[MEMBERS_MAX];
    uint32_t n;
    /* by member: */
    uint32_t set;     /* may be in the logged set: members, those being added, those leaving */
    uint32_t adding;  /* subset of set: asked to be added, not known to be logged */
    uint32_t leaving; /* subset of set: to be removed */
    uint32_t asked;   /* subset of leaving: meta was asked */
    uint32_t joining; /* open and being copied to */
    uint32_t absent;  /* the rest */
    uint32_t surplus; /* one too many: not only to be removed, but none of the extent's then */
    uint32_t open;    /* open under this epoch at the present incarnation */
    uint64_t gen;
    struct ver cp;
    struct list ops; /* by version; those above the commit point */
    struct co_sem room;
    struct co_range_lock ranges; /* bytes of the extent; exclusive: writes */
    struct co_mutex change;      /* one change of the set at a time (PROTOCOL 5.3) */
    struct co_mutex credit;      /* one reservation of space at a time */
    bool remover;                /* its coroutine runs */
    bool checking;               /* likewise: whether meta has the same set */
    uint32_t probing;            /* members being asked whether they are there */
    struct uncommitted unc;      /* while opening */
    struct list dirty_link;
    uint64_t allocated[BLOCKS_PER_EXTENT / 64]; /* at every member */
    nsec_t last_write;
};

struct tenure *tenure_new(struct slot *s, const struct grant *g);
static inline struct tenure *tenure_get(struct tenure *t)
{
    t->refs++;
    return t;
}
void tenure_put(struct tenure *t);
/* We are not the owner under this epoch any more. */
void tenure_lose(struct tenure *t, const char *why);
int tenure_member(const struct tenure *t, uint32_t chunk_id); /* index or -1 */
/* Asks the members in the mask whether they are still there, in the background. */
void tenure_probe(struct tenure *t, uint32_t mask);
static inline uint32_t tenure_readable(const struct tenure *t)
{
    /* Known to be logged, and not asked to be removed (PROTOCOL 1.4). */
    return t->set & ~t->adding & ~t->leaving & t->open;
}
/* It can't be waited for: a member is to be removed, a joining replica given up. */
void member_fail(struct tenure *t, uint32_t i, bool everything, const char *why);
void member_give_up_join(struct tenure *t, uint32_t i, const char *why);
/* Calls a replica until it answers, opening it again if its server restarted; fails it when its
 * time is over, but goes on until it is removed or answers. 0; ERR_STALE; ERR_NO_REPLICA: it is
 * not (a member or joining) any more; ERR_NOSPACE is passed on if pass_nospace. data: NULL or
 * the payload. Uninterruptible in effect: call it from the engine's own coroutines, or shielded.
 */
struct member_req {
    enum chunk_method method;
    const ProtobufCMessage *msg;
    const struct slice *data;
    bool pass_nospace;
    bool stop_leaving; /* ERR_NO_REPLICA as soon as it is to be removed */
    bool pass_unread;  /* ERR_IO, ERR_CORRUPT: the caller has another way */
};
co_fn int member_call(struct tenure *t, uint32_t i, const struct member_req *q,
                      struct rpc_reply *r) MUST_CHECK;
/* The same call to all of a mask at once; done when each has answered or is none any more. */
co_fn int members_call(struct tenure *t, uint32_t mask, const struct member_req *q) MUST_CHECK;
co_fn int member_reopen(struct tenure *t, uint32_t i) MUST_CHECK;
void member_confirmed(struct tenure *t, uint32_t i, uint64_t gen, uint32_t first, uint32_t count);
/* What an open answered, checked and remembered: 0, or ERR_NO_REPLICA if it lost writes. */
int member_opened(struct tenure *t, uint32_t i, const struct open_call *call,
                  bool again) MUST_CHECK;

/* ---- writing (write.c, credit.c) ---- */

struct op_send {
    struct op *op;
    uint32_t i;
};

struct op {
    struct list link; /* tenure's ops, or the pool */
    struct tenure *t;
    uint32_t refs;
    struct co_range range;
    bool locked, has_room, in_list;
    uint32_t kind; /* WriteKind */
    uint32_t off, len;
    uint64_t gen;
    struct ver cp;
    struct slice data; /* DATA: holds a reference */
    uint32_t n_crc;
    uint32_t *crc; /* crc_small, or own memory */
    uint32_t crc_small[OP_BYTES_MAX / 16 / PAGE_BYTES + 1];
    uint32_t missing[MEMBERS_MAX];
    uint32_t n_missing;
    uint32_t dst, got;
    uint32_t unread;  /* members that can't read a page that it changes in part */
    uint32_t through; /* joining replicas that are current once they have this */
    bool done;
    int rc;
    struct co_cond finished;
    struct op_send sends[MEMBERS_MAX];
};

struct op *op_new(struct tenure *t, uint32_t kind, uint32_t off, uint32_t len,
                  const struct slice *data);
void op_put(struct op *op);
/* Room and range lock, interruptible; 0 or an error. ERR_STALE if the tenure was lost. */
co_fn int op_lock(struct op *op) MUST_CHECK;
/* From here on it is on its way, whatever becomes of the caller. Needs the lock and credits. */
void op_send(struct op *op);
/* 0: confirmed by every member; ERR_STALE: lost; ERR_TIMEOUT, ERR_CANCELED: still under way;
 * ERR_IO, ERR_CORRUPT: it was not done, because no member can read what it changes in part. */
co_fn int op_wait(struct op *op) MUST_CHECK;
/* Nobody has done it, nor ever will. */
void op_fail(struct op *op, int rc);
void ops_check(struct tenure *t); /* membership changed */
static inline uint32_t op_first_page(const struct op *op)
{
    return op->off / PAGE_BYTES;
}
static inline uint32_t op_pages(const struct op *op)
{
    return (op->off + op->len - 1) / PAGE_BYTES - op->off / PAGE_BYTES + 1;
}
/* Checksums of the pieces of [off, off+len) by page, over bytes at p. */
uint32_t page_crcs(uint32_t off, uint32_t len, const uint8_t *p, uint32_t *ret);
static inline uint32_t page_pieces(uint32_t off, uint32_t len)
{
    return (off + len - 1) / PAGE_BYTES - off / PAGE_BYTES + 1;
}

/* Credits for the blocks of a write at every replica it goes to (PROTOCOL 3.4). ERR_NOSPACE. */
co_fn int credits_ensure(struct tenure *t, uint32_t off, uint32_t len) MUST_CHECK;
/* The same for a zero or discard: pages that it covers in part are written, which needs a place in
 * blocks that are shared. */
co_fn int credits_ensure_edges(struct tenure *t, uint32_t off, uint32_t len) MUST_CHECK;
/* The blocks of a write were freed; or it was not done, and they may not be there. */
void credits_freed(struct tenure *t, uint32_t off, uint32_t len);
void credits_unused(struct tenure *t, uint32_t off, uint32_t len);
/* As many as to ask for when a server that starts anew, which has forgotten its promises, opens a
 * replica again: writes are under way to it. */
uint32_t credits_to_reopen(const struct tenure *t, uint32_t i);
void credits_opened(struct tenure *t, uint32_t i, const Zbs__Chunk__OpenResult *r);
void credits_recount(struct tenure *t);

/* ---- reading (read.c, repair.c) ---- */

/* One piece of an extent read from one replica and checked; at most timeout. */
struct read_of {
    uint64_t extent_id, family, epoch;
    uint64_t view_epoch; /* epoch 0: a shared extent */
};
co_fn int chunk_read(struct chunk *c, const struct read_of *of, uint32_t off, uint32_t len,
                     struct buf *dst, uint32_t dst_off, bool *ret_zero, nsec_t timeout) MUST_CHECK;
co_fn int replica_read(struct tenure *t, uint32_t i, uint32_t off, uint32_t len, struct buf *dst,
                       uint32_t dst_off, bool *ret_zero, nsec_t timeout) MUST_CHECK;
/* From any readable member outside `except`, with fail-over; no lock, no lease check. */
co_fn int members_read(struct tenure *t, uint32_t except, uint32_t off, uint32_t len,
                       struct buf *dst, uint32_t dst_off, bool *ret_zero) MUST_CHECK;
/* Are we the owner still, at a moment after the data arrived? (PROTOCOL 1.4, 1.5) */
co_fn int ownership_check(struct tenure *t) MUST_CHECK;
co_fn int tenure_read(struct tenure *t, uint32_t off, uint32_t len, struct buf *dst,
                      uint32_t dst_off) MUST_CHECK;
/* Reads what an op covers, which is locked and has no data, from members outside `except`, and
 * writes the same to all of them. ERR_AGAIN: not now, the volume is held. */
co_fn int op_rewrite(struct op *op, uint32_t except) MUST_CHECK;
void repair_start(struct tenure *t, uint32_t i, uint32_t off, uint32_t len);
static inline bool is_unread(int rc)
{
    return rc == ERR_IO || rc == ERR_CORRUPT;
}
/* Of a write that a member can't do (why), because it can't read a page that it changes in part:
 * the same with whole pages, as another member has them that has done it. NULL: try again, unless
 * it has ended: if nobody else can do it, then with this error. */
co_fn struct op *op_whole(struct op *op, uint32_t i, int why);

/* ---- leaving, joining (leave.c, join.c) ---- */

/* Removes what is in t->leaving: one attempt. 0; ERR_AGAIN: not now; ERR_STALE. */
co_fn int leave_step(struct tenure *t) MUST_CHECK;
void leave_kick(struct tenure *t); /* has it done in the background */
/* Meta wants one member less: this one, if there is another. */
void leave_surplus(struct tenure *t, uint32_t chunk_id);
/* One change of the set, repeated until meta's answer is known. 0, ERR_STALE (lost), ERR_REFUSED,
 * ERR_AGAIN (the set was another: adopted). Under t->change. */
co_fn int set_change(struct tenure *t, uint32_t remove, uint32_t add,
                     const char *reason) MUST_CHECK;
/* While it is rescued: removes lost members and adds a replica that has everything, or none, in
 * one record. */
co_fn int leave_exchange(struct tenure *t, uint32_t leave, uint32_t add) MUST_CHECK;
/* Compares the set with the logged one, in the background; gives the tenure up if they differ. */
void set_check(struct tenure *t);
void join_start(struct tenure *t, uint32_t i);
/* Makes it equal to the members while nobody writes; it is not asked in. */
co_fn int join_unserved(struct tenure *t, uint32_t i) MUST_CHECK;
void joins_limit(struct vol_engine *e, uint32_t extents_max, uint64_t rate);
/* What is still to be copied to replicas that are joining, and to how many. */
uint64_t joins_left(const struct vol_engine *e, uint32_t *ret_extents);

/* ---- relatives (kin.c) ---- */

#define RELATIVES_MAX 4u
struct relative {
    uint64_t extent_id, epoch;
    uint32_t members[MEMBERS_MAX]; /* chunk ids */
    uint32_t n;
};
struct relatives {
    struct relative all[RELATIVES_MAX];
    uint32_t n;
};
void relatives_read(struct slot *s, const Zbs__Meta__Grant *m);
/* The first of the tenure's relatives, from a number on, that is where a replica is; or NULL. */
const struct relative *relative_at(const struct tenure *t, uint32_t i, uint32_t from);
/* Creates a replica as a copy of a relative, or empty if none is taken. ERR_AGAIN: not now. */
co_fn int relative_copy(struct tenure *t, uint32_t i) MUST_CHECK;
/* What a joining replica has, because it shares it with a relative, is not stale. Best effort;
 * under the lock of all these pages. */
co_fn void relative_compare(struct tenure *t, uint32_t i, uint32_t first, uint32_t end);

/* ---- the pace of copies (pace.c) ---- */

/* What a client's request took at a chunk server. */
void pace_foreground(struct chunk *c, nsec_t took);
/* The part of the full rate that copies from and to this server may have, in 1/256. */
uint32_t pace_share(const struct chunk *c);
/* Waits until so many bytes may be copied. Not under a range lock. */
co_fn int pace_copy(struct tenure *t, uint32_t bytes) MUST_CHECK;

/* ---- commit points (commit.c) ---- */

void commit_advance(struct tenure *t); /* ops at the head are done */
/* What a replica may be told now. */
struct ver commit_for(const struct tenure *t, uint32_t i);
/* Is there anything that it does not know yet: that, or that it is as good as the others? */
bool commit_owed(const struct tenure *t, uint32_t i);
struct commit_item {
    Zbs__Chunk__CommitPointItem msg;
    Zbs__Version cp;
};
/* What it is to be told now; and it has confirmed that. Stays where it is in between. */
void commit_item_fill(struct commit_item *it, const struct tenure *t, uint32_t i);
void commit_item_confirmed(const struct commit_item *it, struct tenure *t, uint32_t i);
void commit_note_dirty(struct tenure *t);
int commit_sender(void *arg);              /* coroutine */
co_fn void commit_flush(struct tenure *t); /* now; best effort */
/* Of all tenures, or those of some volumes; best effort: no member is waited for longer. */
co_fn void commit_round(struct vol_engine *e, struct volume *const *volumes, uint32_t n,
                        nsec_t limit);

/* ---- one I/O on one slot (io.c, forward.c, atomic.c) ---- */

struct io {
    enum io_kind kind;
    struct slot *slot;
    uint32_t off, len;
    struct buf *buf; /* READ: destination; WRITE: source; CAW: compare data, then buf2 */
    uint32_t buf_off;
    struct buf *buf2;
    uint32_t buf2_off;
    uint32_t miscompare;
    uint64_t reservations; /* obeyed by whoever took it from its client, when that was */
    bool forwarded;        /* came in from another access server: one attempt only, shielded */
    uint64_t from;         /* its session */
    struct list forward;   /* on the engine's list of such */
    /* of a forwarding of ours whose outcome is not known: */
    uint64_t fwd_session, fwd_as, fwd_number;
    uint64_t fwd_hint; /* the owner, as the answer to NOT_OWNER names it */
    bool sent;         /* to a member: it may have been applied */
    bool unknown;      /* a forwarded write was sent, and whether it was executed is not known */
};
co_fn int io_run(struct io *io) MUST_CHECK;
/* One attempt under one tenure. ERR_STALE: lost, nothing of it can be applied later. */
co_fn int io_attempt(struct io *io, struct tenure *t) MUST_CHECK;
co_fn int tenure_compare_and_write(struct tenure *t, struct io *io) MUST_CHECK;
/* To the owner. ERR_NOT_OWNER, ERR_AGAIN: not executed, nor will it be. ERR_CLOSED, ERR_TIMEOUT:
 * not known; io remembers, and the next call asks for the same execution's outcome. */
co_fn int forward_io(struct io *io, uint64_t owner) MUST_CHECK;

#endif
