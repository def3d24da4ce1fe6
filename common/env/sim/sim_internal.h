/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the simulated world. Who owns what:
 *   - The world (struct sim, events, disks' contents, streams, the coordination service, stores)
 *     lives in raw memory that no process heap owns.
 *   - A process slot (struct sim_proc) keeps two kinds of lists: what survives its incarnations
 *     (files, disks, stores) and what the running incarnation has open. When an incarnation ends,
 *     for whatever reason, each part of the world closes its side (sim_*_proc_ended), then the
 *     loops are discarded and the heap is destroyed, at the next moment outside coroutines.
 *   - A coroutine waits for the world through a co_wait in a queue of a world object; the world
 *     wakes it from an event's function only, so never inside another process's run.
 *
 * Everything random comes from the one generator of the world and nothing is ordered by address:
 * the same seed gives the same trace. */
#ifndef ZBS_ENV_SIM_INTERNAL_H
#define ZBS_ENV_SIM_INTERNAL_H

#include "common/base/assert.h"
#include "common/base/heap.h"
#include "common/base/mem.h"
#include "common/co/loop.h"
#include "common/env/env_ops.h"
#include "common/env/sim.h"

#define SIM_HOST_MAX 64
#define SIM_PAGE     4096u
#define SIM_SECTOR   512u

/* ---- events ---- */

#define SIM_KIND_LIST(X)                                                                           \
    X(RUN, "run")                                                                                  \
    X(START, "start")                                                                              \
    X(STOP, "stop")                                                                                \
    X(END, "end")                                                                                  \
    X(CALL, "call")                                                                                \
    X(DISK, "disk")                                                                                \
    X(NET_SYN, "net-connect")                                                                      \
    X(NET_DATA, "net-data")                                                                        \
    X(NET_ACK, "net-ack")                                                                          \
    X(NET_RESET, "net-reset")                                                                      \
    X(NET_STALL, "net-stall")                                                                      \
    X(NET_KEEP, "net-keepalive")                                                                   \
    X(COORD_CONNECT, "coord-connect")                                                              \
    X(COORD_REQUEST, "coord-request")                                                              \
    X(COORD_REPLY, "coord-reply")                                                                  \
    X(COORD_SESSION, "coord-session")                                                              \
    X(COORD_FOLLOW, "coord-follow")                                                                \
    X(NOTE, "note")                                                                                \
    X(NET_DGRAM, "net-datagram")

enum sim_kind {
#define X(name, text) SIM_##name,
    SIM_KIND_LIST(X)
#undef X
};

struct sim_event {
    uint32_t heap_pos; /* 0: not armed */
    enum sim_kind kind;
    nsec_t at;
    uint64_t id;           /* of what it is about, for the trace */
    struct sim_proc *proc; /* whom it is about, NULL for the world */
    void (*fn)(struct sim *s, struct sim_event *e);
};

void sim_event_init(struct sim_event *e, enum sim_kind kind, struct sim_proc *p, uint64_t id,
                    void (*fn)(struct sim *s, struct sim_event *e));
void sim_event_arm(struct sim *s, struct sim_event *e, nsec_t at); /* re-arms if armed */
void sim_event_disarm(struct sim *s, struct sim_event *e);
static inline bool sim_event_armed(const struct sim_event *e)
{
    return e->heap_pos != 0;
}

/* ---- world ---- */

struct sim_coordd; /* the coordination service (sim_coord_server.c) */

struct sim {
    struct sim_conf conf;
    nsec_t now;
    uint64_t rng[4];
    struct heap events;
    uint64_t hash;
    char *text; /* of the trace, if kept */
    size_t text_len, text_cap;
    struct list procs;   /* struct sim_proc, control ones too */
    struct list zombies; /* struct sim_zombie: ended incarnations to be reclaimed */
    struct list locks;   /* struct sim_lock */
    struct list listeners, pairs, cuts;
    struct list dgrams, flights; /* sockets; datagrams on their way */
    struct sim_coordd *coordd;
    uint64_t next_id;
    uint32_t next_proc_id, next_port, controls;
    bool stepping, log;
    const struct sim_proc *running; /* whose loop runs now, NULL between */
};

uint64_t sim_rand(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t n); /* 0 .. n-1; 0 if n is 0 */
bool sim_chance(struct sim *s, uint32_t ppm);
bool sim_coin(struct sim *s);
nsec_t sim_span(struct sim *s, nsec_t min, nsec_t max);
void sim_fold(struct sim *s, enum sim_kind kind, const struct sim_proc *p, uint64_t id);
static inline uint64_t sim_id(struct sim *s)
{
    return ++s->next_id;
}

/* ---- processes (sim_proc.c) ---- */

struct sim_loop {
    struct list link;
    struct sim_proc *proc;
    struct co_loop *co;
    struct sim_event run_ev;
    nsec_t busy_until; /* the cost of what it ran last */
    bool running;
    bool wanted; /* while paused: has something to do */
    struct co_wait *stopper;
    char name[48];
};

enum sim_end_how { SIM_END_EXIT, SIM_END_KILL, SIM_END_POWER };

struct sim_proc {
    struct env env; /* first */
    struct list link;
    struct sim *sim;
    char host[SIM_HOST_MAX], name[SIM_HOST_MAX];
    uint32_t id;
    bool control, running, paused, stopping;
    bool exited; /* main returned, to be torn down after this run */
    bool doomed; /* called env_halt */
    bool coord_cut;
    int32_t drift_ppm;
    nsec_t wall_ahead;
    int result;
    char *halted;
    int (*main_fn)(void *arg);
    void *main_arg;
    struct mem_heap *heap;
    struct list loops;
    struct sim_loop *main, *pool;
    uint32_t next_loop;
    struct sim_event start_ev, stop_ev, end_ev;
    struct co_wait *supervisor; /* waits for main's end or sim_proc_stop */
    struct list end_waiters;    /* co_wait of control coroutines in sim_proc_stop */
    /* survive */
    struct list files, disks, stores, controls;
    /* of the incarnation */
    struct list calls, disk_handles, ios, listeners, ends, dgrams, coords, kvs, scans;
};

static inline struct sim_proc *sim_proc_of(struct env *env)
{
    return CONTAINER_OF(env, struct sim_proc, env);
}

extern const struct env_ops sim_env_ops;

struct sim_loop *sim_loop_new(struct sim_proc *p, const char *name);
void sim_loop_free(struct sim_loop *l); /* nothing may be left in it */
void sim_loop_want(struct sim_loop *l); /* have it run soon */
void sim_proc_end(struct sim_proc *p, enum sim_end_how how);
void sim_reap(struct sim *s); /* outside coroutines: reclaims what ended incarnations held */
void sim_proc_free(struct sim_proc *p);

/* ---- clocks (sim_clock.c) ---- */

nsec_t sim_clock_local(const struct sim_proc *p);               /* what its clock says now */
nsec_t sim_clock_world(const struct sim_proc *p, nsec_t local); /* when it says this, or more */
nsec_t sim_clock_wall(const struct sim_proc *p);

/* ---- calls that only take time (sim_env.c): files, the store ---- */

struct sim_call {
    struct list link;
    struct sim_event ev;
    struct co_wait wait;
    struct sim_proc *proc;
    void (*apply)(struct sim_call *c); /* may be NULL; sets rc */
    bool crashing;                     /* the process has ended, the effect happens nevertheless */
    int rc;
};

/* Suspends (uninterruptibly) for delay; apply runs at its end, or by chance at a crash before. */
co_fn int sim_call_run(struct sim_call *c, struct env *env, nsec_t delay,
                       void (*apply)(struct sim_call *c));
void sim_calls_proc_ended(struct sim_proc *p);
void sim_files_free(struct sim_proc *p);
nsec_t sim_disk_delay(struct sim *s);

int sim_lock_file(struct env *env, const char *path);
int sim_file_read(struct env *env, const char *path, char **ret, size_t *ret_len);
int sim_file_write(struct env *env, const char *path, const void *data, size_t len);
void sim_locks_proc_ended(struct sim_proc *p);

/* ---- disks (sim_media.c: contents; sim_disk.c: requests) ---- */

struct sim_disk;
struct sim_disk *sim_disk_find(struct sim_proc *p, const char *path);
void sim_disks_free(struct sim_proc *p);
void sim_disks_proc_ended(struct sim_proc *p, enum sim_end_how how);
int sim_disk_open(struct env *env, const char *path, unsigned flags, struct disk **ret);
void sim_disk_close(struct disk *d);
void sim_disk_submit(struct disk_req *r);
int sim_disk_probe(struct env *env, const char *path);
/* All disks of a process as one, in the order of their creation. */
uint64_t sim_disks_bytes(struct sim_proc *p);
void sim_disks_peek(struct sim_proc *p, uint64_t page_no, void *dst);

/* ---- recordings of disks (sim_tape.c) ---- */

struct sim_tape;
struct sim_tape *sim_tape_new(void);
/* base: where the disk begins in images. Returns the write's number. */
uint64_t sim_tape_submit(struct sim_tape *t, uint32_t disk, uint64_t base,
                         const struct disk_req *r);
void sim_tape_done(struct sim_tape *t, uint64_t n);
void sim_tape_drop(struct sim_tape *t, uint64_t n);
void sim_tape_flush(struct sim_tape *t, uint32_t disk, uint64_t n_done);

/* ---- network (sim_stream.c: delivery; sim_net.c: operations) ---- */

bool sim_net_is_cut(struct sim *s, const char *from, const char *to);
void sim_net_free(struct sim *s);
void sim_net_proc_ended(struct sim_proc *p, enum sim_end_how how);
int sim_net_listen(struct env *env, const char *addr, struct net_listener **ret);
int sim_net_accept(struct net_listener *l, struct net_conn **ret);
void sim_net_listener_close(struct net_listener *l);
int sim_net_connect(struct env *env, const char *from, const char *addr, struct net_conn **ret);
ssize_t sim_net_readv(struct net_conn *c, const struct iovec *iov, int n);
ssize_t sim_net_writev(struct net_conn *c, const struct iovec *iov, int n);
bool sim_net_readable(struct net_conn *c);
void sim_net_shutdown(struct net_conn *c);
void sim_net_close(struct net_conn *c);
void sim_net_conn_move(struct net_conn *c, struct co_loop *target);
nsec_t sim_path_delay(struct sim *s, bool local);

/* Addresses, which the boundary has checked. */
struct sim_addr {
    char ip[NET_ADDR_MAX];
    uint32_t port;
    bool unix_socket, loopback, any;
};
struct sim_addr sim_addr_parse(const char *text);
void sim_addr_format(char *dst, const char *ip, uint32_t port);
/* May a process listen there? */
int sim_addr_check_own(const struct sim_proc *p, const struct sim_addr *a, const char *text);
/* Does what listens at an address, or all of them, hear what comes to ip and port? */
bool sim_addr_hears(const char *own_ip, uint32_t own_port, const struct sim_addr *a);
uint32_t sim_port_next(struct sim *s);

/* ---- datagrams (sim_dgram.c) ---- */

void sim_dgrams_free(struct sim *s);
void sim_dgrams_proc_ended(struct sim_proc *p);
int sim_net_dgram_open(struct env *env, const char *addr, struct net_dgram **ret);
ssize_t sim_net_dgram_recv(struct net_dgram *d, void *dst, size_t len, struct net_way *ret);
void sim_net_dgram_send(struct net_dgram *d, const void *src, size_t len,
                        const struct net_way *way);
void sim_net_dgram_close(struct net_dgram *d);

/* ---- coordination (sim_coord_tree.c, sim_coord_server.c, sim_coord.c) ---- */

struct sim_coordd *sim_coordd_new(struct sim *s);
void sim_coordd_free(struct sim_coordd *d);
void sim_coord_proc_ended(struct sim_proc *p, enum sim_end_how how);
int sim_coord_open(struct env *env, const char *servers, const char *root, uint32_t session_ms,
                   struct coord **ret);
void sim_coord_close(struct coord *c);
enum coord_state sim_coord_state(const struct coord *c);
int sim_coord_wait_connected(struct coord *c);
int sim_coord_get(struct coord *c, const char *path, void **ret, size_t *ret_len,
                  struct coord_stat *ret_stat);
int sim_coord_children(struct coord *c, const char *path, char ***ret, uint32_t *ret_n);
int sim_coord_sync(struct coord *c, const char *path);
int sim_coord_multi(struct coord *c, struct coord_op *ops, int n, bool single, char **ret_path,
                    struct coord_stat *ret_stat);
int sim_coord_watch_arm(struct coord *c, struct coord_watch *w, enum coord_watch_kind kind,
                        const char *path);
void sim_coord_watch_cancel(struct coord_watch *w);

/* ---- store (sim_treap.c, sim_kv.c) ---- */

void sim_kv_proc_ended(struct sim_proc *p, enum sim_end_how how);
void sim_stores_free(struct sim_proc *p);
int sim_kv_open(struct env *env, const char *path, struct kv **ret);
void sim_kv_close(struct kv *kv);
int sim_kv_get(struct kv *kv, const void *key, size_t key_len, void **ret, size_t *ret_len);
int sim_kv_write(struct kv *kv, const struct kv_batch *b, bool sync);
int sim_kv_scan(struct kv *kv, const void *first, size_t first_len, const void *last,
                size_t last_len, kv_scan_fn fn, void *arg);
int sim_kv_clear(struct kv *kv);

/* ---- small helpers ---- */

void *sim_alloc(size_t bytes); /* raw memory, zeroed */
void sim_mem_free(void *ptr);
void *sim_memdup(const void *src, size_t len); /* with a NUL after the end */
char *sim_strdup(const char *s);
char *sim_printf(const char *fmt, ...) PRINTF_FMT(1, 2);
void sim_wake_all(struct list *waiters, int rc);

#define SIM_NEW(type) ((type *)sim_alloc(sizeof(type)))

#endif
