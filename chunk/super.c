/* SPDX-License-Identifier: Apache-2.0
 *
 * Superblocks, the geometry that they imply, and formatting. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/chunkd.h"
#include "chunk/internal.h"

uint32_t page_crc(const void *page, size_t crc_off)
{
    static const uint8_t zero[4];
    const uint8_t *p = page;
    uint32_t c = crc32c(0, p, crc_off);

    c = crc32c(c, zero, sizeof(zero));
    return crc32c(c, p + crc_off + 4, PAGE_BYTES - crc_off - 4);
}

void meta_seal(const struct super_block *sb, void *page, enum meta_kind kind, uint64_t off,
               uint64_t owner, uint32_t index, uint64_t gen)
{
    struct meta_head *h = page;

    h->magic = META_MAGIC;
    h->kind = (uint16_t)kind;
    h->flags = 0;
    memcpy(h->nonce, sb->nonce, NONCE_BYTES);
    h->off = off;
    h->owner = owner;
    h->index = index;
    h->reserved = 0;
    h->gen = gen;
    h->crc = page_crc(page, offsetof(struct meta_head, crc));
}

int meta_check(const struct super_block *sb, const void *page, enum meta_kind kind, uint64_t off,
               uint64_t owner, uint32_t index)
{
    const struct meta_head *h = page;

    if (h->magic != META_MAGIC)
        return err_set(ERR_CORRUPT, "no metadata page at byte %" PRIu64, off);
    if (h->crc != page_crc(page, offsetof(struct meta_head, crc)))
        return err_set(ERR_CORRUPT, "metadata page at byte %" PRIu64 ": checksum mismatch", off);
    if (memcmp(h->nonce, sb->nonce, NONCE_BYTES) != 0 || h->off != off || h->kind != kind ||
        h->flags != 0 || h->index != index || (owner != 0 && h->owner != owner))
        return err_set(ERR_CORRUPT, "metadata page at byte %" PRIu64 " belongs elsewhere", off);
    return 0;
}

/* Places the parts of a region that holds so many blocks; returns its size. */
static uint64_t geometry_place(const struct super_block *sb, uint64_t base, uint32_t heads,
                               uint32_t blocks, struct geometry *g)
{
    uint64_t off = base;

    g->blocks = blocks;
    g->heads = heads;
    g->stage_pages = sb->stage_pages;
    g->journal_unit = sb->journal_unit;
    g->journal_units = (uint32_t)(sb->journal_bytes / sb->journal_unit);
    g->bitmap_pages = DIV_UP(2 * blocks + heads, BITS_PER_PAGE);
    g->refs_pages = DIV_UP(blocks, REFS_PER_PAGE);
    g->roll_pages = DIV_UP(g->bitmap_pages + g->refs_pages + heads, ROLL_PER_PAGE);
    g->anchors_off = off;
    off += super_is_guest(sb) ? 0 : ANCHORS_BYTES;
    g->stage_off = off;
    off += (uint64_t)(1 + sb->stage_pages) * PAGE_BYTES;
    g->journal_off = off;
    off += super_is_guest(sb) ? 0 : sb->journal_bytes;
    g->guests_off = off;
    off += sb->guests * (ANCHORS_BYTES + sb->journal_bytes);
    g->roll_off = off;
    off += (uint64_t)g->roll_pages * PAGE_BYTES;
    g->bitmap_off = off;
    off += (uint64_t)g->bitmap_pages * PAGE_BYTES;
    g->refs_off = off;
    off += (uint64_t)g->refs_pages * PAGE_BYTES;
    g->heads_off = off;
    off += (uint64_t)heads * PAGE_BYTES;
    off = ROUND_UP(off, (uint64_t)BLOCK_BYTES);
    g->data_off = off;
    return off + (uint64_t)blocks * BLOCK_BYTES - base;
}

