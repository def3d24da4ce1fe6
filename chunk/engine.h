/* SPDX-License-Identifier: Apache-2.0
 *
 * The storage engine of one worker: its extents, and on each disk its region (journal, metadata,
 * blocks). No RPC in here. An engine belongs to the loop that started it; everything is called
 * from coroutines of that loop. Errors are negative ERR_* with a text that names the extent.
 *
 * What "open" and "epoch" mean is PROTOCOL 2; versions and commit points are sections 2 and 3. */
#ifndef ZBS_CHUNK_ENGINE_H
#define ZBS_CHUNK_ENGINE_H

#include "chunk/format.h"
#include "common/base/buf.h"
#include "common/co/co.h"
#include "common/env/env.h"

struct engine;

struct version {
    uint64_t epoch, gen;
};
static inline int version_cmp(struct version a, struct version b)
{
    if (a.epoch != b.epoch)
        return a.epoch < b.epoch ? -1 : 1;
    return a.gen < b.gen ? -1 : a.gen > b.gen;
}

/* ---- devices (super.c) ---- */

/* Reads and validates both superblocks; *ret is the newer one. ERR_FORMAT says what was found
 * instead. */
co_fn int super_read(const char *path, struct super_block *ret) MUST_CHECK;
/* The same; says which copies are good. */
co_fn int super_read_copies(const char *path, struct super_block *ret, bool whole[2]) MUST_CHECK;
/* Overwrites both copies, the device is nobody's then. */
co_fn int super_wipe(const char *path, const struct super_block *sb) MUST_CHECK;
/* Writes both copies with the generation raised by one, durably, one after the other. */
co_fn int super_write(const char *path, struct super_block *sb) MUST_CHECK;

/* ---- journals on another device (guest.c) ---- */

/* Its journals are on another device, its host. */
bool super_is_guest(const struct super_block *sb);
/* Is the slot that a guest names on this host its own? */
int guest_check(const struct super_block *sb, const char *host_path,
                const struct super_block *host) MUST_CHECK;
/* The guest gives its slot back, durably; does nothing if it has none there. */
co_fn int guest_leave(const struct super_block *sb, const char *host_path,
                      struct super_block *host) MUST_CHECK;

/* ---- life ---- */

struct engine_conf {
    uint32_t worker, workers;
    uint64_t memory_bytes;      /* all that it keeps in memory, see README; 0: 1 GiB */
    uint32_t flush_delay_ms;    /* 0: 1000 */
    uint32_t merge_us;          /* how long sequential writes wait to be merged; 0: 200 */
    uint32_t readahead;         /* bytes ahead of a sequential reader, at most; 0: 1 MiB */
    uint64_t drain_bytes_per_s; /* at most; 0: whatever requests leave */
    /* Called on the engine's loop when a device has failed; may be NULL. Must not suspend. */
    void (*dev_failed)(void *arg);
    void *dev_failed_arg;
    /* For fsck.c. Writes go there (NULL: to the device); the accounting is not believed. */
    struct disk_overlay *overlay;
    bool rebuild;
};
#define MERGE_NEVER     UINT32_MAX
#define READAHEAD_NEVER UINT32_MAX
struct engine *engine_new(const struct engine_conf *conf);
/* Opens this worker's region of a device that has its own journals, and replays them. */
co_fn int engine_dev_add(struct engine *e, const char *path,
                         const struct super_block *sb) MUST_CHECK;
/* The device that has the journals of another. */
struct journal_host {
    const char *path;
    const struct super_block *sb;
    struct disk_overlay *overlay; /* as engine_conf's */
};
/* The same of a guest. If the engine has the host's region, too, and that fails, so does the guest
 * (but not the other way round). */
co_fn int engine_dev_add_guest(struct engine *e, const char *path, const struct super_block *sb,
                               const struct journal_host *host) MUST_CHECK;
/* Closes a device; its extents are not known any more. No request may be running on them. */
co_fn void engine_dev_drop(struct engine *e, const char *path);
/* Ends background work and frees. No request may be running. Nothing is written that need not
 * be: the next start replays. */
co_fn void engine_stop(struct engine *e);
/* Writes everything home and trims the journals (tests, drain). */
co_fn int engine_flush(struct engine *e) MUST_CHECK;

/* Says how many devices of the server are out of service: what is not known here may be there. */
void engine_devs_absent(struct engine *e, uint32_t n);

/* ---- emptying and removing a device (drain.c) ---- */

