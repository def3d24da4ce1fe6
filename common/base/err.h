/* SPDX-License-Identifier: Apache-2.0
 *
 * The one error table. Every fallible function returns 0 (or a count) on success and a negative
 * ERR_* on failure; the numbers are stable, because they travel in RPC replies. System errno
 * values are converted where they arise (common/env, common/kv, common/coord) by err_from_errno.
 *
 * A code says what kind of failure it is; a text says what failed, on what, and what to do. The
 * text lives in a slot of the running coroutine (of the thread outside coroutines): the lowest
 * layer sets it with err_set, upper layers may prefix it, and the one who answers or swallows the
 * error reports it once. A function that returns a code without calling err_set leaves the text
 * of the last err_set, so: whoever turns a condition into an error sets the text.
 *
 *     if (size % SECTOR_BYTES != 0)
 *         return err_set(ERR_INVAL, "size %" PRIu64 " is not a multiple of 512", size);
 *     rc = disk_write(...);
 *     if (rc < 0)
 *         return err_prefix(rc, "journal %u", id);
 */
#ifndef ZBS_BASE_ERR_H
#define ZBS_BASE_ERR_H

#include "common/base/attr.h"

/* X(name, number, default text) */
#define ERR_LIST(X)                                                                                \
    X(INVAL, 1, "invalid argument")                                                                \
    X(NOMEM, 2, "out of memory")                                                                   \
    X(IO, 3, "input/output error")                                                                 \
    X(NOTFOUND, 4, "not found")                                                                    \
    X(EXISTS, 5, "already exists")                                                                 \
    X(BUSY, 6, "busy")                                                                             \
    X(TIMEOUT, 7, "deadline passed")                                                               \
    X(CANCELED, 8, "canceled")                                                                     \
    X(CLOSED, 9, "connection closed")                                                              \
    X(PROTO, 10, "protocol violation by the peer")                                                 \
    X(VERSION, 11, "version not supported")                                                        \
    X(TOO_LARGE, 12, "over a limit")                                                               \
    X(NOSPACE, 13, "no space left")                                                                \
    X(CORRUPT, 14, "checksum mismatch")                                                            \
    X(UNSUPPORTED, 15, "not supported")                                                            \
    X(PERM, 16, "not permitted")                                                                   \
    X(AGAIN, 17, "temporarily unavailable, try again")                                             \
    X(NOT_LEADER, 18, "not the meta leader")                                                       \
    X(NOT_OWNER, 19, "not the owner of the extent")                                                \
    X(STALE, 20, "stale epoch, term, set number or version")                                       \
    X(NOT_OPEN, 21, "extent is not open under this epoch since the server's start")                \
    X(NO_REPLICA, 22, "replica is missing")                                                        \
    X(MISCOMPARE, 23, "compared data differs")                                                     \
    X(RESERVED, 24, "reservation conflict")                                                        \
    X(AMBIGUOUS, 25, "outcome unknown")                                                            \
    X(EXPIRED, 26, "session expired")                                                              \
    X(REFUSED, 27, "refused")                                                                      \
    X(UNREACHABLE, 28, "peer cannot be reached")                                                   \
    X(NOT_EMPTY, 29, "not empty")                                                                  \
    X(FORMAT, 30, "unknown or damaged format")                                                     \
    X(HALTED, 31, "service is stopping")                                                           \
    X(UNCERTAIN, 32, "may or may not have been applied")                                           \
    X(ACCESS, 33, "permission denied")                                                             \
    X(NOT_DIR, 34, "not a directory")                                                              \
    X(IS_DIR, 35, "is a directory")                                                                \
    X(NAME_TOO_LONG, 36, "name too long")                                                          \
    X(CONFLICT, 37, "another's lock is in the way")

enum err {
#define X(name, number, text) ERR_##name = -(number),
    ERR_LIST(X)
#undef X
};

/* "NOSPACE" for ERR_NOSPACE; "?" for an unknown code. Never NULL, static. */
const char *err_name(int rc);

/* The default text of a code. Never NULL, static. */
const char *err_default_text(int rc);

/* Sets the text of the running coroutine's error slot; returns rc, so that it ends a return
 * statement. rc must be negative. Text beyond 255 bytes is cut. */
int err_set(int rc, const char *fmt, ...) PRINTF_FMT(2, 3);

/* Puts "prefix: " before the present text; returns rc. */
int err_prefix(int rc, const char *fmt, ...) PRINTF_FMT(2, 3);

/* The text last set in this coroutine for rc, or the default text if the last one set was for
 * another code. Valid until the next err_set in this coroutine. */
const char *err_text(int rc);

/* Maps a positive errno to an ERR_* and sets the text to "what: strerror". */
int err_from_errno(int errnum, const char *fmt, ...) PRINTF_FMT(2, 3);

/* Where a coroutine's error text is kept; one per coroutine, one per plain thread. */
struct err_slot {
    int rc;
    char text[256];
};

/* The slot that err_set writes: the running coroutine's, its loop's outside coroutines, else the
 * thread's. */
struct err_slot *err_slot_current(void);

/* What compilers and analysers cannot see across files: these return the code that they were given,
 * which is negative. */
static inline int err_given(int rc, int same)
{
    (void)same;
    return rc;
}
#define err_set(rc, ...)    err_given((rc), err_set((rc), __VA_ARGS__))
#define err_prefix(rc, ...) err_given((rc), err_prefix((rc), __VA_ARGS__))
#ifdef __clang_analyzer__
#define err_from_errno(errnum, ...) err_given(ERR_IO, err_from_errno((errnum), __VA_ARGS__))
#endif

#endif
