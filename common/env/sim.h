/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated world: one thread, virtual time, one seed. It hosts any number of simulated
 * processes, each with its own environment, whose code is the production object code. The same
 * seed gives the same trace.
 *
 * A step: pop the earliest event (time, then a seeded tie-break), deliver it (timer, disk or
 * network completion, coordination reply, fault), then run the loop it belongs to until no
 * coroutine of it is ready. Time moves only between steps. Each resumption costs the process a
 * small drawn amount of time.
 *
 * Fault model: a crash kills a process between two resumptions: its memory is gone, its sockets
 * are reset, its locks released; each of its disks' unsynced writes is independently kept, lost
 * or torn at 512-byte granularity (durable and flushed ones are kept). A partition drops what is
 * sent between two nodes, in one or both directions, and delays or breaks connections (a stream
 * never loses or reorders bytes in the middle: it stalls, then breaks after rst_after). Time
 * passes equally for all processes, except one that is paused, or whose host's clock drifts. Disk
 * faults: latency spikes, EIO for a while, bit rot of a sector. Coordination: session expiry,
 * unavailable for a while, reply lost (the client sees ERR_UNCERTAIN, the change may be applied).
 *
 * More exactly:
 *   - Streams behave like TCP: while a path is cut, data waits; a side that waits for an answer
 *     breaks after 2 s, an idle one after 10 s, and the other side is not told unless the path
 *     allows it (half-open). A killed process resets its connections; a power loss resets them or
 *     leaves silence, by seed. Connections inside a host know no cuts. An address belongs to the
 *     host that it names; 127.0.0.1 and unix: belong to each host.
 *   - Datagrams overtake each other; those on a path that is cut, or to a socket that is not there
 *     or is full, are lost.
 *   - A write in flight at a crash is kept, lost or torn, also a durable one; so is a write that
 *     fails with ERR_IO. In debug builds a payload that changes while in flight is an assertion.
 *     A discarded page reads as zero or as before.
 *   - The coordination service has a leader and a follower that lags; each handle is attached to
 *     one of them, by seed. A host that is cut from all servers in the handle's list is cut from
 *     the service (so is one that is cut from "*"); the servers' addresses name hosts here too.
 *     Sessions do not expire while the service is unavailable.
 *   - The store loses a suffix of its unsynced batches at a power loss, nothing at a crash.
 *   - Log lines are dropped unless ZBS_SIM_LOG=1 is in the environment; then they go to standard
 *     error with virtual time, process and host, and so do notes.
 *
 * Everything here is called from outside coroutines, or from a control coroutine started by
 * sim_control (on a loop of the world itself, which no fault touches). */
#ifndef ZBS_ENV_SIM_H
#define ZBS_ENV_SIM_H

#include "common/co/co.h"
#include "common/env/phase.h"

struct sim;      /* a world */
struct sim_proc; /* one incarnation-bearing process slot: can be started, crashed, started again */

struct sim_conf {
    uint64_t seed;
    /* probabilities are in parts per million per event of their kind; 0: off */
    nsec_t net_delay_min, net_delay_max;     /* one way; 0,0: 20 us .. 200 us */
    nsec_t disk_delay_min, disk_delay_max;   /* 0,0: 20 us .. 300 us */
    nsec_t coord_delay_min, coord_delay_max; /* 0,0: 200 us .. 3 ms */
    uint32_t net_spike_ppm;                  /* a message delayed up to 500 ms */
    uint32_t disk_spike_ppm;                 /* a request delayed up to 2 s */
    uint32_t disk_eio_ppm;                   /* one request fails */
    uint32_t coord_uncertain_ppm;
    uint32_t net_reset_ppm;  /* a connection breaks */
    uint32_t net_loss_ppm;   /* a datagram does not come */
    uint32_t net_double_ppm; /* it comes twice */
    bool trace;              /* keep the whole trace text (else only its hash) */
};

struct sim *sim_new(const struct sim_conf *conf);
void sim_free(struct sim *s); /* crashes what still runs */

/* host: "127.1.0.1"; processes of one host share partitions (and not disks). name for logs. */
struct sim_proc *sim_proc_new(struct sim *s, const char *host, const char *name);

/* Starts an incarnation: main_fn(arg) is its main coroutine; arg must outlive it and belong to
 * the world, not to the process. Asserts that it is not running. */
void sim_proc_start(struct sim_proc *p, int (*main_fn)(void *arg), void *arg);
void sim_proc_crash(struct sim_proc *p);      /* kill -9 with unsynced writes of its disks kept (the
                                               * kernel survives) */
void sim_proc_power_loss(struct sim_proc *p); /* crash, and unsynced writes are lost or torn */
void sim_proc_stop(struct sim_proc *p);   /* cancels main, waits (runs the world) until it ended */
void sim_proc_pause(struct sim_proc *p);  /* SIGSTOP */
void sim_proc_resume(struct sim_proc *p); /* SIGCONT */
/* Is it in the middle of this? Always false in builds without mutations. */
bool sim_proc_in(const struct sim_proc *p, enum phase phase);
bool sim_proc_running(const struct sim_proc *p);
bool sim_proc_paused(const struct sim_proc *p);
/* 0 while running or crashed by the world; result of main_fn when it returned; the world also
 * records env_halt. sim_proc_halted: reason or NULL. */
