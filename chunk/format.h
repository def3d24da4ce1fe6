/* SPDX-License-Identifier: Apache-2.0
 *
 * The on-disk format, in C. README.md explains it field by field and says why each crash point
 * is safe. Everything is little-endian and packed, every structure carries a CRC32C of itself
 * with the crc field taken as zero, and is bound to its place (kind, offset) and to its device (a
 * random nonce made at formatting), so that a misplaced or a former structure is not accepted. */
#ifndef ZBS_CHUNK_FORMAT_H
#define ZBS_CHUNK_FORMAT_H

#include <assert.h>
#include "common/base/attr.h"
#include "common/base/units.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the structures below are used in place: a big-endian host needs accessors first"
#endif

#define FORMAT_VERSION 4u
#define WORKERS_MAX    64u
#define NONCE_BYTES    16u
#define REGION_ALIGN   BLOCK_BYTES
#define REGIONS_OFF    (1024u * 1024) /* first region; the superblock lies before it */
#define BLOCK_NONE     0u             /* "not allocated" where a block number is stored + 1 */

/* Features. A set bit that is not known: incompat - refuse the device; ro_compat - refuse too
 * (nothing is read-only here yet); compat - ignore. */
#define FEATURE_INCOMPAT_JOURNALS 1u /* its journals are on another device, or others' on it */
#define FEATURE_INCOMPAT_KNOWN    ((uint64_t)FEATURE_INCOMPAT_JOURNALS)
#define FEATURE_RO_COMPAT_KNOWN   ((uint64_t)0)

/* Every metadata page begins with this. */
#define META_MAGIC 0x315f4154454d425aull /* "ZBMETA_1" */
enum meta_kind {
    META_ANCHOR = 1,   /* where a journal's replay starts */
    META_BITMAP = 2,   /* 32,256 bits of a region's allocation */
    META_HEAD = 3,     /* an extent */
    META_OVERFLOW = 4, /* what does not fit in a head */
    META_MAP = 5,      /* 13 entries of an extent's block map */
    META_STAGE = 6,    /* header of the staging area */
    META_REFS = 7,     /* 2016 blocks' references */
    META_ROLL = 8,     /* 504 generations of bitmap, reference and head pages */
};
struct meta_head {
    uint64_t magic;
    uint32_t crc; /* of the page, this field as zero */
    uint16_t kind;
    uint16_t flags;             /* 0 */
    uint8_t nonce[NONCE_BYTES]; /* of the superblock */
    uint64_t off;               /* where this page belongs, in bytes on the device */
    uint64_t owner;             /* HEAD, OVERFLOW, MAP: extent id; else 0 */
    uint32_t index; /* MAP: number in the extent; OVERFLOW, BITMAP, REFS: number; ANCHOR: slot */
    uint32_t reserved;
    uint64_t gen; /* ascending; HEAD and OVERFLOW: equal in one version of them. 0: formatted; and
                   * in STAGE, ROLL */
} PACKED;
static_assert(sizeof(struct meta_head) == 64, "on disk");
#define META_BODY_BYTES (PAGE_BYTES - sizeof(struct meta_head))

/* ---- superblock: at byte 0 and in the device's last whole page ---- */

#define SUPER_F_DRAIN_COPIES 2u /* as full copies, where relatives have no room together */
#define SUPER_F_DRAINING     1u /* its extents are to move to the server's other disks */
#define SUPER_MAGIC          0x4b4e554843534255ull
#define GUESTS_MAX           64u
struct super_block {
    uint64_t magic;
    uint32_t crc; /* of the page */
    uint32_t version;
    uint64_t incompat, ro_compat, compat;
    uint8_t cluster_id[64]; /* text, NUL-padded; empty before the first registration */
    uint8_t server_uuid[16];
    uint8_t disk_uuid[16];
    uint8_t nonce[NONCE_BYTES];
    uint32_t chunk_id; /* 0: not given yet */
    uint32_t workers;
    uint64_t size_bytes;   /* of the device when it was formatted, whole pages */
    uint64_t region_bytes; /* region of worker w: REGIONS_OFF + w * region_bytes */
    uint64_t journal_bytes;
    uint32_t stage_pages;
    uint32_t heads;        /* per region */
    uint32_t blocks;       /* per region */
    uint32_t copy;         /* 0: first, 1: last */
    uint64_t gen;          /* higher is newer */
    int64_t formatted_ns;  /* UTC, for display */
    uint32_t journal_unit; /* bytes: the device's physical block, 512 or 4096 */
    uint32_t flags;        /* SUPER_F_* */
    /* A *host* has places for the journals of other devices, its *guests* (guest.c). */
    uint8_t journal_disk[16];      /* disk_uuid of the device that has its journals; zero: itself */
    uint32_t journal_slot;         /* there */
    uint32_t guests;               /* slots of a host, in every region; 0: none */
    uint8_t guest[GUESTS_MAX][16]; /* disk_uuid of the device that has the slot; zero: free */
    uint8_t reserved[PAGE_BYTES - 248 - GUESTS_MAX * 16];
} PACKED;
static_assert(sizeof(struct super_block) == PAGE_BYTES, "on disk");