/* Begins to move every extent of a device to the engine's other devices, in the background, while
 * they are read and written; the device gets no new extents. Once more after it stopped: tries
 * again. dev_stats tells how far it is. Not remembered over a restart: the server does that. */
int engine_drain(struct engine *e, const char *path) MUST_CHECK;
/* Extents that share blocks move to one device and go on sharing. Whether those for which none has
 * room together move, too, each to where it has room, as full copies; if not (as at first), the
 * drain stops when only such are left. */
void engine_drain_copies(struct engine *e, const char *path, bool on);
/* Waits for its end. 0: nothing is left there; ERR_NOSPACE with the reason why it stopped (none of
 * the others has room, for extents that share blocks together, or a device failed); ERR_CANCELED:
 * it was ended. */
co_fn int engine_drain_wait(struct engine *e, const char *path) MUST_CHECK;
/* Ends it, and the device takes new extents again. What was moved stays where it is. */
co_fn void engine_drain_stop(struct engine *e, const char *path);
/* Closes a device that holds nothing; force: or one that has failed, whose replicas are given up.
 * ERR_BUSY otherwise. */
co_fn int engine_dev_remove(struct engine *e, const char *path, bool force) MUST_CHECK;
enum drain { DRAIN_NONE, DRAIN_RUNNING, DRAIN_DONE, DRAIN_STOPPED };

enum disk_state { DISK_HEALTHY, DISK_FAILING, DISK_FAILED, DISK_DRAINING };
struct dev_stats {
    uint64_t size_bytes, used_bytes; /* of data blocks in this region */
    uint64_t reserved_bytes;         /* of those not in use: promised to reserved extents */
    uint64_t extents;
    uint64_t journal_bytes, journal_used_bytes;
    uint64_t bytes_written;
    enum disk_state state;
    enum drain drain;
    const char *drain_why; /* it stopped */
    const char *path;
    const char *journal_path; /* the device that has its journal */
    const char *error;        /* "" if none */
    const char *model;
    const uint8_t *disk_uuid;
};
uint32_t engine_devs(const struct engine *e);
/* Takes a device out of service for good: its extents answer ERR_IO and count as lost. */
void engine_dev_fail(struct engine *e, const char *path, const char *why);
/* What the device did in this region since the last time. */
void engine_dev_window(struct engine *e, uint32_t dev, struct disk_window *ret);
void engine_dev_stats(const struct engine *e, uint32_t dev, struct dev_stats *ret);
struct memory_stats {
    uint64_t fixed;               /* bitmaps, extents */
    uint64_t journal, meta;       /* journaled pages; map pages and generations */
    uint64_t streams;             /* that writers and readers are known to have */
    uint64_t meta_reads, evicted; /* map pages since the start */
};
void engine_memory(const struct engine *e, struct memory_stats *ret);
/* The read cache, counted in pages since the start. */
struct cache_stats {
    uint64_t bytes;        /* held now */
    uint64_t hits, misses; /* of pages that were wanted from home */
    uint64_t ahead_read, ahead_used, ahead_wasted;
    uint64_t ahead_bytes; /* of `bytes`: buffers of what is being read ahead, or was */
    uint64_t stale;       /* found with another checksum: always 0, unless there is a bug */
};
void engine_cache(const struct engine *e, struct cache_stats *ret);
/* Extents found damaged and not yet made whole, and those of failed devices; returns how many there
 * are (may be over max). */
uint32_t engine_lost(struct engine *e, uint64_t *ids, uint32_t max);
/* Checks the accounting of every region against the maps (loads them all); asserts nothing,
 * ERR_CORRUPT names the first difference. For tests and at rest. */
co_fn int engine_check(struct engine *e) MUST_CHECK;

/* ---- extents ---- */

/* Makes a replica; one that exists with an epoch not above the one given is left as it is.
 *
 * With an origin it is a *child*: it begins as a copy of what the origin holds, on the same device,
 * and shares its blocks, without copying them. The origin, which need not be open, is *frozen* from
 * then on, until it is opened to be thawed: it can be opened and read, and takes commit points and
 * changes of missing sets, but no write that is not a repair (ERR_PERM). Neither depends on the
 * other afterwards: they may be deleted in any order. The child's commit point and last version are
 * the origin's, and it knows of no missing replica. ERR_NO_REPLICA: the origin is not known to this
 * worker; ERR_STALE: its epoch is above the one given; ERR_AGAIN: it has writes above its commit
 * point; ERR_CORRUPT: it is void, or a page that would have to be moved can't be read; ERR_INVAL:
 * the child's epoch is not above the epoch of the origin's last version; ERR_TOO_LARGE: some block
 * has too many references. */
