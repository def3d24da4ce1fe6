/* SPDX-License-Identifier: Apache-2.0
 *
 * One direction of a byte stream through memory that two processes share. Each of its words has one
 * writer, but for the two flags, which their owner sets and either side clears. Nothing in shared
 * memory is believed: each side keeps its own position for itself, takes one copy of the other's
 * and checks it, so that a peer can garble the stream, as it can on a socket, but make nobody read
 * or write outside it. Bytes are copied out before anything looks at them.
 *
 * Who finds nothing to do announces that it sleeps, looks once more, and then waits for a doorbell;
 * the other rings only if it sees the announcement. */
#ifndef ZBS_ENV_RING_H
#define ZBS_ENV_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>
#include "common/base/attr.h"

#define RING_BYTES 65536u /* a power of two */

struct ring_mem {
    /* written by the writer */
    _Atomic uint32_t tail; /* bytes ever put in, wrapping */
    _Atomic uint32_t writer_sleeps;
    _Atomic uint32_t closed; /* nothing more will be put in */
    _Atomic uint32_t cpu;    /* that the writer wants the reader on, from 1; 0: any */
    uint32_t pad0[12];
    /* written by the reader */
    _Atomic uint32_t head; /* bytes ever taken out, wrapping */
    _Atomic uint32_t reader_sleeps;
    uint32_t pad1[14];
    uint8_t bytes[RING_BYTES];
};

/* One side's view. */
struct ring {
    struct ring_mem *mem;
    uint32_t pos; /* our own tail or head */
};

/* Takes out what fits: bytes, 0 if there are none, ERR_PROTO if the writer's position is
 * impossible. *ret_ring: the writer sleeps for want of room, and is to be woken. */
ssize_t ring_read(struct ring *r, const struct iovec *iov, int n, bool *ret_ring) MUST_CHECK;
/* Puts in what fits: bytes, 0 if it is full, ERR_PROTO. *ret_ring: the reader is to be woken. */
ssize_t ring_write(struct ring *w, const struct iovec *iov, int n, bool *ret_ring) MUST_CHECK;

/* The end: what is in the ring can still be taken out. The reader is to be woken. */
void ring_close(struct ring *w);
/* To be asked before a read that finds nothing means the end. */
bool ring_closed(const struct ring *r);

/* Would the next call return anything but 0? An impossible position counts. */
bool ring_readable(const struct ring *r);
bool ring_writable(const struct ring *w);

/* Announces that the reader (writer) is about to sleep. False: it need not, after all. */
bool ring_reader_sleeps(struct ring *r) MUST_CHECK;
bool ring_writer_sleeps(struct ring *w) MUST_CHECK;

#endif