/* ---- anchor: two pages, written in turn ---- */

struct anchor {
    struct meta_head h;
    uint64_t seq;      /* of the first commit to replay */
    uint64_t pos;      /* its place: units since formatting; modulo the ring's size */
    uint32_t prev_crc; /* of the commit before it */
    uint32_t reserved;
    uint64_t term;     /* highest meta term that deleted anything */
    uint64_t last_seq; /* of the last commit that was durable: what is behind pos may be free only
                        * because of it, so it must be there */
} PACKED;
static_assert(sizeof(struct anchor) == 104, "on disk");

/* ---- bitmap: one bit for each block, then each head (in use), then each block (shared) ---- */

#define BITS_PER_PAGE ((uint32_t)META_BODY_BYTES * 8)

/* ---- references: how many map sources, of all extents, name a block ---- */

#define REFS_PER_PAGE 2016u
#define REFS_MAX      65000u /* of one block */
#define REFS_LOST     65535u /* its page was damaged: the block is not given out any more */
struct refs_page {
    struct meta_head h;
    uint16_t more[REFS_PER_PAGE]; /* references beyond the first; of shared blocks only */
} PACKED;
static_assert(sizeof(struct refs_page) == PAGE_BYTES, "on disk");

/* ---- roll: how new the pages are that are written in place ---- */

#define ROLL_PER_PAGE 504u
struct roll_page {
    struct meta_head h;
    /* Of each page behind the roll as far as the last head, in their order; 0: never written, or
     * not known. Nothing is said about heads that are not in use. */
    uint64_t gen[ROLL_PER_PAGE];
} PACKED;
static_assert(sizeof(struct roll_page) == PAGE_BYTES, "on disk");

/* ---- extent: head, overflow ---- */

/* The pages of an extent's metadata blocks, counted through: each map page has two slots, written
 * in turn; the overflow pages follow. */
#define META_BLOCKS       3u
#define META_PAGES        (META_BLOCKS * PAGES_PER_BLOCK)        /* 192 */
#define MAP_ENTRIES       13u                                    /* of a map page */
#define MAP_PAGES         DIV_UP(BLOCKS_PER_EXTENT, MAP_ENTRIES) /* 79 */
#define MAP_SLOTS         2u
#define OVERFLOW_FIRST    (MAP_PAGES * MAP_SLOTS)       /* 158 */
#define OVERFLOW_PAGES    (META_PAGES - OVERFLOW_FIRST) /* 34 */
#define EXTENT_F_VOID     1u
#define EXTENT_F_FROZEN   2u /* an origin: never written again */
#define EXTENT_F_ARRIVING 4u /* the twin of an extent that moves here: not in force */
#define EXTENT_F_RESERVED 8u /* blocks for all of it are promised */

