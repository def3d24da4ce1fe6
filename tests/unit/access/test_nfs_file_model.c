/* SPDX-License-Identifier: Apache-2.0
 *
 * Files against plain arrays: random requests through two access servers, which fail, crash and are
 * given up by their clients in the middle; a client repeats a request until it is answered. What
 * was answered is there, and what was cut off does not come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "tests/lib/filesworld.h"

#define CHECK(x) ASSERTF(x, "seen here")
#define SEEDS    40u
#define FILES    3u
#define BYTES    (96u * 1024) /* of a file at most */
#define COPY_TIME                                                                                  \
    (1100 * NSEC_PER_MSEC) /* so long a size may be old: RFC 1813 asks for no more                 \
                            */
#define GIVE_UP_NS (2 * NSEC_PER_MSEC)

static uint64_t the_leases; /* that servers were seen to have */

struct model {
    uint8_t data[BYTES]; /* zeroes from size on */
    uint32_t size;
};

enum kind { OP_WRITE, OP_RESIZE };

struct op {
    enum kind kind;
    uint64_t inode;
    uint32_t off, len; /* a new size is in len */
    uint8_t *data;
    struct fw_server *s;
    struct filesworld *w;
};

/* ---- what is to be done ---- */

static void op_draw(struct filesworld *w, struct op *o, enum kind kind)
{
    struct prng *p = &w->prng;
    /* most of it around the border of what an inode takes, and around borders of pages */
    uint32_t most = prng_chance(p, 300000) ? 5000 : BYTES;

    *o = (struct op){.kind = kind, .inode = 1 + prng_below(p, FILES), .w = w};
    o->len = 1 + (uint32_t)prng_below(p, prng_chance(p, 500000) ? MIN(most, 600u) : most);
    o->off = (uint32_t)prng_below(p, most - o->len + 1);
    if (prng_chance(p, 300000)) {
        o->off = ROUND_DOWN(o->off, 512u);
        o->len = MIN(ROUND_UP(o->len, 512u), BYTES - o->off);
    }
    o->data = NULL;
    if (kind == OP_RESIZE) {
        o->len = prng_chance(p, 200000) ? 0 : o->len;
        return;
    }
    o->data = mem_alloc(o->len);
    prng_fill(p, o->data, o->len);
    for (uint32_t k = 0; k < o->len; k++)
        o->data[k] |= 1; /* never zero */
}

static void op_model(const struct op *o, struct model *m)
{
    if (o->kind == OP_WRITE) {
        memcpy(m->data + o->off, o->data, o->len);
        m->size = MAX(m->size, o->off + o->len);
        return;
    }
    if (o->len < m->size)
        memset(m->data + o->len, 0, m->size - o->len);
    m->size = o->len;
}

static co_fn int op_do(struct op *o, struct fw_server *s)
{
    return o->kind == OP_WRITE ? fw_write(s, o->inode, o->off, o->data, o->len)
                               : fw_resize(s, o->inode, o->len);
}

/* ---- a client that repeats ---- */

static struct fw_server *any_server(struct filesworld *w)
{
    return &w->servers[prng_below(&w->prng, FW_SERVERS)];
}

static co_fn int attempt_main(void *arg)
{
    struct op *o = arg;

    return op_do(o, o->s);
}

/* The connection breaks after a while, and the request is sent again over another one, while the
 * former one may still be at it. */
static co_fn int attempt_given_up(struct op *o, struct co_group *former)
{
    int rc;

    co_spawn(former, "attempt", attempt_main, o);
    CHECK(co_sleep((nsec_t)prng_below(&o->w->prng, GIVE_UP_NS)) == 0);
    co_group_cancel(former);
    rc = op_do(o, any_server(o->w));
    (void)co_group_join(former);
    return rc;
}

static co_fn void op_until_done(struct op *o, bool crashes)
{
    struct prng *p = &o->w->prng;
    struct co_group former;
    int rc;

    do {
        co_group_init(&former); /* one that was cancelled stays so */
        o->s = any_server(o->w);
        if (crashes && prng_chance(p, 150000))
            o->s->crash_in = 1 + (uint32_t)prng_below(p, 40);
        rc = prng_chance(p, 200000) ? attempt_given_up(o, &former) : op_do(o, o->s);
        for (uint32_t k = 0; k < FW_SERVERS && crashes; k++) {
            o->w->servers[k].crash_in = 0;
            if (o->w->servers[k].crashed)
                fw_restart(&o->w->servers[k]);
        }
    } while (rc < 0);
}

/* ---- what is there ---- */