int geometry_compute(const struct super_block *sb, uint32_t worker, struct geometry *ret)
{
    uint64_t need =
        geometry_place(sb, REGIONS_OFF + worker * sb->region_bytes, sb->heads, sb->blocks, ret);

    if (need > sb->region_bytes)
        return err_set(ERR_FORMAT, "superblock: a region of %" PRIu64 " bytes can't hold its parts",
                       sb->region_bytes);
    return 0;
}

/* ---- reading and writing ---- */

static bool guests_sane(const struct super_block *sb)
{
    if ((sb->incompat & FEATURE_INCOMPAT_JOURNALS) == 0)
        return !super_is_guest(sb) && sb->guests == 0;
    return sb->guests <= GUESTS_MAX && sb->journal_slot < GUESTS_MAX &&
           (sb->guests == 0 || !super_is_guest(sb));
}

static int super_check(const struct super_block *sb, uint64_t size_bytes)
{
    uint64_t used;

    if (sb->magic != SUPER_MAGIC)
        return err_set(ERR_FORMAT, "no ZBS superblock");
    if (sb->crc != page_crc(sb, offsetof(struct super_block, crc)))
        return err_set(ERR_FORMAT, "superblock: checksum mismatch");
    if (sb->version != FORMAT_VERSION)
        return err_set(ERR_VERSION,
                       "format version %" PRIu32 "; this program knows version %u only, and "
                       "does not convert: use the program that formatted it, or format it anew",
                       sb->version, FORMAT_VERSION);
    if ((sb->incompat & ~FEATURE_INCOMPAT_KNOWN) || (sb->ro_compat & ~FEATURE_RO_COMPAT_KNOWN))
        return err_set(
            ERR_VERSION, "format features %#" PRIx64 "/%#" PRIx64 " are unknown to this program",
            sb->incompat & ~FEATURE_INCOMPAT_KNOWN, sb->ro_compat & ~FEATURE_RO_COMPAT_KNOWN);
    if (sb->workers < 1 || sb->workers > WORKERS_MAX || sb->size_bytes > (1ull << 60) ||
        sb->region_bytes > sb->size_bytes || sb->region_bytes % REGION_ALIGN != 0 ||
        (sb->journal_unit != JOURNAL_UNIT_MIN && sb->journal_unit != JOURNAL_UNIT_MAX) ||
        sb->journal_bytes % PAGE_BYTES != 0 || sb->journal_bytes > JOURNAL_BYTES_MAX ||
        (sb->journal_bytes > sb->region_bytes && !super_is_guest(sb)) ||
        sb->journal_bytes / PAGE_BYTES < JOURNAL_PAGES_MIN || sb->stage_pages < STAGE_PAGES_MIN ||
        sb->stage_pages > STAGE_PAGES_MAX || sb->blocks < 8 || sb->heads < 1 ||
        sb->blocks > (1u << 30) || sb->heads > (1u << 30) ||
        sb->cluster_id[sizeof(sb->cluster_id) - 1] != 0 || !guests_sane(sb))
        return err_set(ERR_FORMAT, "superblock: geometry out of range");
    used = REGIONS_OFF + sb->workers * sb->region_bytes + PAGE_BYTES;
    if (used > sb->size_bytes || size_bytes < sb->size_bytes)
        return err_set(ERR_FORMAT, "the device has %" PRIu64 " bytes, its superblock says %" PRIu64,
                       size_bytes, sb->size_bytes);
    return 0;
}

static uint64_t super_off(const struct super_block *sb, uint32_t copy)
{
    return copy == 0 ? 0 : sb->size_bytes - PAGE_BYTES;
}

/* Reads one copy. */
static int super_read_at(struct disk *d, uint64_t off, uint32_t copy, struct super_block *page)
{
    struct geometry g;
    int rc = disk_read(d, page, PAGE_BYTES, off);

    if (rc < 0)
        return rc;
    rc = super_check(page, disk_info(d)->size_bytes);
    if (rc < 0)
        return rc;
    if (page->copy != copy || super_off(page, copy) != off)
        return err_set(ERR_FORMAT, "superblock: a copy in a wrong place");
    if (disk_info(d)->block_bytes > page->journal_unit && !super_is_guest(page))
        return err_set(ERR_UNSUPPORTED,
                       "the device has sectors of %" PRIu32
                       " bytes, it was formatted on one with %" PRIu32,
                       disk_info(d)->block_bytes, page->journal_unit);
    return geometry_compute(page, page->workers - 1, &g);
}