struct extent_head {
    struct meta_head h;
    uint64_t epoch;
    uint64_t volume_id;
    uint32_t slot; /* in the volume */
    uint32_t flags;
    uint64_t cp_epoch, cp_gen;                /* commit point */
    uint64_t last_epoch, last_gen;            /* last version */
    uint32_t meta_block[META_BLOCKS];         /* number + 1 */
    uint8_t allocated[BLOCKS_PER_EXTENT / 8]; /* which blocks have their own (source 0) */
    uint8_t shared[BLOCKS_PER_EXTENT / 8];    /* which blocks have other sources */
    uint64_t family;                          /* decides on which worker the extent is */
    uint32_t tail_bytes; /* of what follows: uncommitted ranges, then missing sets; the first
                          * EXTENT_TAIL_INLINE bytes here, the rest in overflow pages */
    uint16_t uncommitted;
    uint16_t missing;
    uint32_t reserved;
    uint64_t map_gen[MAP_PAGES]; /* of the map pages when they were last written; 0: never, empty */
    uint64_t
        commit; /* the last durable one when this was written: all it says was in the journal */
} PACKED;
static_assert(sizeof(struct extent_head) == 1048, "on disk");
#define EXTENT_TAIL_INLINE (PAGE_BYTES - (uint32_t)sizeof(struct extent_head))
#define EXTENT_TAIL_MAX    (EXTENT_TAIL_INLINE + OVERFLOW_PAGES * (uint32_t)META_BODY_BYTES)

/* Of the tail. */
struct disk_uncommitted {
    uint16_t first, last; /* pages, both included */
    uint64_t epoch, gen;
} PACKED;
struct disk_missing {
    uint32_t replica;
    uint32_t flags; /* MISSING_F_* */
    uint64_t last_epoch, last_gen;
    uint32_t count; /* of disk_mask that follow */
} PACKED;
#define MISSING_F_EVERYTHING 1u
struct disk_mask {
    uint16_t block;
    uint64_t mask; /* of pages */
} PACKED;
static_assert(sizeof(struct disk_uncommitted) == 20 && sizeof(struct disk_missing) == 28 &&
                  sizeof(struct disk_mask) == 10,
              "on disk");
#define UNCOMMITTED_MAX 3840u
#define MISSING_MAX     6u /* absent replicas of one extent */
static_assert(UNCOMMITTED_MAX * sizeof(struct disk_uncommitted) +
                      MISSING_MAX * (sizeof(struct disk_missing) +
                                     BLOCKS_PER_EXTENT * sizeof(struct disk_mask)) <=
                  EXTENT_TAIL_MAX,
              "a head and its overflow pages hold everything");

/* ---- block map ---- */

#define MAP_SOURCES 4u
struct map_src {
    uint32_t block; /* number + 1; BLOCK_NONE */
    uint64_t valid; /* pages that are read here; those of no source read as zeroes */
} PACKED;
struct map_entry {
    struct map_src src[MAP_SOURCES]; /* the first is the extent's own, written in place; the others
                                      * may be shared and are only read. No page in two of them */
    uint32_t crc[PAGES_PER_BLOCK];   /* of valid pages */
} PACKED;
struct map_page {
    struct meta_head h;
    struct map_entry e[MAP_ENTRIES];
    uint8_t
        reserved[PAGE_BYTES - sizeof(struct meta_head) - MAP_ENTRIES * sizeof(struct map_entry)];
} PACKED;
static_assert(sizeof(struct map_page) == PAGE_BYTES, "on disk");

/* ---- staging area: page images on their way home ---- */

#define STAGE_PAGES_MAX 248u
#define STAGE_PAGES_MIN 64u
struct stage_entry {
    uint64_t off;
    uint32_t crc; /* of the image, whole page */
    uint32_t reserved;
} PACKED;
struct stage_head {
    struct meta_head h;
    uint32_t count;
    uint32_t reserved;
    struct stage_entry e[STAGE_PAGES_MAX];
} PACKED;
static_assert(sizeof(struct stage_head) <= PAGE_BYTES, "on disk");
static_assert(1 + OVERFLOW_PAGES + 1 <= STAGE_PAGES_MIN,
              "an extent's head and the roll's page fit in one batch");

/* ---- journal: a ring of units (super_block.journal_unit) ---- */

