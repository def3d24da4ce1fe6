/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated host with an NBD server over memory and a body of code beside it, and a small client
 * to be used by that body: the frame of the tests of access/nbd. */
#ifndef ZBS_TESTS_NBDWORLD_H
#define ZBS_TESTS_NBDWORLD_H

#include "access/nbd/nbd_int.h"

#define NW_EXPORT  "pool/one"
#define NW_OTHER   "pool/two"
#define NW_SIZE    (64u * 1024 * 1024)
#define NW_EXPORTS 2u
#define NW_UNIX    "unix:/run/nbd"

struct nbdworld {
    /* set by the test */
    void (*body)(struct nbdworld *w);
    void (*setup)(struct nbdworld *w); /* before the server starts; NULL: nothing to do */
    void *arg;
    struct nbd_conf conf; /* addresses, open, list and arg (the world) are filled in */
    struct net_tls *tls;  /* for conf.tls_identity; freed at the end; NULL */
    uint64_t seed;        /* 0: 1 */
    /* for the body */
    struct nbd_server *server;
    const char *addr;
    struct block_backend *last; /* the one opened last */
    uint32_t opens, closes;
};

/* Runs the body in a fresh world; stops the server afterwards unless the body did (and set
 * w->server to NULL). Every back end must be closed then, and no memory left. */
void nbdworld_run(struct nbdworld *w);
/* Waits until no connection is left. */
co_fn void nbdworld_quiet(struct nbdworld *w);

/* ---- client ---- */

struct nc { /* NBD client */
    struct net_conn *net;
    uint64_t cookie; /* last one given */
    uint64_t size;   /* of the export */
    uint16_t flags;
    uint32_t block_min, block_preferred, payload_max;
};

struct nc_option_reply {
    uint32_t option, type, len;
    uint8_t data[1024];
};

/* One answer: a simple reply, or a chunk of a structured one. */
struct nc_reply {
    bool structured;
    uint16_t flags, type;
    uint32_t error; /* of a simple reply or an error chunk */
    uint64_t cookie;
    uint32_t len; /* of the payload; data of a simple reply has to be fetched with nc_get */
    uint8_t *data;
};

co_fn void nc_connect(struct nc *n, const char *addr);
void nc_close(struct nc *n);
co_fn int nc_put(struct nc *n, const void *data, size_t len) MUST_CHECK;
co_fn int nc_get(struct nc *n, void *data, size_t len) MUST_CHECK;
/* Greeting and client flags. */
co_fn void nc_hello(struct nc *n, uint32_t flags);
co_fn int nc_option(struct nc *n, uint32_t type, const void *data, uint32_t len) MUST_CHECK;
co_fn int nc_option_get(struct nc *n, struct nc_option_reply *r) MUST_CHECK;
/* The type of the last reply, after infos and the like. */
co_fn uint32_t nc_option_ask(struct nc *n, uint32_t type, const void *data, uint32_t len);
/* Name and (INFO, GO) kinds of information, or (contexts) one query; "" for none. */
uint32_t nc_go_data(uint8_t *dst, const char *name);
uint32_t nc_meta_data(uint8_t *dst, const char *name, const char *query);
/* Connects, negotiates what is asked for, GO. */
co_fn void nc_open(struct nc *n, const char *addr, bool structured, bool context);

co_fn int nc_send(struct nc *n, uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
                  const void *data) MUST_CHECK;
co_fn int nc_recv(struct nc *n, struct nc_reply *r) MUST_CHECK;
void nc_reply_free(struct nc_reply *r);
/* One request and its answer: 0 or NBD_E*. A read with structured replies is put together. */
co_fn uint32_t nc_do(struct nc *n, uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
                     void *data);

#endif
