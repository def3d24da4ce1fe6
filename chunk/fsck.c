/* SPDX-License-Identifier: Apache-2.0
 *
 * A device is checked by starting the engine on it, with all that would be written kept in memory,
 * and comparing what heads and maps say (they are the truth) with the bitmap and the counts of
 * references. Repairing counts both anew: first in memory too, and on the device only if a check
 * of that result finds less than before. What heads and maps have lost can't be rebuilt here: such
 * extents are void, and their owners fill them from other replicas. */
#include "chunk/fsck.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "chunk/internal.h"
#include "common/env/overlay.h"

#define NEVER_MS 3600000u

struct count {
    struct htab_node node; /* by block */
    uint32_t refs;
};
struct verdict {
    uint64_t found;
    uint64_t conflicts; /* blocks that two extents write in place */
    uint64_t damaged;   /* extents that became void since the start: map pages are read late */
    bool usable;        /* it can be started */
    uint64_t readable;  /* extents that are not void */
};
struct fsck { /* one region */
    const struct fsck_conf *conf;
    struct fsck_result *r;
    struct engine *e;
    struct dev *d;
    struct verdict v;
    uint64_t bad_maps; /* told of */
    uint64_t *named;   /* blocks that a head or a map names */
    uint64_t *alone;   /* ... and that nothing else may name */
    struct htab many;  /* struct count, of those with several references */
    struct ext **exts;
    uint32_t n_exts;
};