#define COMMIT_MAGIC 0x3154494d4d4f435aull
struct commit_head {
    uint64_t magic;
    uint32_t crc;      /* of the head_bytes, this field as zero */
    uint32_t prev_crc; /* of the commit before: a chain, so that no former commit can follow */
    uint8_t nonce[NONCE_BYTES];
    uint64_t seq;        /* ascending */
    uint64_t pos;        /* units since formatting */
    uint32_t units;      /* of this commit, the head's included */
    uint32_t head_bytes; /* this structure and the records; the pages follow in the next unit */
    uint32_t records;
    uint32_t reserved;
} PACKED;
static_assert(sizeof(struct commit_head) == 64, "on disk");
#define COMMIT_HEAD_MAX   (8 * PAGE_BYTES)
#define COMMIT_BYTES_MIN  (16 * PAGE_BYTES) /* limit of one commit: at least */
#define COMMIT_BYTES_MAX  (COMMIT_HEAD_MAX + 256 * PAGE_BYTES)
#define JOURNAL_PAGES_MIN 128u
#define JOURNAL_BYTES_MAX (1ull << 40)
#define JOURNAL_UNIT_MIN  512u
#define JOURNAL_UNIT_MAX  PAGE_BYTES

enum rec_type {
    REC_CREATE = 1,
    REC_EPOCH = 2,
    REC_COMMIT_POINT = 3,
    REC_DATA = 4, /* pages follow in this commit */
    REC_MAP = 5,  /* pages were written home before */
    REC_ZERO = 6,
    REC_NOTE = 7,  /* nothing applied: commit point and missing sets only */
    REC_ALLOC = 8, /* a block for an extent's block */
    REC_MISSING = 9,
    REC_DELETE = 10,
    REC_VOID = 11,
    REC_CHILD = 12,    /* an extent that begins as a copy of another's map */
    REC_VERSIONS = 14, /* of an arriving extent */
    REC_ARRIVE = 15,   /* an arriving extent is in force */
    REC_THAW = 16,     /* blocks of a frozen extent's own are only read from now on */
    REC_RESERVE = 17,  /* blocks for all of the extent are promised, or are not any more */
    REC_TYPES
};
struct rec_head {
    uint16_t type;
    uint16_t flags;
    uint16_t bytes; /* of the record, this included; a multiple of 8 */
    uint16_t pages; /* that it has in this commit, in the order of the records */
    uint64_t extent_id;
} PACKED;
static_assert(sizeof(struct rec_head) == 16, "on disk");

/* What is left of a block's references after the record: 0: it is free, 1: not shared. */
struct rec_ref {
    uint32_t block; /* number + 1 */
    uint16_t left;
} PACKED;
static_assert(sizeof(struct rec_ref) == 6, "on disk");

struct rec_create {
    struct rec_head h;
    uint64_t epoch, volume_id, family;
    uint32_t slot;
    uint32_t head;                    /* number of the head page */
    uint32_t meta_block[META_BLOCKS]; /* numbers + 1 */
} PACKED;
/* Then struct rec_ref[n_refs]: of every block in the map. Its map pages are durable before. The
 * origin is frozen from here on (until REC_THAW), and nothing is promised to it; what was journaled
 * of it before lies, when it is home, where the child's map says. Of a twin the origin is a
 * relative that it shares with; nothing is frozen. */
struct rec_child {
    struct rec_create c;
    uint64_t origin;
    uint64_t cp_epoch, cp_gen, last_epoch, last_gen;
    uint64_t map_gen[MAP_PAGES];
    uint8_t shared[BLOCKS_PER_EXTENT / 8]; /* all its sources are */
    uint32_t n_refs;
} PACKED;
struct rec_epoch {
    struct rec_head h;
    uint64_t epoch;
} PACKED;
struct rec_commit_point {
    struct rec_head h;
    uint64_t epoch, gen;
} PACKED;

/* DATA, MAP, ZERO, NOTE. Then: missing[n_missing] replica numbers, and by type: DATA, MAP:
 * crc[count], as uint32_t; then struct rec_ref[n_refs], of the blocks that the extent's map names
 * no more. DATA and MAP lie in one block. All take their pages from every other source; ZERO frees
 * the blocks that it covers wholly. */
#define REC_F_REPLACE                                                                              \
    1u                /* MAP: to a new block; with those behind it in the commit, all its pages */
