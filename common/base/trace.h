/* SPDX-License-Identifier: Apache-2.0
 *
 * The last things a thread did: a ring of small typed records, a few nanoseconds each, never
 * formatted until an assertion fails and prints them. Callable anywhere.
 *
 *     trace("journal.commit", journal_id, lsn, bytes);
 */
#ifndef ZBS_BASE_TRACE_H
#define ZBS_BASE_TRACE_H

#include "common/base/attr.h"

#define TRACE_RING_RECORDS 128u /* of one thread; a power of two */

/* what: a string literal that names the event; a, b, c: its numbers. */
void trace(const char *what, uint64_t a, uint64_t b, uint64_t c);

/* Prints the calling thread's records to a file descriptor, oldest first. Allocates nothing. */
void trace_dump(int fd);

#endif