static void PRINTF_FMT(2, 3) finding(struct fsck *f, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    if (f->v.found++ >= FSCK_FINDINGS_TOLD || f->conf->finding == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    f->conf->finding(f->conf->arg, text);
}

static void PRINTF_FMT(2, 3) note(const struct fsck_conf *conf, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    if (conf->note == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    conf->note(conf->arg, text);
}

/* ---- what heads and maps say ---- */

static bool named(const struct fsck *f, uint32_t block)
{
    return f->named[(block - 1) / 64] >> ((block - 1) % 64) & 1;
}

static uint32_t refs_true(const struct fsck *f, uint32_t block)
{
    const struct count *n = HTAB_FIND(&f->many, block, struct count, node);

    return n != NULL ? n->refs : named(f, block);
}

static void name_block(struct fsck *f, const struct ext *x, uint32_t block, bool may_share)
{
    uint64_t bit = 1ull << ((block - 1) % 64), *alone = &f->alone[(block - 1) / 64];
    bool taken = (*alone & bit) != 0;
    struct count *n;

    *alone |= may_share ? 0 : bit;
    if (!named(f, block)) {
        f->named[(block - 1) / 64] |= bit;
        f->r->blocks++;
        return;
    }
    if (taken || !may_share) {
        finding(f, "block %" PRIu32 " belongs to extent %" PRIu64 " and to another", block, x->id);
        f->v.conflicts++;
    }
    n = HTAB_FIND(&f->many, block, struct count, node);
    if (n == NULL) {
        n = MEM_NEW(struct count);
        n->refs = 1;
        htab_insert(&f->many, &n->node, block);
        f->r->shared_blocks++;
    }
    n->refs++;
}

static void name_entry(struct fsck *f, struct ext *x, uint32_t b)
{
    const struct map_entry *en = map_get(x, b);
    const struct vblk *v = vblk_get(x, b);
    uint64_t seen = 0;

    for (uint32_t k = 0; k < MAP_SOURCES; k++) {
        const struct map_src *s = &en->src[k];

        if (s->valid & seen)
            finding(f, "extent %" PRIu64 " block %" PRIu32 " has pages in two places", x->id, b);
        seen |= s->valid;
        if (s->block != BLOCK_NONE)
            name_block(f, x, s->block, k > 0 || x->frozen);
    }
    seen |= v != NULL ? v->mask : 0; /* still in the journal only */
    f->r->pages += (uint64_t)__builtin_popcountll(seen);
    if (block_allocated(x, b) != (en->src[0].block != BLOCK_NONE))
        finding(f, "extent %" PRIu64 " block %" PRIu32 ": head and map differ", x->id, b);
}

static int name_extent(struct fsck *f, struct ext *x)
{
    int rc = 0;

    for (uint32_t k = 0; k < META_BLOCKS; k++)
        name_block(f, x, x->meta_block[k], false);
    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && rc == 0; b += MAP_ENTRIES) {
        uint32_t last = MIN(b + MAP_ENTRIES, BLOCKS_PER_EXTENT) - 1;
        struct map_hold hold;

        rc = map_hold(x, b, last, &hold);
        if (rc == ERR_CORRUPT) {
            finding(f, "%s", err_text(rc));
            f->bad_maps++;
            rc = 0;
        }
        for (uint32_t i = b; i <= last && rc == 0; i++)
            name_entry(f, x, i);
        map_release(&hold);
    }
    return rc;
}

static void bad_pages_tell(struct fsck *f, struct ext *x)
{
    struct corrupt_page bad[PAGES_PER_BLOCK];
    uint32_t n = engine_corrupt(f->e, bad, ARRAY_SIZE(bad));

    for (uint32_t i = 0; i < n; i++) {
        f->r->bad_pages++;
        finding(f, "extent %" PRIu64 " page %" PRIu32 ": the data fails its checksum", bad[i].id,
                bad[i].page);
    }
    corrupt_forget(x, 0, PAGES_PER_EXTENT);
}

/* Every page of an extent, read from where it lies. A map that is damaged was told of before. */
static int read_extent(struct fsck *f, struct ext *x, uint8_t *buf)
{
    int rc = 0;

    for (uint32_t b = 0; b < BLOCKS_PER_EXTENT && (rc == 0 || rc == ERR_CORRUPT); b++) {
        struct map_hold hold;
        bool zero;

        if (!block_mapped(x, b))
            continue;
        rc = map_hold(x, b, b, &hold);
        if (rc == 0)
            rc = pages_read(x, b * PAGES_PER_BLOCK, PAGES_PER_BLOCK, buf, NULL, &zero);
        map_release(&hold);
        if (rc == ERR_CORRUPT)
            bad_pages_tell(f, x);
    }
    return rc == ERR_CORRUPT ? 0 : rc;
}

static void collect(void *arg, struct ext *x)
{
    struct fsck *f = arg;

    f->exts[f->n_exts++] = ext_get(x);
}

static int extents_examine(struct fsck *f)
{
    uint8_t *buf = mem_alloc_aligned(PAGE_BYTES, BLOCK_BYTES);
    int rc = 0;

    f->exts = MEM_NEW_ARRAY(struct ext *, f->d->extents + 1);
    dev_ext_foreach(f->d, collect, f);
    for (uint32_t i = 0; i < f->n_exts && rc == 0; i++) {
        struct ext *x = f->exts[i];
        uint64_t bad_maps = f->bad_maps;

        rc = name_extent(f, x);
        if (rc == 0 && f->conf->data && !x->is_void) /* what void ones hold counts as missing */
            rc = read_extent(f, x, buf);
        if (x->is_void) {
            f->r->lost_extents++;
            if (f->bad_maps == bad_maps)
                finding(f, "extent %" PRIu64 " is void: its owner fills it from another replica",
                        x->id);
        }
    }
    f->r->extents += f->n_exts;
    mem_free(buf);
    return rc;
}

/* ---- the bitmap and the counts, compared ---- */

static bool used(const struct dev *d, uint32_t block)
{
    return d->bits[(block - 1) / 64] >> ((block - 1) % 64) & 1;
}

static int counts_compare(struct fsck *f)
{
    struct refs_hold hold = {0};
    struct dev *d = f->d;
    uint64_t leaked = 0;
    uint32_t heads = 0;
    int rc = 0;

    for (uint32_t b = 1; b <= d->g.blocks && rc == 0; b++) {
        leaked += used(d, b) && !named(f, b);
        if (!used(d, b) && named(f, b))
            finding(f, "block %" PRIu32 " counts as free and is in use", b);
        if (!shared_bit_get(d, b) && refs_true(f, b) > 1)
            finding(f, "block %" PRIu32 " has %" PRIu32 " references and does not count as shared",
                    b, refs_true(f, b));
        if (!shared_bit_get(d, b))
            continue;
        rc = refs_load(d, b, &hold);
        if (rc == 0 && refs_get(d, b) != refs_true(f, b))
            finding(f, "block %" PRIu32 " counts %" PRIu32 " references and has %" PRIu32, b,
                    refs_get(d, b), refs_true(f, b));
        refs_hold_free(&hold);
    }
    if (d->roll_damaged > 0)
        finding(f, "%" PRIu32 " pages of the roll are damaged, or older than what they name",
                d->roll_damaged);
    if (leaked > 0)
        finding(f, "%" PRIu64 " blocks are taken and nothing names them", leaked);
    for (uint32_t i = 0; i < d->g.heads; i++)
        heads += head_bit_get(d, i);
    if (heads != f->n_exts)
        finding(f, "%" PRIu32 " heads are in use, %" PRIu32 " can be read: extents are lost", heads,
                f->n_exts);
    return rc;
}

/* What reserved extents may yet need is free, unless damage has taken it. */
static void promises_compare(struct fsck *f)
{
    const struct dev *d = f->d;
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->n_exts; i++)
        n += f->exts[i]->reserved;
    if (n > 0)
        note(f->conf,
             "worker %" PRIu32 ": %" PRIu32 " extents are reserved: %" PRIu32
             " blocks are promised to them, %" PRIu32 " are free",
             f->e->conf.worker, n, d->reserved, d->free_blocks);
    if (d->reserved > d->free_blocks)
        finding(f,
                "%" PRIu32 " blocks are promised to reserved extents, and %" PRIu32 " are free: "
                "a write may find no space",
                d->reserved, d->free_blocks);
}

