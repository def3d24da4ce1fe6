/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the real environment share: the environment, its loops (one thread each, on
 * libev), and the way to run a blocking call on a pool thread. Private to this folder and its
 * tests. */
#ifndef ZBS_ENV_REAL_REAL_H
#define ZBS_ENV_REAL_REAL_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <ev.h>
#include "common/co/loop.h"
#include "common/env/env_ops.h"
#include "common/env/env_real.h"

#define REAL_POOL_THREADS_MAX     16u
#define REAL_POOL_THREADS_DEFAULT 2u
#define REAL_RING_ENTRIES_DEFAULT 256u
#define REAL_RING_ENTRIES_MAX     4096u
#define REAL_SPIN_US_MAX          50u
#define REAL_STALL_LOG_NS         (10 * NSEC_PER_MSEC)
#define REAL_RUN_BUDGET           256u /* resumptions between two looks at the outside world */
#define REAL_RANDOM_WORDS         64u
#define REAL_FILE_BYTES_MAX       (1024u * 1024) /* env_file_read, env_file_write */

struct real_ring;
struct real_watch;
struct real_loop;

struct real_env {
    struct env base; /* must be first */
    /* fixed after start */
    uint32_t ring_entries, spin_us, pool_threads;
    struct real_loop *main;
    struct real_loop *pool[REAL_POOL_THREADS_MAX];
    /* any thread */
    atomic_uint pool_next;
    atomic_uint threads; /* started by env_thread_start and not yet stopped */
    pthread_mutex_t lock;
    /* guarded by lock */
    int *lock_fds;
    uint32_t lock_count;
    struct list ended; /* loops of threads that have ended */
    struct real_watch *watch;
};

/* Work to be done on the loop's thread after the coroutines ran and before it waits: everything
 * queued in one turn leaves in one system call. */
struct real_prewait {
    struct list link;
    void (*fn)(struct real_prewait *p);
};

/* Looked at once a turn while it is on real_loop.pollers: memory that another process changes. */
struct real_poller {
    struct list link;
    /* Has anything come? Then whoever waits for it was woken. sleep: the loop is about to wait; if
     * nothing has come, the other side must know that it has to ring. */
    bool (*fn)(struct real_poller *p, bool sleep);
    uint32_t bells; /* that rang for us since real_cpu_look counted */
    /* One of the two is not NULL: which CPU we are bound to and want the other side on, or the
     * other side us. Counted from 1; 0: none. */
    _Atomic uint32_t *cpu;
    const _Atomic uint32_t *leader_cpu;
};

/* A descriptor that a loop is told of when it becomes readable (EV_READ) or writable (EV_WRITE). */
struct real_edge {
    void (*fn)(struct real_edge *e); /* outside coroutines */
    struct edge_poll *poll;          /* in the loop's ring */
    bool ended; /* what is there is the last: fn may not be called for the end */
    ev_io io;   /* if it has none */
};

/* The CPU that a thread shares with those it takes turns with (cpu.c). */
struct real_cpu {
    int stat_fd;            /* what the kernel counts of the thread; -1: never bind it */
    int bound;              /* -1: it is not */
    cpu_set_t former;       /* where it could run before */
    nsec_t since;           /* it is bound */
    nsec_t looked;          /* at how it went */
    uint64_t waited, times; /* until then: for a CPU; how often it got one */
    nsec_t not_before, pause;
};

/* A loop's stack in the middle of a stall. Written and read on the loop's thread. */
#define REAL_STALL_FRAMES 24u
struct real_stall {
    volatile unsigned count; /* of frames; 0: none taken */
    void *frames[REAL_STALL_FRAMES];
    const char *co_name; /* NULL: no coroutine was running */
};

