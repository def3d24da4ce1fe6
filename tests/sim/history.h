/* SPDX-License-Identifier: Apache-2.0
 *
 * What the clients of a simulated cluster did, sector by sector, and the check that it is
 * linearizable (design section 12, invariants 1 and 2).
 *
 * Every write carries a value of its own, so that a read names the write it saw. For a register
 * with unique values the question is decided exactly and fast (Gibbons and Korach, 1997): each
 * value's operations span a zone from the earliest return to the latest call; the history is
 * linearizable if no read returns before its write was called, no two forward zones (return before
 * call) overlap, and no backward zone lies inside a forward one. Sectors that were also zeroed,
 * discarded, or compared and written are decided by search (search.h).
 *
 * Time is a counter of recorded events: the world has one thread, so their order is real. An
 * operation that never returned (its client died, or it failed with an unknown outcome) may take
 * effect at any later time, or never. Sectors are of any volume: see SECTOR_OF. All memory is the
 * world's. */
#ifndef ZBS_TESTS_SIM_HISTORY_H
#define ZBS_TESTS_SIM_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

struct history;

struct history *history_new(void);
void history_free(struct history *h);

/* The sectors of volume number n (0: the main one) begin at this one. */
#define SECTOR_OF(n) ((uint64_t)(n) << 40)

/* A change of `count` sectors from sector `first` is about to be called: a write, or one that makes
 * them zero. Returns a handle, never 0; for a write it is its unique value. */
uint64_t history_write_call(struct history *h, uint64_t first, uint32_t count);
/* The same, but until it returns it may take effect several times, as what is repeated by itself
 * does while its outcome is not known. */
uint64_t history_repeated_call(struct history *h, uint64_t first, uint32_t count);
uint64_t history_zero_call(struct history *h, uint64_t first, uint32_t count);
/* A compare and write of one sector that `old` was seen in; returns handle and value. */
uint64_t history_swap_call(struct history *h, uint64_t sector, uint64_t old);
/* It was acknowledged. */
void history_return(struct history *h, uint64_t op);
/* It certainly had no effect (refused before anything was applied). */
void history_void(struct history *h, uint64_t op);

/* A read is about to be called; returns a handle. */
uint64_t history_read_call(struct history *h);
/* It saw `value` (0: never written, or zeroed) in this sector; once for each sector. */
void history_read_saw(struct history *h, uint64_t read, uint64_t sector, uint64_t value);

/* A moment, for history_saw_between. */
uint64_t history_tick(struct history *h);
/* At some moment between these two the sector held this value: a snapshot says so. */
void history_saw_between(struct history *h, uint64_t call, uint64_t ret, uint64_t sector,
                         uint64_t value);

/* Checks everything recorded so far; NULL if linearizable, else a description (the history's
 * memory) of the first violation. */
const char *history_check(struct history *h);

uint64_t history_ops(const struct history *h); /* completed reads and writes */
/* Sectors that history_check decided by search, and those that were too much for it. */
void history_searched(const struct history *h, uint64_t *ret_searched, uint64_t *ret_undecided);

#endif