/* ---- counting anew ---- */

static void bit_assign(struct dev *d, uint32_t i, bool on)
{
    uint64_t bit = 1ull << (i % 64), *w = &d->bits[i / 64];

    *w = on ? *w | bit : *w & ~bit;
}

static int counts_assign(struct fsck *f)
{
    struct refs_hold hold = {0};
    struct dev *d = f->d;
    uint64_t rsn = d->j.durable_rsn;
    int rc = 0;

    for (uint32_t i = 0; i < d->g.heads; i++)
        bit_assign(d, d->g.blocks + i, false);
    for (uint32_t i = 0; i < f->n_exts; i++)
        bit_assign(d, d->g.blocks + f->exts[i]->head, true);
    for (uint32_t b = 1; b <= d->g.blocks && rc == 0; b++) {
        uint32_t n = refs_true(f, b);

        bit_assign(d, b - 1, n > 0);
        if (n > 1)
            rc = refs_load(d, b, &hold);
        if (rc == 0 && n > 1)
            refs_apply(d, &(struct rec_ref){b, (uint16_t)n}, 1, rsn);
        bit_assign(d, d->g.blocks + d->g.heads + b - 1, n > 1);
        refs_hold_free(&hold);
    }
    for (uint32_t i = 0; i < d->g.bitmap_pages; i++)
        mpage_dirty(d, &d->bitmap[i], rsn);
    return rc < 0 ? rc : checkpoint_to(d, rsn);
}

/* ---- one pass over a region ---- */

enum pass { PASS_CHECK, PASS_REPAIR };

static void fsck_free(struct fsck *f)
{
    for (uint32_t i = 0; i < f->n_exts; i++)
        ext_put(f->exts[i]);
    mem_free(f->exts);
    mem_free(f->named);
    mem_free(f->alone);
    HTAB_FOREACH (n, &f->many, struct count, node) {
        htab_remove(&f->many, &n->node);
        mem_free(n);
    }
    htab_fini(&f->many);
}

static void count_void(void *arg, struct ext *x)
{
    *(uint64_t *)arg += x->is_void;
}