static co_fn void expect_model(struct fw_server *s, uint64_t inode, const struct model *m,
                               uint32_t off, uint32_t len)
{
    uint8_t *have = mem_alloc(len + 1);
    uint32_t n, want = off < m->size ? MIN(len, m->size - off) : 0;
    bool eof;
    int rc;

    do
        rc = fw_read(s, inode, off, have, len, &n, &eof);
    while (rc == ERR_TIMEOUT); /* injected */
    CHECK(rc == 0);
    ASSERTF(n == want && eof == (off + want >= m->size), "%u bytes at %u: %u of %u, end %d", len,
            off, n, want, eof);
    for (uint32_t k = 0; k < n; k++)
        ASSERTF(have[k] == m->data[off + k], "byte %u of inode %llu is %u, not %u", off + k,
                (unsigned long long)inode, have[k], m->data[off + k]);
    mem_free(have);
}

static co_fn void expect_all(struct filesworld *w, struct model *models)
{
    CHECK(co_sleep(COPY_TIME) == 0);
    for (uint32_t k = 0; k < FILES; k++) {
        for (uint32_t n = 0; n < FW_SERVERS; n++)
            expect_model(&w->servers[n], k + 1, &models[k], 0, BYTES + 1);
    }
}

/* ---- one request after the other ---- */

/* Through all servers, so that they get write leases; most of it within the file. */
static co_fn void write_often(struct filesworld *w, struct model *models)
{
    for (uint32_t k = 0; k < 8 * FW_SERVERS; k++) {
        struct op o;

        op_draw(w, &o, OP_WRITE);
        o.inode = 1;
        o.len = MIN(o.len, 100u);
        op_until_done(&o, false);
        op_model(&o, &models[0]);
        mem_free(o.data);
    }
    the_leases += fw_writers(w, 1);
}

static co_fn int body_serial(void *arg)
{
    struct filesworld *w = arg;
    struct model *models = MEM_NEW_ARRAY(struct model, FILES);

    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        w->servers[k].fail_ppm = 10000;
        w->servers[k].stop_ppm = 2000;
    }
    for (uint32_t k = 0; k < 400; k++) {
        struct op o;
        uint32_t off;

        if (prng_chance(&w->prng, 100000))
            write_often(w, models);
        op_draw(w, &o, prng_chance(&w->prng, 750000) ? OP_WRITE : OP_RESIZE);
        op_until_done(&o, true);
        op_model(&o, &models[o.inode - 1]);
        mem_free(o.data);
        if (o.kind == OP_RESIZE)
            CHECK(co_sleep(COPY_TIME) == 0);
        off = (uint32_t)prng_below(&w->prng, BYTES);
        expect_model(any_server(w), o.inode, &models[o.inode - 1], off,
                     1 + (uint32_t)prng_below(&w->prng, 10000));
    }
    expect_all(w, models);
    mem_free(models);
    return 0;
}

static void answered_requests_are_there(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct filesworld w = {.latency = 100 * NSEC_PER_USEC};

        filesworld_run(&w, seed, body_serial);
    }
    CHECK(the_leases > SEEDS);
}

/* ---- a write, a truncation and growth at once ---- */

enum { CUT, GROW, WRITE, RACERS };

static co_fn int write_main(void *arg)
{
    op_until_done(arg, false);
    return 0;
}

/* The file is cut, then grows again. */
static co_fn int sizes_main(void *arg)
{
    struct op *ops = arg;

    op_until_done(&ops[CUT], false);
    op_until_done(&ops[GROW], false);
    return 0;
}

static bool looks_like(const uint8_t *have, uint32_t n, const struct model *m)
{
    return n == m->size && memcmp(have, m->data, n) == 0;
}

/* The write came before both, between them or after them: does the file look so? Then the model
 * does, too. */
static bool judge(const struct op *ops, const uint8_t *have, uint32_t n, struct model *m)
{
    static const int orders[][RACERS] = {
        {WRITE, CUT, GROW}, {CUT, WRITE, GROW}, {CUT, GROW, WRITE}};
    struct model *after = MEM_NEW(struct model);
    bool good = false;

    for (size_t k = 0; k < ARRAY_SIZE(orders) && !good; k++) {
        *after = *m;
        for (int i = 0; i < RACERS; i++)
            op_model(&ops[orders[k][i]], after);
        good = looks_like(have, n, after);
    }
    *m = *after;
    mem_free(after);
    return good;
}