int super_read_copies(const char *path, struct super_block *ret, bool whole[2])
{
    struct super_block *page = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    struct disk *d;
    uint64_t last;
    int rc = disk_open(path, DISK_READ_ONLY, &d);
    int rc_first;

    if (rc < 0)
        goto out;
    rc = err_set(ERR_FORMAT, "%s: too small", path);
    if (disk_info(d)->size_bytes < REGIONS_OFF)
        goto out_open;
    last = ROUND_DOWN(disk_info(d)->size_bytes, (uint64_t)PAGE_BYTES) - PAGE_BYTES;
    rc = rc_first = super_read_at(d, 0, 0, page);
    whole[0] = whole[1] = rc == 0;
    if (rc == 0) {
        *ret = *page;
        last = ret->size_bytes - PAGE_BYTES;
        if (super_read_at(d, last, 1, page) == 0) {
            if (page->gen > ret->gen && memcmp(page->nonce, ret->nonce, NONCE_BYTES) == 0)
                *ret = *page;
        } else {
            log_warn("super.copy_bad", "disk=%s", path);
            whole[1] = false;
        }
    } else {
        char why[200];

        snprintf(why, sizeof(why), "%s", err_text(rc_first));
        rc = super_read_at(d, last, 1, page);
        if (rc == 0) {
            log_warn("super.first_bad", "disk=%s why=\"%s\"", path, why);
            whole[1] = true;
            *ret = *page;
        } else {
            rc = err_set(rc_first,
                         "%s: %s (nor in its last page); format it with "
                         "zbs-chunkd --format",
                         path, why);
        }
    }
out_open:
    disk_close(d);
out:
    mem_free(page);
    return rc;
}

int super_read(const char *path, struct super_block *ret)
{
    bool whole[2];

    return super_read_copies(path, ret, whole);
}

static int super_write_copies(struct disk *d, struct super_block *sb)
{
    struct super_block *page = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    int rc = 0;

    for (uint32_t copy = 0; copy < 2 && rc == 0; copy++) {
        *page = *sb;
        page->copy = copy;
        page->crc = page_crc(page, offsetof(struct super_block, crc));
        rc = disk_write(d, page, PAGE_BYTES, super_off(sb, copy), true);
    }
    mem_free(page);
    return rc;
}

int super_write(const char *path, struct super_block *sb)
{
    struct disk *d;
    int rc = disk_open(path, 0, &d);

    if (rc < 0)
        return rc;
    sb->gen++;
    rc = super_write_copies(d, sb);
    disk_close(d);
    return rc < 0 ? err_prefix(rc, "%s: superblock", path) : 0;
}

int super_wipe(const char *path, const struct super_block *sb)
{
    struct disk *d;
    int rc = disk_open(path, 0, &d);

    if (rc < 0)
        return rc;
    for (uint32_t copy = 0; copy < 2 && rc == 0; copy++)
        rc = disk_write(d, zero_page, PAGE_BYTES, super_off(sb, copy), true);
    disk_close(d);
    return rc < 0 ? err_prefix(rc, "%s: superblock", path) : 0;
}

/* ---- formatting ---- */

static int format_journal(uint32_t physical_bytes, const struct chunk_format_conf *conf,
                          struct super_block *sb)
{
    uint64_t ring = conf->journal_bytes;