struct create_args {
    uint64_t id, epoch, volume_id;
    uint32_t slot;
    uint64_t family;               /* of the root of its family of origins and children; 0: id */
    uint64_t origin, origin_epoch; /* origin 0: none */
    bool reserve;                  /* as of engine_reserve_extent, from its beginning */
};
co_fn int engine_create_as(struct engine *e, const struct create_args *a) MUST_CHECK;
co_fn int engine_create(struct engine *e, uint64_t id, uint64_t epoch, uint64_t volume_id,
                        uint32_t slot) MUST_CHECK;

struct uncommitted {
    uint16_t first, last; /* pages, both included */
    struct version v;
};
struct missing_info {
    uint32_t replica;
    struct version last_version;
    uint32_t pages;
    bool everything;
};
struct open_info {
    struct version commit_point, last_version;
    struct uncommitted *uncommitted; /* mem_ memory; open_info_free */
    uint32_t n_uncommitted;
    uint8_t allocated[BLOCKS_PER_EXTENT / 8]; /* which blocks hold anything */
    uint8_t shared[BLOCKS_PER_EXTENT / 8];    /* of these: which need a new block when written */
    bool frozen, reserved;
    uint32_t credits;
    struct missing_info missing[MISSING_MAX];
    uint32_t n_missing;
    uint64_t epoch; /* the replica's; also on ERR_STALE */
    bool is_void;
    bool vouched; /* engine_vouch */
};
struct open_args {
    uint64_t id, epoch;
    uint32_t credit_blocks;
    bool thaw; /* nothing shares it any more: it may be written again, whatever its children are */
};
co_fn int engine_open_as(struct engine *e, const struct open_args *a,
                         struct open_info *ret) MUST_CHECK;
co_fn int engine_open(struct engine *e, uint64_t id, uint64_t epoch, uint32_t credit_blocks,
                      struct open_info *ret) MUST_CHECK;
void open_info_free(struct open_info *oi);

enum write_kind { W_DATA, W_ZERO, W_DISCARD };
struct write_args {
    uint64_t id;
    struct version v;
    struct version commit_point; /* epoch 0: none given */
    enum write_kind kind;
    uint32_t off, len;   /* multiples of 512 */
    struct buf *payload; /* DATA: len bytes from payload->data; referenced as long as needed; a
                          * foreign one until the call returns, for whole pages only */
    const uint32_t *crc; /* DATA: one for each page touched */
    uint32_t n_crc;
    const uint32_t *missing;
    uint32_t n_missing;
    bool repair; /* as other replicas have it: also of a frozen extent */
};
struct write_result {
    uint32_t new_blocks;
    bool space_low;
};
co_fn int engine_write(struct engine *e, const struct write_args *w,
                       struct write_result *ret) MUST_CHECK;

struct read_result {
    bool zero;
    struct buf *buf; /* NULL if zero; the caller puts it */
    uint32_t buf_off;
    uint32_t crc[1025]; /* of the bytes asked in each page touched */
    uint32_t n_crc;
};
#define READ_MAX_BYTES (4u * 1024 * 1024)
struct read_args {
    uint64_t id;
    /* The owner's epoch; 0: the replica is one that volumes share, and need not be open: whole,
     * clean and vouched for, else ERR_AGAIN; ERR_STALE if its epoch is above view_epoch (0: any).
     */
    uint64_t epoch, view_epoch;
    uint32_t off, len;
    /* Where the data may be put, from its start, to spare a copy; NULL: nowhere. Foreign memory
     * (buf.h): what is read into it is not used for anything but the answer. */
    struct buf *room;
};
co_fn int engine_read_as(struct engine *e, const struct read_args *a,
                         struct read_result *ret) MUST_CHECK;
co_fn int engine_read(struct engine *e, uint64_t id, uint64_t epoch, uint32_t off, uint32_t len,
                      struct read_result *ret) MUST_CHECK;

co_fn int engine_commit_point(struct engine *e, uint64_t id, uint64_t epoch,
                              struct version cp) MUST_CHECK;
/* The owner says that this member lacks nothing that another has. Of an extent that was not made
 * since its disk was opened nobody knows that before: until then it is not read as shared, nor
 * copied to children. */
int engine_vouch(struct engine *e, uint64_t id, uint64_t epoch) MUST_CHECK;
int engine_check_epoch(struct engine *e, uint64_t id, uint64_t epoch) MUST_CHECK;
/* More credits for the extent's owner: what it holds is promised to it until it is opened again. */
int engine_reserve(struct engine *e, uint64_t id, uint64_t epoch, uint32_t blocks,
                   uint32_t *ret_granted) MUST_CHECK;
