/* SPDX-License-Identifier: Apache-2.0
 *
 * A damaged device, for fuzzers of what reads one. The input is a list of patches to the disk of
 * an engine that was killed in the middle of its work. The first byte says whether checksums are
 * made right afterwards, so that what lies behind them is reached (1: pages, 2: the journal), and
 * whether the rest is a seed of patches instead (4). */
#ifndef ZBS_TESTS_FUZZ_DEVICE_H
#define ZBS_TESTS_FUZZ_DEVICE_H

#define EXTENTS       2u
#define STREAMS       2u
#define STREAM_BLOCKS 2u
#include "tests/unit/chunk/engine_model.h"
#include "chunk/internal.h"
#include "common/base/log.h"
#include "tests/lib/fuzz.h"

#define DISK_BYTES (8u << 20)

static uint8_t *sample; /* the disk's content, made once */
static struct geometry geo;

static void sample_make(void)
{
    struct model *m = model_new(4, DISK_BYTES, JOURNAL_PAGES_MIN * PAGE_BYTES, 8);

    m->flush_delay_ms = 5;
    sim_proc_start(m->p, model_main, m);
    sim_run_for(m->s, 60 * NSEC_PER_MSEC);
    if (sim_proc_running(m->p))
        sim_proc_crash(m->p);
    sample = malloc(DISK_BYTES);
    sim_disk_peek(m->p, DISK, sample, DISK_BYTES, 0);
    ASSERT(geometry_compute((struct super_block *)sample, 0, &geo) == 0);
    model_free(m);
}

/* ---- patches ---- */

static uint64_t place(uint32_t area, uint32_t page)
{
    switch (area % 8) {
    case 0:
        return page % 2 ? DISK_BYTES - PAGE_BYTES : 0;
    case 1:
        return geo.anchors_off + page % 2 * PAGE_BYTES;
    case 2:
        return geo.stage_off + page % 4 * PAGE_BYTES;
    case 3:
    case 4:
        return geo.journal_off + (uint64_t)(page % geo.journal_units) * geo.journal_unit;
    case 5:
        return geo.bitmap_off;
    case 6:
        return geo.heads_off + page % 4 * PAGE_BYTES;
    default:
        return geo.data_off + page % (geo.blocks * PAGES_PER_BLOCK) * (uint64_t)PAGE_BYTES;
    }
}

static void patch(struct fuzz_input *in, uint8_t *disk)
{
    while (in->size > 0) {
        uint64_t at = place(fuzz_uint(in, 1), fuzz_uint(in, 2)) + fuzz_uint(in, 2) % PAGE_BYTES;

        for (uint32_t n = 1 + fuzz_uint(in, 1) % 16; n > 0 && at < DISK_BYTES; n--)
            disk[at++] = (uint8_t)fuzz_uint(in, 1);
    }
}

/* A few bytes of input stand for a long list of patches. */
static struct fuzz_input noise_make(const struct fuzz_input *in, uint8_t noise[256])
{
    uint64_t x = 88172645463325252ull;

    for (size_t i = 0; i < in->size; i++)
        x = (x ^ in->data[i]) * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i < 256; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        noise[i] = (uint8_t)(x >> 24);
    }
    return (struct fuzz_input){.data = noise, .size = 16 + noise[0] % 240u};
}

/* ---- checksums ---- */

static void pages_seal(uint8_t *disk)
{
    for (uint64_t off = 0; off < DISK_BYTES; off += PAGE_BYTES) {
        struct meta_head *h = (struct meta_head *)(disk + off);

        if (off == 0 || off == DISK_BYTES - PAGE_BYTES)
            ((struct super_block *)h)->crc = page_crc(h, offsetof(struct super_block, crc));
        else if (h->magic == META_MAGIC)
            h->crc = page_crc(h, offsetof(struct meta_head, crc));
    }
}

/* The chain of commits from the newer anchor on. */
static void journal_seal(uint8_t *disk)
{
    const struct anchor *a = (struct anchor *)(disk + geo.anchors_off);
    const struct anchor *b = (struct anchor *)(disk + geo.anchors_off + PAGE_BYTES);
    uint64_t pos = a->h.gen > b->h.gen ? a->pos : b->pos;
    uint32_t prev = a->h.gen > b->h.gen ? a->prev_crc : b->prev_crc;

    for (uint32_t i = 0; i < 2 * geo.journal_units; i++) {
        uint32_t at = (uint32_t)(pos % geo.journal_units);
        struct commit_head *h =
            (struct commit_head *)(disk + geo.journal_off + at * (uint64_t)geo.journal_unit);

        if (h->magic != COMMIT_MAGIC || h->head_bytes < sizeof(*h) ||
            h->head_bytes > (geo.journal_units - at) * geo.journal_unit ||
            h->head_bytes > COMMIT_HEAD_MAX || h->units == 0) {
            pos = ROUND_UP(pos + 1, (uint64_t)geo.journal_units);
            continue;
        }
        h->prev_crc = prev;
        h->crc = 0;
        h->crc = crc32c(0, h, h->head_bytes);
        prev = h->crc;
        pos += h->units;
    }
}

/* ---- a world with that disk ---- */

static struct sim *device_world(const uint8_t *data, size_t size, struct sim_proc **ret)
{
    struct fuzz_input in = {.data = data, .size = size};
    uint8_t *disk = malloc(DISK_BYTES), noise[256];
    struct sim *s = world_new(1);
    uint32_t seal = fuzz_uint(&in, 1);

    if (sample == NULL)
        sample_make();
    memcpy(disk, sample, DISK_BYTES);
    if (seal & 4)
        in = noise_make(&in, noise);
    patch(&in, disk);
    if (seal & 1)
        pages_seal(disk);
    if (seal & 2)
        journal_seal(disk);
    *ret = sim_proc_new(s, HOST_A, "chunk");
    sim_disk_create(*ret, DISK, DISK_BYTES);
    sim_disk_poke(*ret, DISK, disk, DISK_BYTES, 0);
    free(disk);
    return s;
}

static bool device_proc_over(void *arg)
{
    return !sim_proc_running(arg);
}

/* A process that uses the disk, to its end. */
static void device_proc(struct sim *s, struct sim_proc *p, int (*main_fn)(void *), void *arg)
{
    sim_proc_start(p, main_fn, arg);
    ASSERT(sim_run_until(s, device_proc_over, p, SEC(1000)));
    ASSERT(sim_proc_halted(p) == NULL);
}

#endif
