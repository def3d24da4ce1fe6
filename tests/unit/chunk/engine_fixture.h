/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated process with one engine on one disk: a test is a list of lives, each a function
 * that runs in the process and may leave by returning, by a kill or by a power loss. */
#ifndef ZBS_TESTS_ENGINE_FIXTURE_H
#define ZBS_TESTS_ENGINE_FIXTURE_H

#include <inttypes.h>
#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/co/sync.h"
#include "tests/unit/common/sim_fixture.h"

#define DISK      "/dev/chunk"
#define RING_DISK "/dev/fast" /* see journal_host */
#define ID        4711u

struct rig {
    struct sim *s;
    struct sim_proc *p;
    uint64_t disk_bytes, journal_bytes;
    uint32_t merge_us;     /* engine_conf's */
    uint64_t memory_bytes; /* too */
    uint32_t readahead;    /* too */
    bool journal_host;     /* the disk's journals are on RING_DISK, which has no extents */
    bool formatted;
    struct engine *e;
    void (*body)(struct rig *r);
    bool hang; /* after the body: wait to be killed instead of stopping the engine */
    bool body_done;
    uint64_t x[8]; /* for the test */
};

static inline void rig_format(struct rig *r)
{
    struct chunk_format_conf fc = {.journal_bytes = r->journal_bytes, .guests = 1};
    int rc = r->journal_host ? chunk_format(RING_DISK, &fc) : 0;

    ASSERTF(rc == 0, "format: %s", err_text(rc));
    fc.guests = 0;
    fc.journal_on = r->journal_host ? RING_DISK : NULL;
    rc = chunk_format(DISK, &fc);
    ASSERTF(rc == 0, "format: %s", err_text(rc));
}

static inline void rig_engine_start(struct rig *r)
{
    struct engine_conf conf = {.workers = 1,
                               .merge_us = r->merge_us,
                               .memory_bytes = r->memory_bytes,
                               .readahead = r->readahead};
    struct super_block *sb = mem_alloc(sizeof(*sb)), *on = mem_alloc(sizeof(*on));
    struct journal_host host = {.path = RING_DISK, .sb = on};
    int rc;

    if (!r->formatted)
        rig_format(r);
    r->formatted = true;
    CHECK(super_read(DISK, sb) == 0);
    CHECK(!r->journal_host || super_read(RING_DISK, on) == 0);
    r->e = engine_new(&conf);
    rc = engine_dev_add_guest(r->e, DISK, sb, r->journal_host ? &host : NULL);
    ASSERTF(rc == 0, "start: %s", err_text(rc));
    mem_free(on);
    mem_free(sb);
}

static inline int rig_main(void *arg)
{
    struct rig *r = arg;

    rig_engine_start(r);
    r->body(r);
    r->body_done = true;
    while (r->hang)
        (void)co_sleep(SEC(1000));
    CHECK(engine_check(r->e) == 0);
    engine_stop(r->e);
    return 0;
}

static inline struct rig rig_new(uint64_t seed, uint64_t disk_bytes, uint64_t journal_bytes)
{
    struct rig r = {.s = world_new(seed), .disk_bytes = disk_bytes, .journal_bytes = journal_bytes};

    r.p = sim_proc_new(r.s, HOST_A, "chunk");
    sim_disk_create(r.p, DISK, disk_bytes);
    sim_disk_create(r.p, RING_DISK, disk_bytes);
    if (seed % 2) /* the other units of the journal */
        sim_disk_set_physical(r.p, DISK, PAGE_BYTES);
    return r;
}

enum rig_end { END_STOP, END_KILL, END_POWER };

static inline bool rig_body_done(void *arg)
{
    struct rig *r = arg;

    return r->body_done || !sim_proc_running(r->p);
}

static inline void rig_life(struct rig *r, void (*body)(struct rig *r), enum rig_end end)
{
    r->body = body;
    r->hang = end != END_STOP;
    r->body_done = false;
    if (end == END_STOP) {
        assert_int_equal(proc_run(r->s, r->p, rig_main, r), 0);
        return;
    }
    sim_proc_start(r->p, rig_main, r);
    assert_true(sim_run_until(r->s, rig_body_done, r, SEC(1000)));
    assert_true(r->body_done);
    if (end == END_KILL)
        sim_proc_crash(r->p);
    else
        sim_proc_power_loss(r->p);
}

/* ---- requests ---- */

static inline int create(struct rig *r, uint64_t id, uint64_t epoch)
{
    return engine_create(r->e, id, epoch, 1, 0);
}

/* Opens; what it answers is thrown away. */
static inline int open_at(struct rig *r, uint64_t id, uint64_t epoch)
{
    struct open_info oi;
    int rc = engine_open(r->e, id, epoch, 0, &oi);

    open_info_free(&oi);
    return rc;
}

struct put {
    uint64_t id;
    struct version v, cp;
    uint32_t off, len;
    uint8_t byte;
    enum write_kind kind;
    const uint32_t *missing;
    uint32_t n_missing;
    bool repair;
};

static inline int put(struct rig *r, struct put w)
{
    uint32_t crcs[1026], n = 0, page_off = w.off % PAGE_BYTES;
    struct write_args a = {.id = w.id,
                           .v = w.v,
                           .commit_point = w.cp,
                           .kind = w.kind,
                           .off = w.off,
                           .len = w.len,
                           .crc = crcs,
                           .missing = w.missing,
                           .n_missing = w.n_missing,
                           .repair = w.repair};
    struct write_result res;
    int rc;

    if (w.kind == W_DATA) {
        a.payload = buf_alloc(w.len);
        memset(a.payload->data, w.byte, w.len);
        for (uint32_t at = 0; at < w.len; page_off = 0) {
            uint32_t len = MIN(PAGE_BYTES - page_off, w.len - at);

            crcs[n++] = crc32c(0, a.payload->data + at, len);
            at += len;
        }
        a.n_crc = n;
    }
    rc = engine_write(r->e, &a, &res);
    buf_put(a.payload);
    return rc;
}

/* The byte that fills the range; -1: an error, -2: not one byte throughout. */
static inline int look(struct rig *r, uint64_t id, uint64_t epoch, uint32_t off, uint32_t len)
{
    struct read_result *res = mem_alloc(sizeof(*res));
    int value = 0;

    if (engine_read(r->e, id, epoch, off, len, res) < 0) {
        mem_free(res);
        return -1;
    }
    for (uint32_t i = 0; !res->zero && i < len; i++) {
        uint8_t b = res->buf->data[res->buf_off + i];

        if (i == 0)
            value = b;
        else if (b != value)
            value = -2;
    }
    buf_put(res->buf);
    mem_free(res);
    return value;
}

static inline struct version V(uint64_t epoch, uint64_t gen) {
    return (struct version){epoch, gen};
}

#endif