/* on: promises blocks for all of the extent, durably, so that no write to it is ever refused for
 * want of space, be it open or not, now and after any start; what is discarded stays promised. Its
 * owner needs no credits. Off: takes that back; the owner holds `credits` then, at most. A child
 * takes the promise from its origin. ERR_NOSPACE: there is no room, and nothing has changed;
 * ERR_PERM: it is frozen. */
co_fn int engine_reserve_extent(struct engine *e, uint64_t id, uint64_t epoch, bool on,
                                uint32_t credits) MUST_CHECK;

struct page_range {
    uint32_t first, count;
};

/* The pages of extent a, from from_page on, whose content may differ from b's, as ascending ranges;
 * b 0: the pages that hold data. Pages that both read from the same place are equal; nothing is
 * read but maps. Neither need be open; a page that is being written may or may not be named. */
struct diff_result {
    uint32_t count; /* ranges stored */
    bool more;      /* there may be others, from next_page on */
    uint32_t next_page;
};
co_fn int engine_diff(struct engine *e, uint64_t a, uint64_t b, uint32_t from_page,
                      struct page_range *ranges, uint32_t max, struct diff_result *ret) MUST_CHECK;
/* The same of extents that volumes share, so that nothing of it changes: refused as reads are
 * (struct read_args). */
struct diff_shared {
    uint64_t a, a_view_epoch, b, b_view_epoch; /* b 0: none */
};
co_fn int engine_diff_shared(struct engine *e, const struct diff_shared *of, uint32_t from_page,
                             struct page_range *ranges, uint32_t max,
                             struct diff_result *ret) MUST_CHECK;
/* The pages of an extent that are in blocks which other extents have, too. */
co_fn int engine_in_common(struct engine *e, uint64_t id, uint32_t from_page,
                           struct page_range *ranges, uint32_t max,
                           struct diff_result *ret) MUST_CHECK;

struct missing_change {
    uint32_t replica;
    struct version last_version; /* start */
    const struct page_range *add, *clear;
    uint32_t n_add, n_clear;
    bool start, everything, drop;
};
/* All changes are durable when 0 is returned. */
co_fn int engine_missing_change(struct engine *e, uint64_t id, uint64_t epoch,
                                const struct missing_change *c, uint32_t n) MUST_CHECK;
struct missing_page {
    bool known, more;
    struct version last_version;
    uint32_t count;
};
int engine_missing_get(struct engine *e, uint64_t id, uint64_t epoch, uint32_t replica,
                       uint32_t from_page, struct page_range *ranges, uint32_t max,
                       struct missing_page *ret) MUST_CHECK;

co_fn int engine_delete(struct engine *e, uint64_t term, uint64_t id, uint64_t epoch) MUST_CHECK;

/* ---- scrubbing (scrub.c) ---- */

struct scrub_status {
    bool running;
    uint64_t rounds; /* completed */
    uint32_t extents, extents_total;
    uint64_t bytes;   /* read in this round */
    uint64_t corrupt; /* pages known to be bad */
    uint64_t errors;  /* blocks that could not be read well */
};
/* Reads and checks everything that is stored, once, at most so many bytes a second; of a round
 * that is running it changes the rate. What is bad is in engine_corrupt. */
void engine_scrub_start(struct engine *e, uint64_t bytes_per_s);
void engine_scrub_stop(struct engine *e);
void engine_scrub_status(const struct engine *e, struct scrub_status *ret);

#define CORRUPT_MAX 1024u
struct corrupt_page {
    uint64_t id;
    uint32_t page;
};
/* Pages found bad, by the scrubber or a reader, and not written since. */
uint32_t engine_corrupt(const struct engine *e, struct corrupt_page *ret, uint32_t max);

#define DIGEST_MAX 4096u
co_fn int engine_digest(struct engine *e, uint64_t id, uint64_t epoch, uint32_t first,
                        uint32_t count, bool verify, uint32_t *crc) MUST_CHECK;

struct replica_info {
    uint64_t id, epoch, volume_id, family;
    struct version last_version;
    uint32_t blocks; /* of its own: not those that it only shares */
    bool frozen, reserved;
};
/* By ascending id, above `after`. Returns how many were stored. */
uint32_t engine_list(struct engine *e, uint64_t after, struct replica_info *ret, uint32_t max,
                     bool *ret_more);

#endif