static uint64_t voids(struct fsck *f)
{
    uint64_t n = 0;

    dev_ext_foreach(f->d, count_void, &n);
    return n;
}

static int region_examine(struct fsck *f, enum pass pass)
{
    uint64_t before = voids(f); /* the flusher, too, comes across damaged maps */
    int rc = 0;

    f->named = MEM_NEW_ARRAY(uint64_t, DIV_UP(f->d->g.blocks, 64));
    f->alone = MEM_NEW_ARRAY(uint64_t, DIV_UP(f->d->g.blocks, 64));
    dev_settled_wait(f->d); /* a start deletes copies that a move left behind */
    /* Records of the journal would undo what is counted anew. */
    if (pass == PASS_REPAIR)
        rc = engine_flush(f->e);
    if (rc == 0)
        rc = extents_examine(f);
    f->v.readable = f->n_exts - MIN(f->n_exts, voids(f));
    f->v.damaged = voids(f) - MIN(before, voids(f));
    if (rc == 0)
        rc = pass == PASS_REPAIR ? counts_assign(f) : counts_compare(f);
    if (rc == 0 && pass == PASS_CHECK)
        promises_compare(f);
    return rc;
}

/* What its extents are is not known: a list of heads or the place where the journal begins is gone.
 */
static void unusable_explain(const struct fsck *f, uint32_t worker)
{
    note(f->conf,
         "worker %" PRIu32 ": what its part of the disk holds can't be found out. If --repair does "
         "not help: take the disk out",
         worker);
    note(f->conf, "  (zbs-cli disk remove), format it (zbs-chunkd --format "
                  "DEVICE --force) and add it again;");
    note(f->conf, "  the cluster makes its replicas anew from the others");
}

/* A worker's region. */
struct target {
    const char *path, *host_path; /* of the device that has its journals; NULL: itself */
    struct super_block *sb, *host;
    uint32_t worker;
};
/* What a pass has written in memory only. */
struct trial {
    struct disk_overlay *own, *journal;
};

static struct trial trial_new(void)
{
    return (struct trial){disk_overlay_new(), disk_overlay_new()};
}

static void trial_free(struct trial *t)
{
    disk_overlay_free(t->own);
    disk_overlay_free(t->journal);
}

static int region_pass(const struct target *t, const struct trial *trial, enum pass pass,
                       struct fsck *f)
{
    struct engine_conf conf = {.worker = t->worker,
                               .workers = t->sb->workers,
                               .flush_delay_ms = NEVER_MS,
                               .overlay = trial != NULL ? trial->own : NULL,
                               .rebuild = pass == PASS_REPAIR};
    struct journal_host host = {
        .path = t->host_path, .sb = t->host, .overlay = trial != NULL ? trial->journal : NULL};
    int rc;

    htab_init(&f->many);
    f->e = engine_new(&conf);
    engine_devs_absent(f->e, 1); /* the server's others may know more */
    rc = engine_dev_add_guest(f->e, t->path, t->sb, t->host_path != NULL ? &host : NULL);
    if (rc < 0) {
        finding(f, "%s", err_text(rc));
        unusable_explain(f, t->worker);
    } else {
        f->v.usable = true;
        f->d = LIST_FIRST(&f->e->devs, struct dev, link);
        rc = region_examine(f, pass);
        if (rc == ERR_CORRUPT || rc == ERR_FORMAT)
            finding(f, "%s", err_text(rc));
        if (pass == PASS_CHECK && rc == 0)
            note(f->conf,
                 "worker %" PRIu32 ": %" PRIu32 " extents, journal of %" PRIu64
                 " MiB holds %" PRIu64 " KiB to bring home",
                 t->worker, f->n_exts, (uint64_t)f->d->j.units * f->d->j.unit / MIB,
                 journal_used(f->d) * f->d->j.unit / 1024);
        fsck_free(f);
    }
    engine_stop(f->e);
    return rc == ERR_CORRUPT || rc == ERR_FORMAT ? 0 : rc;
}

