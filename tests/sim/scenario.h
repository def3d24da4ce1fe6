/* SPDX-License-Identifier: Apache-2.0
 *
 * What a seed stands for, as data: how long clients run, how noisy the world is, and a list of
 * events (faults, and what an operator does meanwhile), each with its time. A seed draws a
 * scenario; a scenario can be written as text, shortened by whoever looks for the shortest one that
 * still fails (tests/sim/shrink.py), read again and run.
 *
 * The text, one thing per line; times in milliseconds of virtual time since the volume exists:
 *
 *   seed 17               the world's: delays, the scheduler, what clients do
 *   span 25000            how long clients run and events strike
 *   clients 2             on each access server
 *   files 1               or 0: there is a share, too (files.h)
 *   replicas 3            of the volume
 *   disks 2               of each chunk server
 *   disk_mib 4096         size of each
 *   noise net-spike ...   kinds of small disturbances, at any time
 *   drift 9000 -30000 0   how much faster each host's clock runs, in parts per million
 *   event 1200 crash host-2 chunk 0 400 joining
 *                         at, what, where (host-N or leader), whose (meta, chunk, access), an
 *                         argument that depends on what, how long until it is undone, and: not
 *                         before some process is in this phase (common/env/phase.h), if that
 *                         comes within WHEN_LIMIT; whoever is in it is the one to be struck if
 *                         that is possible; "-": at once */
#ifndef ZBS_TESTS_SIM_SCENARIO_H
#define ZBS_TESTS_SIM_SCENARIO_H

#include <stdio.h>

#include "common/env/sim.h"

#define HOSTS      3
#define ON_LEADER  HOSTS /* in place of a host: whoever leads then */
#define EVENTS_MAX 256
#define WHEN_LIMIT (4 * NSEC_PER_SEC)

#define SLOW_DISK_STEP 1000 /* in the argument of disk-slow */

#define LARGE_DISK_MIB 4096 /* never full */

/* Two clocks may run apart by a sixteenth at most: that is the least margin that somebody leaves
 * who relies on another's clock (a meta leader's authority; leases have more). */
#define DRIFT_MAX_PPM 30000

enum role { ROLE_META, ROLE_CHUNK, ROLE_ACCESS, ROLES };

#define FAULT_LIST(X)                                                                              \
    X(CRASH, "crash")               /* kill -9 of one process, restarted later */                  \
    X(POWER, "power")               /* a host loses power: all its processes, unsynced writes */   \
    X(POWER_ALL, "power-all")       /* all hosts at once */                                        \
    X(PAUSE, "pause")               /* SIGSTOP; arg: mask of roles on that host */                 \
    X(SUSPEND, "suspend")           /* a whole host sleeps: its clocks jump */                     \
    X(PARTITION, "partition")       /* arg: direction 0..2, + 4 * (1 + peer), or all others */     \
    X(COORD_EXPIRE, "coord-expire") /* a coordination session expires */                           \
    X(COORD_CUT, "coord-cut")       /* a meta server can't reach the coordination service */       \
    X(COORD_DOWN, "coord-down")     /* nobody can */                                               \
    X(DISK_SLOW, "disk-slow")   /* a disk answers after some ms; arg: ms + 1000 * its number */    \
    X(DISK_HANG, "disk-hang")   /* disk number arg does not answer; as with those below */         \
    X(DISK_FAIL, "disk-fail")   /* a disk answers with errors */                                   \
    X(DISK_LIE, "disk-lie")     /* acknowledges what is not durable, then the power fails */       \
    X(BIT_ROT, "bit-rot")       /* a bit of a data page flips */                                   \
    X(READDRESS, "readdress")   /* a chunk server ends and comes back at another address */        \
    X(DISK_DRAIN, "disk-drain") /* the second disk is drained, later it takes part again */        \
    X(RESIZE, "resize")         /* the volume grows */                                             \
    X(EXTRA_CREATE, "extra-create") /* another volume */                                           \
    X(EXTRA_DELETE, "extra-delete") /* the oldest of the other volumes goes */                     \
    X(SNAPSHOT, "snapshot")         /* of the volume; arg 1: and of another one */                 \
    X(CLONE, "clone")               /* a volume from a snapshot */                                 \
    X(ROLLBACK, "rollback")         /* another volume goes back to a snapshot */                   \
    X(RELEASE, "release")           /* an access server ends in peace, and comes back */           \
    X(POLICY, "policy")             /* other replicas and a limit, later as before */              \
    X(WALL_JUMP, "wall-jump")       /* a host's wall clock is arg seconds ahead, later not */      \
    X(DISK_ADD, "disk-add")         /* another disk joins a running chunk server */                \
    X(DISK_REMOVE, "disk-remove")   /* that one is drained and removed */                          \
    X(DISK_REPLACE, "disk-replace") /* a disk fails; it is given up for a new one */               \
    X(FILL, "fill")                 /* clients fill the disks, later they discard that */          \
    X(FLATTEN, "flatten")           /* a volume gets blocks of its own */                          \
    X(GRACE, "grace")               /* what is absent for arg seconds is made anew elsewhere */

enum fault {
#define X(name, text) FAULT_##name,
    FAULT_LIST(X)
#undef X
        FAULTS,
    FAULTS_FIRST = FAULT_WALL_JUMP /* those before it share a generator: scenario_draw.c */
};

enum noise { NOISE_NET_SPIKE, NOISE_NET_RESET, NOISE_UNCERTAIN, NOISE_DISK_SPIKE, NOISES };

struct fault_event {
    nsec_t at, span;
    enum fault kind;
    uint32_t host, role, arg;
    enum phase when; /* PHASES: at once */
};

struct scenario {
    uint64_t seed;
    nsec_t span;
    uint32_t clients, replicas, disks, noise; /* noise: mask */
    uint32_t disk_mib;
    uint32_t files;
    int32_t drift_ppm[HOSTS];
    uint32_t count;
    struct fault_event events[EVENTS_MAX]; /* by time */
};

const char *fault_name(enum fault f);
const char *role_name(enum role r);

void scenario_draw(struct scenario *s, uint64_t seed, nsec_t span);
void scenario_print(const struct scenario *s, FILE *to);
/* False, with what is wrong on standard error, if the text is no scenario. */
bool scenario_read(struct scenario *s, FILE *from);
void scenario_conf(const struct scenario *s, struct sim_conf *conf);

/* Does it lose or spoil what one host holds? */
bool scenario_fragile(const struct scenario *s);

/* One event as a line of the text, without its time. */
const char *event_text(const struct fault_event *e, char *dst, size_t room);

#endif
