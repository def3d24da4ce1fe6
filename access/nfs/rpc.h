/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC (RFC 5531), the server's side, over TCP with record marking and over UDP: programs as
 * tables of procedures, many calls of a connection in flight, answers in the order in which they
 * are ready. A program's handler decodes its arguments from the call and puts its results into it;
 * headers, errors of the protocol, credentials and limits are dealt with here. Belongs to the loop
 * that started it. */
#ifndef ZBS_ACCESS_NFS_RPC_H
#define ZBS_ACCESS_NFS_RPC_H

#include "access/nfs/xdr.h"
#include "common/base/addr.h"
#include "common/base/buf.h"
#include "common/co/co.h"

#define ONC_MACHINE_MAX    255u
#define ONC_GIDS_MAX       16u             /* of AUTH_SYS */
#define ONC_RECORD_BYTES   16384u          /* of a call, without its bulk data */
#define ONC_BULK_BYTES     (1024u * 1024u) /* of a call's bulk data */
#define ONC_DATAGRAM_BYTES 8192u           /* of a call or an answer over UDP */

enum onc_auth { ONC_AUTH_NONE = 0, ONC_AUTH_SYS = 1 };

/* What a call was accepted with (accept_stat), and what a handler returns. */
enum onc_accept {
    ONC_SUCCESS = 0,
    ONC_PROG_UNAVAIL = 1,
    ONC_PROG_MISMATCH = 2,
    ONC_PROC_UNAVAIL = 3,
    ONC_GARBAGE_ARGS = 4,
    ONC_SYSTEM_ERR = 5,
    ONC_DROPPED = -1, /* no answer: the client repeats the call */
};

struct onc_cred {
    enum onc_auth flavor;
    uint32_t uid, gid; /* of AUTH_SYS */
    uint32_t gids[ONC_GIDS_MAX];
    uint32_t gid_count;
    char machine[ONC_MACHINE_MAX + 1]; /* as the client calls itself; "" */
};

struct onc_server;
struct onc_conn;
struct onc_source;
struct onc_udp;

/* One call; lives until its answer has left. */
struct onc_call {
    struct onc_conn *conn; /* NULL: it came in a datagram */
    const struct onc_source *source;
    uint32_t xid, program, version, procedure;
    struct onc_cred cred;
    /* Without the bulk data: what is left of it, and where it was. */
    struct xdr_in args;
    const uint8_t *args_start;
    size_t args_len;
    struct xdr_out out; /* the results go here */
    /* Bulk data of the arguments (procedures that have `bulk`), aligned; NULL: none. */
    struct buf *bulk;
    uint32_t bulk_len;
    /* Bulk data of the results, sent behind `out` and padded: the handler puts the length into
     * `out` and gives a reference. NULL: none. */
    struct buf *tail;
    uint32_t tail_off, tail_len;
};

struct onc_procedure {
    const char *name; /* NULL: there is none of this number */
    /* Its arguments end with opaque data that is received in place: reads what is before its
     * length. NULL: no. */
    void (*bulk)(struct xdr_in *args);
    co_fn enum onc_accept (*handler)(struct onc_call *call); /* NULL: no arguments, no results */
};

struct onc_program {
    uint32_t number, version;
    const char *name;
    const struct onc_procedure *procedures;
    uint32_t procedure_count;
};

struct onc_conf {
    const char *listen;                        /* "127.1.0.1:2049"; port 0: a free one */
    const char *name;                          /* for the log: "nfs" */
    const struct onc_program *const *programs; /* outlive the server; ended by NULL */
    void *arg;                                 /* onc_call_arg */
    uint32_t connections;                      /* most at once; 0: 1024 */
    uint32_t calls;                            /* of a connection in flight; 0: 128 */
    uint32_t memory_bytes;                     /* bulk data of a connection; 0: 32 MiB */
    uint32_t stop_timeout_ms;                  /* at a stop, for what is in flight; 0: 1,000 */
};

co_fn int onc_server_start(const struct onc_conf *conf, struct onc_server **ret) MUST_CHECK;
/* Reads no more calls, answers those in flight, closes, frees. */
co_fn void onc_server_stop(struct onc_server *s);
const char *onc_server_addr(const struct onc_server *s); /* with the real port */
/* Ends every connection; calls in flight are cancelled. Does not suspend. why: static. */
void onc_server_drop(struct onc_server *s, const char *why);

/* Its connections, for status. */
struct onc_client_view {
    const char *address; /* with the port */
    const char *machine; /* as its last call's credential says; "" */
    uint64_t calls;
};
void onc_server_clients(const struct onc_server *s,
                        void (*fn)(void *arg, const struct onc_client_view *v), void *arg);

/* The same programs over UDP; of the conf, listen, name, programs and arg count. A call and its
 * answer fit into one datagram of ONC_DATAGRAM_BYTES: longer calls are dropped, longer answers are
 * ONC_SYSTEM_ERR. Procedures that need bulk data can't be called. */
co_fn int onc_udp_start(const struct onc_conf *conf, struct onc_udp **ret) MUST_CHECK;
/* Calls in flight get no answer: their clients repeat them. */
co_fn void onc_udp_stop(struct onc_udp *u);
const char *onc_udp_addr(const struct onc_udp *u); /* with the real port */

void *onc_call_arg(const struct onc_call *call);
const char *onc_call_peer(const struct onc_call *call);             /* "10.0.0.7:813" */
const char *onc_call_local(const struct onc_call *call);            /* where it came to */
const struct addr *onc_call_peer_addr(const struct onc_call *call); /* the same, parsed */
/* Takes memory of the connection for bulk data of the results until the answer has left. */
co_fn int onc_call_reserve(struct onc_call *call, uint32_t bytes) MUST_CHECK;

#endif
