/* SPDX-License-Identifier: Apache-2.0
 *
 * Pages in memory as they lie on the device, for readers. A page is named by its place on the
 * device, so extents that share blocks share it.
 *
 * Why nothing stale is served: readers put in what they read from a place that the map names, after
 * its checksum was verified, while they hold the page's range lock and a pin, so neither can the
 * page be written meanwhile nor its block be given out anew. A place gets other content by a write
 * to a block that no map names yet, or to a page that is not valid or has a journaled page, which
 * readers look at first. So it is enough to drop the place when the map begins to answer for what
 * was written there (cache_drop). Besides, the checksum in the map must be the one that the page
 * had; one that has another is counted as stale and not used.
 *
 * Which stay (S3-FIFO): a page begins in a queue of a tenth of the cache and leaves at its end,
 * unless it was read again; then it moves to the main part. What left is remembered by its name
 * for a while, and goes straight to the main part when it comes back. So what is read once drives
 * out nothing that is read often. Pages that were read ahead have a queue of their own and leave
 * with their first use. */
#ifndef ZBS_CHUNK_CACHE_H
#define ZBS_CHUNK_CACHE_H

#include <stdbool.h>
#include "common/base/buf.h"

struct dev;
struct engine;
struct cache;

/* Joins the engine's budget; what others need is taken from the cache first. */
struct cache *cache_new(struct engine *e);
void cache_free(struct cache *c);

enum cache_answer { CACHE_MISS, CACHE_HIT, CACHE_AHEAD, CACHE_LOADING };
struct cached {
    struct buf *buf; /* borrowed until the next suspension */
    const uint8_t *data;
};
/* Looks for the page at a byte of the device that must have this checksum. AHEAD: it was read
 * ahead and not used yet. LOADING: it is just being read ahead; dev->loaded says when that ends. */
enum cache_answer cache_find(struct dev *d, uint64_t off, uint32_t crc, struct cached *ret);
/* A page that a reader missed and has read and verified; refers to the buffer. */
void cache_put(struct dev *d, uint64_t off, struct buf *buf, const uint8_t *data, uint32_t crc);
/* So many pages from there on have new content. */
void cache_drop(struct dev *d, uint64_t off, uint32_t count);
void cache_drop_dev(struct dev *d); /* it is being closed */

/* Reading ahead: announces the page, false if it is there already or there is no room; then brings
 * it, or not (buf NULL). Then its only use. Pages that share a buffer are of one run, which counts
 * against the budget until the last of them leaves; *run: NULL before the first. */
struct cache_run;
bool cache_ahead_begin(struct dev *d, uint64_t off, struct cache_run **run);
void cache_ahead_end(struct dev *d, uint64_t off, struct buf *buf, const uint8_t *data,
                     uint32_t crc);
void cache_ahead_used(struct dev *d, uint64_t off);
uint32_t cache_ahead_room(const struct engine *e); /* pages that one stream may have ahead */

#endif