struct real_loop {
    struct real_env *env;
    struct co_loop *co;
    struct ev_loop *ev;
    char *name;
    bool is_pool;
    pthread_t thread;
    /* owned by the thread */
    struct real_edge wake; /* an eventfd */
    bool ev_due;           /* libev has something to tell or to be told */
    int timer_fd;
    ev_io timer_io;
    nsec_t timer_at; /* what the timer is set to; NSEC_NEVER: nothing */
    struct list prewaits;
    struct list pollers;
    struct real_cpu cpu;
    struct real_ring *ring; /* NULL: it sleeps in libev */
    bool stop;              /* leave when no coroutine is left */
    bool poll_again;        /* do not sleep: something could not be handed to the kernel yet */
    /* adaptive spinning */
    nsec_t wait_ewma_ns;
    uint32_t io_in_flight; /* requests whose completion is expected soon */
    uint32_t io_events;    /* socket events delivered in the last turn */
    /* any thread */
    atomic_bool asleep; /* it wants to be woken */
    /* what the watchdog knows of it, and what it had the thread note down */
    struct list watched; /* real_watch.loops */
    pthread_t self;
    atomic_uint turns;
    unsigned turns_seen;
    nsec_t stall_signalled; /* the co_loop_held_since that a signal was sent for */
    const void *stack_end;  /* of the thread, as far as frames are of interest */
    struct real_stall stall;
    /* random numbers, fetched in bulk */
    uint64_t random[REAL_RANDOM_WORDS];
    uint32_t random_left;
    /* when the thread ends: who waits for it */
    struct co_loop *stopper_loop;
    struct co_wait *stopper;
    struct list ended_link; /* real_env.ended */
};

/* ---- loops (loop_real.c) ---- */

int real_loop_new(struct real_env *env, const char *name, bool is_pool,
                  struct real_loop **ret) MUST_CHECK;
/* Runs on the calling thread until real_loop_stop was called and no coroutine is left. */
void real_loop_run(struct real_loop *l);
void real_loop_stop(struct real_loop *l); /* on its thread */
void real_loop_free(struct real_loop *l); /* after its thread left real_loop_run */
nsec_t real_now(void);                    /* the loops' clock, any thread */
struct real_loop *real_loop_self(void);   /* of the running coroutine */
void real_prewait_init(struct real_prewait *p, void (*fn)(struct real_prewait *p));
void real_prewait_queue(struct real_loop *l, struct real_prewait *p); /* idempotent */

/* As ev_io_start. Watchers are started by this only, else the loop does not know. */
void real_ev_io_start(struct real_loop *l, ev_io *io);

/* ---- descriptors (edge.c), on the loop's thread ---- */

void real_edge_init(struct real_edge *e, int fd, int events, void (*fn)(struct real_edge *e));
/* To be called before each wait: fn is called once or more if the descriptor is ready or becomes
 * so, perhaps also if it is not any more. Once it has been called, it may not be called for what
 * was there already. */
void real_edge_watch(struct real_loop *l, struct real_edge *e);
/* Before the descriptor is closed, or goes to another loop. Also of one that was never watched. */
void real_edge_forget(struct real_loop *l, struct real_edge *e);
/* Of an eventfd, in fn: takes what is in it, if somebody has to. */
void real_edge_drain(const struct real_edge *e);

/* ---- sharing a CPU (cpu.c), on the loop's thread ---- */

void real_cpu_begin(struct real_cpu *c);
void real_cpu_end(struct real_cpu *c);
void real_cpu_look(struct real_loop *l); /* once a turn: binds the thread, or lets it go */
/* What a look leads to. cpu: where the thread should be, -1: anywhere; delay: what it waited for a
 * CPU, on average. */
void real_cpu_decide(struct real_cpu *c, int cpu, nsec_t delay, nsec_t now);
void real_cpu_leave(struct real_cpu *c); /* before a thread is started, which would be bound, too */

/* ---- watchdog (watch.c) ---- */

int real_watch_start(struct real_env *env) MUST_CHECK;
void real_watch_stop(struct real_env *env);
void real_watch_add(struct real_loop *l); /* on its thread, which real_watch_remove leaves */
void real_watch_remove(struct real_loop *l);
void real_watch_turn(struct real_loop *l); /* a turn begins */
/* Logs the stall that is over, with the stack if the watchdog saw it. */
void real_watch_report(struct real_loop *l, nsec_t stall);