#define REC_F_CP   2u /* the commit point is given */
#define REC_F_MAP  4u /* DATA: the map changes: pages leave shared sources */
#define REC_F_MOVE 8u /* DATA: content as it was: no version is applied */
struct rec_write {
    struct rec_head h;
    uint32_t first, count; /* pages of the extent */
    uint64_t epoch, gen;
    uint64_t cp_epoch, cp_gen;
    uint32_t block; /* MAP: number + 1 */
    uint16_t n_missing;
    uint16_t n_refs;
} PACKED;
/* Gives a block of the extent its own: a new one, or one of its sources that nobody else has. */
struct rec_alloc {
    struct rec_head h;
    uint32_t index; /* block in the extent */
    uint32_t block; /* number + 1 */
} PACKED;
#define REC_F_EVERYTHING 1u /* MISSING: */
#define REC_F_DROP       2u
#define REC_F_CLEAR      4u /* the masks are removed from the set; else added */
struct rec_missing {
    struct rec_head h;
    uint32_t replica;
    uint32_t count; /* of disk_mask that follow */
    uint64_t last_epoch, last_gen;
} PACKED;
struct rec_delete { /* then struct rec_ref[n_refs]: of every block in the map */
    struct rec_head h;
    uint64_t term;
    uint32_t head;
    uint32_t meta_block[META_BLOCKS]; /* numbers + 1 */
    uint32_t n_refs;
} PACKED;
#define REC_F_ARRIVING 1u /* CREATE, CHILD: a twin, until REC_ARRIVE */
#define REC_F_RESERVED 2u /* CREATE, CHILD, ARRIVE: as of REC_RESERVE; without: it is not */
struct rec_versions {     /* then struct disk_uncommitted[count] */
    struct rec_head h;
    uint32_t count, reserved;
} PACKED;
struct rec_arrive {
    struct rec_head h;
    uint64_t epoch;
    uint64_t cp_epoch, cp_gen, last_epoch, last_gen;
    uint64_t is_void, frozen;
} PACKED;
#define REC_F_THAWED 1u /* THAW: the extent is not frozen any more */
/* All sources of a block, none of them its own (yet): whatever the map says at replay, this was so.
 */
struct thaw_block {
    uint32_t index; /* block in the extent */
    struct map_src src[MAP_SOURCES];
} PACKED;
#define THAW_BLOCKS_MAX 512u
struct rec_thaw { /* then struct thaw_block[count] */
    struct rec_head h;
    uint32_t count, reserved;
} PACKED;
struct rec_reserve {
    struct rec_head h;
    uint64_t on; /* 1: promised */
} PACKED;
struct rec_void {
    struct rec_head h;
    uint64_t on; /* 1: damaged; 0: whole again */
} PACKED;
static_assert(sizeof(struct rec_write) == 64 && sizeof(struct rec_missing) == 40 &&
                  sizeof(struct rec_delete) == 44 && sizeof(struct rec_child) == 864 &&
                  sizeof(struct rec_alloc) == 24,
              "on disk");
/* Largest records. */
#define REFS_ALL_BYTES (sizeof(struct rec_ref) * MAP_SOURCES * BLOCKS_PER_EXTENT)
static_assert(sizeof(struct rec_child) + REFS_ALL_BYTES + 8 + sizeof(struct commit_head) <=
                  COMMIT_HEAD_MAX,
              "a deletion and a child fit in one commit");
static_assert(ROUND_UP(sizeof(struct rec_missing) + sizeof(struct disk_mask) * BLOCKS_PER_EXTENT,
                       8) +
                      sizeof(struct commit_head) <=
                  COMMIT_HEAD_MAX,
              "a missing set fits in one commit");
static_assert(sizeof(struct rec_thaw) + sizeof(struct thaw_block) * THAW_BLOCKS_MAX + 8 +
                      sizeof(struct commit_head) <=
                  COMMIT_HEAD_MAX,
              "a record of thawed blocks fits in one commit");
static_assert(sizeof(struct rec_write) + 4 * MISSING_MAX + REFS_ALL_BYTES + 8 +
                      sizeof(struct commit_head) <=
                  COMMIT_HEAD_MAX,
              "zeroing a whole extent fits in one commit");
static_assert(sizeof(struct commit_head) +
                      PAGES_PER_BLOCK *
                          ROUND_UP(sizeof(struct rec_write) + 4 * (MISSING_MAX + 1), 8) <=
                  COMMIT_HEAD_MAX,
              "requests that fill a block together fit in one commit");
static_assert(COMMIT_BYTES_MIN > COMMIT_HEAD_MAX, "a commit has room for data");

#endif