    if (ring == 0)
        ring = MIN((uint64_t)512 << 20,
                   MAX(sb->region_bytes / 16, (uint64_t)JOURNAL_PAGES_MIN * PAGE_BYTES));
    sb->journal_bytes = ROUND_UP(ring, (uint64_t)PAGE_BYTES);
    sb->journal_unit = physical_bytes <= JOURNAL_UNIT_MIN ? JOURNAL_UNIT_MIN : JOURNAL_UNIT_MAX;
    if (sb->journal_bytes / PAGE_BYTES < JOURNAL_PAGES_MIN || sb->journal_bytes > JOURNAL_BYTES_MAX)
        return err_set(ERR_INVAL, "a journal of %" PRIu64 " bytes; at least %u", ring,
                       JOURNAL_PAGES_MIN * PAGE_BYTES);
    if (conf->guests > GUESTS_MAX)
        return err_set(ERR_INVAL, "journals of %" PRIu32 " other devices; at most %u", conf->guests,
                       GUESTS_MAX);
    sb->guests = conf->guests;
    if (sb->guests > 0)
        sb->incompat |= FEATURE_INCOMPAT_JOURNALS;
    return 0;
}

static int format_geometry(const char *path, uint64_t size_bytes, uint32_t physical_bytes,
                           const struct chunk_format_conf *conf, struct super_block *sb)
{
    uint64_t region;
    struct geometry g;
    uint32_t blocks;
    int rc;

    if (!super_is_guest(sb))
        sb->workers = conf->workers != 0 ? conf->workers : 1;
    if (sb->workers > WORKERS_MAX)
        return err_set(ERR_INVAL, "%" PRIu32 " workers; at most %u", sb->workers, WORKERS_MAX);
    sb->size_bytes = ROUND_DOWN(size_bytes, (uint64_t)PAGE_BYTES);
    if (sb->size_bytes > (1ull << 48))
        return err_set(ERR_TOO_LARGE, "%s: more than 256 TiB", path);
    if (sb->size_bytes < REGIONS_OFF + 4 * BLOCK_BYTES)
        return err_set(ERR_INVAL, "%s: %" PRIu64 " bytes are too small", path, size_bytes);
    region = (sb->size_bytes - REGIONS_OFF - PAGE_BYTES) / sb->workers;
    sb->region_bytes = region = ROUND_DOWN(region, (uint64_t)REGION_ALIGN);
    rc = super_is_guest(sb) ? 0 : format_journal(physical_bytes, conf, sb);
    if (rc < 0)
        return rc;
    sb->stage_pages = region >= ((uint64_t)64 << 20) ? STAGE_PAGES_MAX : STAGE_PAGES_MIN;
    blocks = (uint32_t)(region / BLOCK_BYTES);
    for (;; blocks -= MAX(blocks / 512, 1u)) {
        if (blocks < 8)
            return err_set(ERR_INVAL,
                           "%s: %" PRIu64 " bytes are too small for %" PRIu32 " worker(s)"
                           " with journals of %" PRIu64 " bytes",
                           path, size_bytes, sb->workers, sb->journal_bytes);
        sb->blocks = blocks;
        sb->heads = MAX(blocks / 4, 16u);
        if (geometry_place(sb, 0, sb->heads, blocks, &g) <= region)
            return 0;
    }
}

int anchors_format(struct disk *d, const struct super_block *sb, const struct geometry *g)
{
    struct anchor *a = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    int rc = 0;

    memset(a, 0, PAGE_BYTES);
    a->seq = 1;
    for (uint32_t i = 0; i < 2 && rc == 0; i++) {
        meta_seal(sb, a, META_ANCHOR, g->anchors_off + i * PAGE_BYTES, 0, i, i + 1);
        rc = disk_write(d, a, PAGE_BYTES, g->anchors_off + i * PAGE_BYTES, false);
    }
    mem_free(a);
    return rc;
}