int sim_proc_result(const struct sim_proc *p);
const char *sim_proc_halted(const struct sim_proc *p);

/* The clock of a host runs faster (or slower) than the world's time by so much; while none of its
 * processes runs. */
void sim_clock_drift(struct sim *s, const char *host, int32_t ppm);
/* Its wall clock moves, by `by` or back. */
void sim_clock_jump(struct sim *s, const char *host, nsec_t by);

/* Disks exist in the world under a path per process, survive crashes. */
void sim_disk_create(struct sim_proc *p, const char *path, uint64_t size_bytes);
/* Its sectors, physical and logical: 512 (as created) or 4096. While nobody has it open. */
void sim_disk_set_physical(struct sim_proc *p, const char *path, uint32_t bytes);
/* A device of known performance instead of random delays: requests are served one after the
 * other, each for per_request + its length / bytes_per_sec, and complete latency later. A flush
 * waits for those before it. bytes_per_sec 0: random delays again. */
struct sim_disk_speed {
    nsec_t latency, per_request;
    uint64_t bytes_per_sec;
};
void sim_disk_set_speed(struct sim_proc *p, const char *path, const struct sim_disk_speed *speed);
/* From now on (nothing was written yet) contents are kept packed: slower, but a disk that repeats
 * itself takes little memory. No discards. */
void sim_disk_pack(struct sim_proc *p, const char *path);
/* Direct access for checkers and damage: no time passes. What is on media plus unsynced writes. */
void sim_disk_peek(struct sim_proc *p, const char *path, void *dst, size_t len, uint64_t off);
void sim_disk_poke(struct sim_proc *p, const char *path, const void *src, size_t len, uint64_t off);
void sim_disk_wipe(struct sim_proc *p, const char *path);
/* Every request fails with ERR_IO while set. */
void sim_disk_fail(struct sim_proc *p, const char *path, bool failing);
/* While set, requests are taken and not answered. */
void sim_disk_hang(struct sim_proc *p, const char *path, bool hanging);
/* While set, what it acknowledges as durable is in its volatile cache only, and a flush does
 * nothing. A power loss takes it back to some moment since it began to lie: later writes are lost,
 * all of them. When it ends, everything becomes durable. */
void sim_disk_lie(struct sim_proc *p, const char *path, bool lying);
/* Some page with content, by `draw`; false if there is none. */
bool sim_disk_some_page(struct sim_proc *p, const char *path, uint64_t draw, uint64_t *ret_no);
/* Called before each device write is applied; for crash-point enumeration. n counts from 1 since
 * the disk's creation; return true to power-fail the process at this point. */
typedef bool (*sim_disk_hook)(void *arg, struct sim_proc *p, uint64_t n);
void sim_disk_set_hook(struct sim_proc *p, const char *path, sim_disk_hook hook, void *arg);
uint64_t sim_disk_bytes_written(struct sim_proc *p, const char *path);

/* Network between hosts ("*": all others). */
void sim_net_cut(struct sim *s, const char *from_host, const char *to_host); /* one way */
void sim_net_heal(struct sim *s, const char *from_host, const char *to_host);
void sim_net_heal_all(struct sim *s);

/* Coordination service. */
void sim_coord_expire(struct sim *s, struct sim_proc *p); /* all sessions of p */
void sim_coord_available(struct sim *s, bool available);
void sim_coord_cut(struct sim *s, struct sim_proc *p, bool cut); /* p can't reach it */

/* Changes the probabilities (for "now heal and demand progress"). */
void sim_set_conf(struct sim *s, const struct sim_conf *conf);

/* Running. */
nsec_t sim_now(const struct sim *s);
bool sim_step(struct sim *s); /* false: nothing left to happen */
void sim_run_for(struct sim *s, nsec_t span);
/* Until pred(arg) holds (checked after every step) or the span `limit` of virtual time has passed:
 * true if it holds. */
bool sim_run_until(struct sim *s, bool (*pred)(void *arg), void *arg, nsec_t limit);
/* A coroutine of the world itself, with an environment whose host is `host`: workloads and fault
 * schedules written as straight code. It may call the sim_* functions but those that run the world
 * (sim_proc_stop suspends it instead). Those of one host share a loop, hence may share locks and
 * memory. What is left of it at sim_free is discarded. */
void sim_control(struct sim *s, const char *host, const char *name, int (*fn)(void *arg),
                 void *arg);
uint32_t sim_control_running(const struct sim *s); /* control coroutines not yet ended */
uint64_t sim_random(struct sim *s);                /* the world's generator, for schedules */

/* Trace: every event (and everything said with sim_note) folded into a hash. */
void sim_note(struct sim *s, const char *fmt, ...) PRINTF_FMT(2, 3);
uint64_t sim_trace_hash(const struct sim *s);
const char *sim_trace_text(const struct sim *s); /* NULL unless conf.trace */

#endif