static co_fn void race(struct filesworld *w, struct model *m)
{
    struct op ops[RACERS];
    uint8_t *have = mem_alloc(BYTES + 1);
    struct co_group g;
    uint32_t n;
    bool eof;

    for (int k = 0; k < RACERS; k++) {
        op_draw(w, &ops[k], k == WRITE ? OP_WRITE : OP_RESIZE);
        ops[k].inode = 1;
    }
    ops[GROW].len = ops[CUT].len + (uint32_t)prng_below(&w->prng, BYTES - ops[CUT].len + 1);
    co_group_init(&g);
    co_spawn(&g, "write", write_main, &ops[WRITE]);
    co_spawn(&g, "sizes", sizes_main, ops);
    (void)co_group_join(&g);
    CHECK(co_sleep(COPY_TIME) == 0);
    while (fw_read(any_server(w), 1, 0, have, BYTES + 1, &n, &eof) < 0)
        ;
    CHECK(judge(ops, have, n, m));
    mem_free(ops[WRITE].data);
    mem_free(have);
}

static co_fn int body_race(void *arg)
{
    struct filesworld *w = arg;
    struct model *m = MEM_NEW(struct model);

    for (uint32_t k = 0; k < FW_SERVERS; k++) {
        w->servers[k].fail_ppm = 5000;
        w->servers[k].stop_ppm = 2000;
    }
    for (uint32_t k = 0; k < 60; k++) {
        struct op grow = {.kind = OP_RESIZE, .inode = 1, .len = BYTES, .w = w};

        if (k % 4 == 0)
            write_often(w, m);
        race(w, m);
        op_until_done(&grow, false);
        op_model(&grow, m);
        CHECK(co_sleep(COPY_TIME) == 0);
        expect_model(any_server(w), 1, m, 0, BYTES);
    }
    mem_free(m);
    return 0;
}

static void a_truncation_meanwhile_is_before_or_after(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct filesworld w = {.latency = 100 * NSEC_PER_USEC};

        filesworld_run(&w, seed, body_race);
    }
}

/* ---- a crash at each step ---- */

static struct {
    uint32_t crash_in;
    bool reached;
} crash;

/* From an inode to a volume, its growth, parts of sectors, truncation, growth again. */
static const struct {
    enum kind kind;
    uint32_t off, len;
} script[] = {
    {OP_WRITE, 0, 700},     {OP_WRITE, 3000, 3000}, {OP_WRITE, 70000, 1000}, {OP_WRITE, 5990, 1},
    {OP_RESIZE, 0, 5000},   {OP_WRITE, 20000, 512}, {OP_RESIZE, 0, 100},     {OP_RESIZE, 0, 90000},
    {OP_WRITE, 4095, 8194}, {OP_WRITE, 1, 1},       {OP_WRITE, 2, 1},        {OP_WRITE, 3, 1},
    {OP_WRITE, 4, 1},       {OP_WRITE, 5, 1},       {OP_RESIZE, 0, 3},       {OP_WRITE, 4, 1},
    {OP_RESIZE, 0, 0},      {OP_RESIZE, 0, BYTES},
};

static co_fn void script_op(struct filesworld *w, uint32_t k, struct model *m)
{
    struct op o = {.kind = script[k].kind, .inode = 1, .off = script[k].off, .len = script[k].len};

    o.data = mem_alloc(o.len + 1);
    memset(o.data, (int)('a' + k), o.len);
    if (op_do(&o, &w->servers[0]) < 0) {
        CHECK(w->servers[0].crashed);
        crash.reached = true;
        fw_restart(&w->servers[0]);
        CHECK(op_do(&o, &w->servers[1]) == 0);
    }
    op_model(&o, m);
    mem_free(o.data);
}

static co_fn int body_script(void *arg)
{
    struct filesworld *w = arg;
    struct model *models = MEM_NEW_ARRAY(struct model, FILES);

    w->servers[0].crash_in = crash.crash_in;
    for (uint32_t k = 0; k < ARRAY_SIZE(script); k++)
        script_op(w, k, &models[0]);
    crash.reached |= w->servers[0].crashed; /* in the background */
    w->servers[0].crash_in = 0;
    if (w->servers[0].crashed)
        fw_restart(&w->servers[0]);
    expect_all(w, models);
    mem_free(models);
    return 0;
}

static void each_step_may_be_the_last(void **state)
{
    uint32_t n = 0;

    (void)state;
    do {
        struct filesworld w = {.latency = 0};

        crash.crash_in = ++n;
        crash.reached = false;
        filesworld_run(&w, 1, body_script);
    } while (crash.reached);
    CHECK(n > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answered_requests_are_there),
        cmocka_unit_test(a_truncation_meanwhile_is_before_or_after),
        cmocka_unit_test(each_step_may_be_the_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
