/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated streams. A pair has two ends and two directions; bytes fly as segments, in order.
 * Model of TCP as an application sees it:
 *   - a writer may be a window ahead of what the reader has taken;
 *   - while the path is cut nothing arrives; what is waiting for an answer breaks its side after
 *     rst_after, an idle side breaks after a keepalive time, and the other side is not told
 *     unless the path allows it: it may stay half-open and learns when it sends;
 *   - shutdown and close end the stream after all data; a killed process resets it (what the
 *     reader has not taken is lost); a power loss resets it or leaves silence, by chance;
 *   - connections inside one host know no cuts. */
#ifndef ZBS_ENV_SIM_STREAM_H
#define ZBS_ENV_SIM_STREAM_H

#include "common/env/sim/sim_internal.h"

#define SIM_WINDOW    (1024u * 1024)
#define SIM_RST_AFTER (2 * NSEC_PER_SEC)
#define SIM_KEEPALIVE (10 * NSEC_PER_SEC)

struct sim_pair;

struct sim_listener {
    struct net_listener base; /* first */
    struct list link;         /* of the world */
    struct list proc_link;
    struct sim_proc *proc;
    char ip[NET_ADDR_MAX]; /* "" for a UNIX socket */
    uint32_t port;
    struct list backlog; /* struct sim_end, connected, not yet accepted */
    uint32_t backlog_count;
    struct list acceptors; /* co_wait */
    uint32_t accepting;    /* coroutines in net_accept */
    bool closed;           /* freed by the last of them */
};

struct sim_end {
    struct net_conn base; /* first */
    struct list link;     /* of the process */
    struct list backlog_link;
    struct sim_listener *listener; /* while in its backlog */
    struct sim_proc *proc;
    struct sim_pair *pair;
    int side;
    bool broken;
    const char *why; /* it broke */
    struct list readers, writers;
};

struct sim_dir { /* from one side to the other */
    struct sim_pair *pair;
    int from;
    struct list flying, ready; /* struct sim_seg */
    size_t ready_bytes;
    size_t unacked;  /* sent and not yet known to be taken */
    size_t consumed; /* taken and not yet told */
    nsec_t last_at;
    bool fin_sent, fin_seen;
    bool data_stalled, ack_stalled;
    struct sim_event data_ev, ack_ev, stall_ev;
};

struct sim_pair {
    struct list link; /* of the world */
    struct sim *sim;
    uint64_t id;
    char host[2][SIM_HOST_MAX];
    bool local; /* both ends on one host */
    bool dark;  /* one side lost power without a word */
    bool connected;
    int syn_phase; /* 0: to the listener, 1: accepted, on its way back, 2: refused */
    char addr[NET_ADDR_MAX];
    struct sim_end *end[2]; /* NULL: closed */
    struct sim_dir dir[2];
    struct sim_event rst_ev[2], syn_ev, keep_ev;
};

nsec_t sim_net_delay(struct sim_pair *pair);
struct sim_pair *sim_pair_new(struct sim *s, const char *from, const char *to);
struct sim_end *sim_end_new(struct sim_pair *pair, int side, struct sim_proc *p);
/* Queues bytes (at most the free window), or the end of the stream. */
void sim_dir_send(struct sim_dir *d, const struct iovec *iov, int n, size_t len);
void sim_dir_send_fin(struct sim_dir *d);
/* Takes up to the vector's bytes of what has arrived. */
size_t sim_dir_take(struct sim_dir *d, const struct iovec *iov, int n);
/* The end breaks: who waits in it gets ERR_CLOSED. */
void sim_end_break(struct sim_end *e, const char *why);
enum sim_close_how { SIM_CLOSE_FIN, SIM_CLOSE_RST, SIM_CLOSE_SILENT };
/* Frees the end; the pair goes with its second end. */
void sim_end_close(struct sim_end *e, enum sim_close_how how);
/* Tells the other side's end that this one is gone. */
void sim_pair_reset(struct sim_pair *pair, int side);
bool sim_pair_cut(const struct sim_pair *pair, int from);

#endif