static int region_check(const struct target *t, const struct trial *o, const struct fsck_conf *conf,
                        struct fsck_result *r, struct verdict *ret)
{
    struct fsck f = {.conf = conf, .r = r};
    int rc = region_pass(t, o, PASS_CHECK, &f);

    *ret = f.v;
    return rc;
}

/* What a repair would leave. */
static int region_try(const struct target *t, struct verdict *ret)
{
    struct trial o = trial_new();
    struct fsck_conf quiet = {.data = false};
    struct fsck_result r = {0};
    struct fsck f = {.conf = &quiet, .r = &r};
    int rc = region_pass(t, &o, PASS_REPAIR, &f);

    if (rc == 0)
        rc = region_check(t, &o, &quiet, &r, ret);
    ret->damaged = f.v.damaged;
    trial_free(&o);
    return rc;
}

/* Why a repair is not made; NULL: it is. */
static const char *no_repair(const struct verdict *was, const struct verdict *left)
{
    /* Counted twice, the block would be written by both: the chunk server gives one of them up. */
    if (left->conflicts > 0)
        return "extents contradict each other, and counting anew would hide that: the chunk "
               "server, when it finds it, gives one of them up";
    /* Until the chunk server comes to the page, the rest of the extent can be read. */
    if (left->damaged > 0 && was->usable)
        return "which blocks a damaged map page names is not known, so nothing is counted: the "
               "cluster replaces that replica when the chunk server runs and comes across it";
    if (left->readable < was->readable)
        return "an extent that can be read now would be void";
    /* That an extent contradicts the allocation may be all that shows that the journal's end, and
     * with it what was written last, is lost. */
    if (left->readable > was->readable && was->usable)
        return "an extent that is given up now would count as whole, and may not be: the cluster "
               "replaces that replica when the chunk server runs";
    return left->found >= was->found ? "nothing of it can be rebuilt" : NULL;
}

/* Tries the repair in memory; makes it if the result is better. */
static int region_repair(const struct target *t, const struct fsck_conf *conf,
                         const struct verdict *was, uint64_t *ret_left)
{
    struct fsck_conf quiet = {.data = false};
    struct fsck_result r = {0};
    struct fsck f = {.conf = &quiet, .r = &r};
    struct verdict left = {0};
    int rc = region_try(t, &left);

    *ret_left = was->found;
    if (rc < 0)
        return rc;
    if (no_repair(was, &left) != NULL) {
        note(conf, "worker %" PRIu32 ": not repaired: %s", t->worker, no_repair(was, &left));
        return 0;
    }
    rc = region_pass(t, NULL, PASS_REPAIR, &f);
    if (rc == 0)
        rc = region_check(t, NULL, &quiet, &r, &left);
    *ret_left = left.found;
    note(conf, "worker %" PRIu32 ": counted anew, %" PRIu64 " of %" PRIu64 " findings are left",
         t->worker, left.found, was->found);
    return rc;
}

static int region(const struct target *t, const struct fsck_conf *conf, struct fsck_result *r)
{
    struct trial o = trial_new();
    uint64_t data = r->bad_pages, left;
    struct verdict v;
    int rc = region_check(t, &o, conf, r, &v);

    trial_free(&o);
    r->findings += v.found;
    data = r->bad_pages - data; /* can't be made up */
    left = v.found -= data;
    if (rc == 0 && v.found > 0 && conf->repair)
        rc = region_repair(t, conf, &v, &left);
    r->left += left + data;
    return rc;
}

/* ---- a device ---- */