static int format_region(struct disk *d, const struct super_block *sb, uint32_t worker)
{
    uint8_t *page = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    struct geometry g;
    int rc = geometry_compute(sb, worker, &g);

    memset(page, 0, PAGE_BYTES);
    for (uint32_t i = 0; i <= roll_page_of(&g, META_REFS, g.refs_pages - 1) && rc == 0; i++) {
        uint64_t off = g.roll_off + (uint64_t)i * PAGE_BYTES;

        meta_seal(sb, page, META_ROLL, off, 0, i, 0);
        rc = disk_write(d, page, PAGE_BYTES, off, false);
    }
    for (uint32_t i = 0; i < g.bitmap_pages && rc == 0; i++) {
        uint64_t off = g.bitmap_off + (uint64_t)i * PAGE_BYTES;

        meta_seal(sb, page, META_BITMAP, off, 0, i, 0);
        rc = disk_write(d, page, PAGE_BYTES, off, false);
    }
    mem_free(page);
    if (rc == 0 && !super_is_guest(sb))
        rc = anchors_format(d, sb, &g);
    return rc;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return mem_is_zero(p, n) != 0;
}

/* What the device has from its host. */
static void format_as_guest(const struct guest_format *gf, struct super_block *sb)
{
    const struct super_block *host = gf->host;

    memcpy(sb->server_uuid, host->server_uuid, sizeof(sb->server_uuid));
    memcpy(sb->journal_disk, host->disk_uuid, sizeof(sb->journal_disk));
    sb->journal_slot = gf->slot;
    sb->journal_bytes = host->journal_bytes;
    sb->journal_unit = host->journal_unit;
    sb->workers = host->workers;
    sb->incompat |= FEATURE_INCOMPAT_JOURNALS;
}

static int format_disk(struct disk *d, const char *path, const struct chunk_format_conf *conf,
                       struct guest_format *gf)
{
    struct super_block *sb = mem_alloc_aligned(PAGE_BYTES, PAGE_BYTES);
    int rc;

    memset(sb, 0, sizeof(*sb));
    sb->magic = SUPER_MAGIC;
    sb->version = FORMAT_VERSION;
    sb->gen = 1;
    sb->formatted_ns = env_wall_ns();
    memcpy(sb->server_uuid, conf->server_uuid, 16);
    if (all_zero(sb->server_uuid, 16))
        env_random_bytes(sb->server_uuid, 16);
    env_random_bytes(sb->disk_uuid, 16);
    env_random_bytes(sb->nonce, NONCE_BYTES);
    if (gf->path != NULL)
        format_as_guest(gf, sb);
    rc = format_geometry(path, disk_info(d)->size_bytes, disk_info(d)->physical_bytes, conf, sb);
    if (rc < 0)
        goto out;
    /* A former superblock must not be found in one copy while the other is new. */
    rc = disk_write(d, zero_page, PAGE_BYTES, 0, true);
    if (rc == 0)
        rc = disk_write(d, zero_page, PAGE_BYTES, sb->size_bytes - PAGE_BYTES, true);
    for (uint32_t w = 0; w < sb->workers && rc == 0; w++)
        rc = format_region(d, sb, w);
    if (rc == 0 && gf->path != NULL)
        rc = guest_format_anchors(gf, sb);
    if (rc == 0)
        rc = disk_flush(d);
    if (rc == 0)
        rc = super_write_copies(d, sb);
    if (rc == 0 && gf->path != NULL)
        rc = guest_format_commit(gf, sb);
    if (rc == 0)
        log_info("disk.formatted",
                 "disk=%s workers=%" PRIu32 " blocks=%" PRIu32 " journal_bytes=%" PRIu64, path,
                 sb->workers, sb->blocks, sb->journal_bytes);
out:
    mem_free(sb);
    return rc;
}

int chunk_format(const char *path, const struct chunk_format_conf *conf)
{
    struct guest_format gf = {0};
    struct disk *d = NULL;
    int rc = conf->force ? 0 : disk_probe(path);

    if (rc < 0)
        return rc;
    rc = disk_open(path, DISK_EXCLUSIVE, &d);
    if (rc < 0)
        return rc;
    if (conf->journal_on != NULL)
        rc = guest_format_begin(&gf, path, conf);
    if (rc == 0)
        rc = format_disk(d, path, conf, &gf);
    guest_format_end(&gf);
    disk_close(d);
    return rc < 0 ? err_prefix(rc, "format %s", path) : 0;
}