/* ---- io_uring (uring.c), on the loop's thread ---- */

int real_ring_get(struct real_loop *l) MUST_CHECK; /* makes it, if there is none */
void real_ring_free(struct real_loop *l);          /* nothing is in flight */

/* ---- environment and threads (env_real.c) ---- */

int real_thread_start(struct real_env *env, const char *name, bool is_pool,
                      struct real_loop **ret) MUST_CHECK;
/* Waits, uninterruptibly, until the thread's coroutines have left and it has ended. */
co_fn void real_thread_stop(struct real_loop *l);
struct co_loop *real_pool(struct env *env);

/* Runs fn(arg), which may block, on the thread of `target` (NULL: the pool's next) outside any
 * coroutine, so on a full-size stack, and returns its result with its error text.
 * Uninterruptible. Jobs of one target run one at a time, in order of submission. */
co_fn int real_blocking(struct co_loop *target, int (*fn)(void *arg), void *arg);

/* ---- implementations of the table ---- */

int real_lock_file(struct env *, const char *path);
int real_file_read(struct env *, const char *path, char **ret, size_t *ret_len);
int real_file_write(struct env *, const char *path, const void *data, size_t len);

int real_disk_open(struct env *, const char *path, unsigned flags, struct disk **ret);
void real_disk_close(struct disk *);
void real_disk_submit(struct disk_req *);
int real_disk_probe(struct env *, const char *path);

int real_net_listen(struct env *, const char *addr, struct net_listener **ret);
int real_net_accept(struct net_listener *, struct net_conn **ret);
void real_net_listener_close(struct net_listener *);
int real_net_connect(struct env *, const char *from, const char *addr, struct net_conn **ret);
ssize_t real_net_readv(struct net_conn *, const struct iovec *, int n);
ssize_t real_net_writev(struct net_conn *, const struct iovec *, int n);
bool real_net_readable(struct net_conn *);
void real_net_shutdown(struct net_conn *);
void real_net_close(struct net_conn *);
void real_net_conn_move(struct net_conn *, struct co_loop *target);
bool real_net_can_share(struct net_conn *);
int real_net_share(struct net_conn *);
int real_net_share_take(struct net_conn *);
bool real_net_peer_arena(struct net_conn *, struct net_arena *ret);
int real_net_wait_end(struct net_conn *);
int real_net_dgram_open(struct env *, const char *addr, struct net_dgram **ret);
ssize_t real_net_dgram_recv(struct net_dgram *, void *dst, size_t len, struct net_way *ret);
void real_net_dgram_send(struct net_dgram *, const void *src, size_t len, const struct net_way *);
void real_net_dgram_close(struct net_dgram *);

int real_coord_open(struct env *, const char *servers, const char *root, uint32_t session_ms,
                    struct coord **ret);
void real_coord_close(struct coord *);
enum coord_state real_coord_state(const struct coord *);
int real_coord_wait_connected(struct coord *);
int real_coord_get(struct coord *, const char *, void **, size_t *, struct coord_stat *);
int real_coord_children(struct coord *, const char *, char ***, uint32_t *);
int real_coord_sync(struct coord *, const char *);
int real_coord_multi(struct coord *, struct coord_op *ops, int n, bool single, char **ret_path,
                     struct coord_stat *ret_stat);
int real_coord_watch_arm(struct coord *, struct coord_watch *, enum coord_watch_kind, const char *);
void real_coord_watch_cancel(struct coord_watch *);

int real_kv_open(struct env *, const char *path, struct kv **ret);
void real_kv_close(struct kv *);
int real_kv_get(struct kv *, const void *, size_t, void **, size_t *);
int real_kv_write(struct kv *, const struct kv_batch *, bool sync);
int real_kv_scan(struct kv *, const void *, size_t, const void *, size_t, kv_scan_fn, void *);
int real_kv_clear(struct kv *);

#endif