static void uuid_text(const uint8_t uuid[16], char dst[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(dst + (size_t)2 * i, 3, "%02x", uuid[i]);
}

static void super_explain(const struct fsck_conf *conf, const char *path,
                          const struct super_block *sb)
{
    char disk[33], server[33];

    uuid_text(sb->disk_uuid, disk);
    uuid_text(sb->server_uuid, server);
    note(conf,
         "%s: format %" PRIu32 ", %" PRIu64 " MiB, %" PRIu32 " worker(s) of %" PRIu32
         " blocks and %" PRIu32 " heads",
         path, sb->version, sb->size_bytes / MIB, sb->workers, sb->blocks, sb->heads);
    note(conf, "disk %s of chunk server %s (chunk %" PRIu32 ", cluster %s)", disk, server,
         sb->chunk_id, sb->cluster_id[0] != 0 ? (const char *)sb->cluster_id : "none yet");
}

static int supers_check(const char *path, const struct fsck_conf *conf, struct super_block *sb,
                        struct fsck_result *r)
{
    struct fsck f = {.conf = conf, .r = r};
    bool whole[2];
    int rc = super_read_copies(path, sb, whole);

    if (rc < 0)
        return rc;
    super_explain(conf, path, sb);
    for (uint32_t k = 0; k < 2; k++) {
        if (!whole[k])
            finding(&f, "the %s copy of the superblock is damaged", k == 0 ? "first" : "second");
    }
    r->findings += f.v.found;
    if (f.v.found > 0 && conf->repair)
        rc = super_write(path, sb);
    r->left += rc < 0 || !conf->repair ? f.v.found : 0;
    return rc;
}

/* Neither copy of a superblock: says what is there instead. */
static int not_ours(const char *path, int rc)
{
    char why[200], what[200];

    snprintf(why, sizeof(why), "%s", err_text(rc));
    if (rc != ERR_FORMAT || disk_probe(path) != ERR_EXISTS)
        return err_set(rc, "%s", why);
    snprintf(what, sizeof(what), "%s", err_text(ERR_EXISTS));
    return err_set(ERR_FORMAT,
                   "%s: it is not a disk of ZBS, or both copies of its superblock are lost (%s); "
                   "nothing was changed",
                   what, why);
}

/* The device that has the journals. */
static int host_open(struct target *t, const struct fsck_conf *conf, struct disk **ret_guard)
{
    char uuid[33];
    int rc;

    if (!super_is_guest(t->sb)) {
        if (conf->journal != NULL)
            return err_set(ERR_INVAL, "%s has its journals itself", t->path);
        return 0;
    }
    uuid_text(t->sb->journal_disk, uuid);
    if (conf->journal == NULL)
        return err_set(ERR_INVAL, "%s: its journals are on disk %s: name that with --journal",
                       t->path, uuid);
    t->host_path = conf->journal;
    t->host = mem_alloc(sizeof(*t->host));
    rc = disk_open(t->host_path, DISK_EXCLUSIVE | (conf->repair ? 0 : DISK_READ_ONLY), ret_guard);
    if (rc == 0)
        rc = super_read(t->host_path, t->host);
    if (rc == 0)
        rc = guest_check(t->sb, t->host_path, t->host);
    if (rc == 0)
        note(conf, "its journals are on %s, disk %s", t->host_path, uuid);
    return rc;
}

static int regions(struct target *t, const struct fsck_conf *conf, struct fsck_result *ret)
{
    struct disk *guard = NULL;
    int rc = host_open(t, conf, &guard);

    for (; rc == 0 && t->worker < t->sb->workers; t->worker++)
        rc = region(t, conf, ret);
    if (guard != NULL)
        disk_close(guard);
    mem_free(t->host);
    return rc;
}

int fsck_device(const char *path, const struct fsck_conf *conf, struct fsck_result *ret)
{
    struct target t = {.path = path, .sb = mem_alloc(sizeof(*t.sb))};
    struct disk *guard = NULL;
    bool usable;
    int rc = disk_open(path, DISK_EXCLUSIVE | (conf->repair ? 0 : DISK_READ_ONLY), &guard);

    *ret = (struct fsck_result){0};
    if (rc == 0)
        rc = supers_check(path, conf, t.sb, ret);
    usable = rc == 0;
    if (usable)
        rc = regions(&t, conf, ret);
    if (guard != NULL)
        disk_close(guard);
    if (!usable) /* who looks at it must not find us */
        rc = not_ours(path, rc);
    mem_free(t.sb);
    return rc;
}
