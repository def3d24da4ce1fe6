/* SPDX-License-Identifier: Apache-2.0
 *
 * Persistent reservations: the tables of SPC-4 row by row, then the commands over two units of one
 * volume, with a store that fails and that others change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

static const enum pr_type types[] = {PR_WRITE_EXCLUSIVE,    PR_EXCLUSIVE_ACCESS,
                                     PR_WRITE_EXCLUSIVE_RO, PR_EXCLUSIVE_ACCESS_RO,
                                     PR_WRITE_EXCLUSIVE_AR, PR_EXCLUSIVE_ACCESS_AR};

static struct pr_nexus nexus(char name)
{
    struct pr_nexus n = {.port = 5};

    snprintf(n.initiator, sizeof(n.initiator), "iqn.%c,i,0x00000000000%c", name, name);
    return n;
}

static struct pr_effects fx;

static enum pr_answer out(struct pr_state *s, char who, enum pr_action action, uint64_t key,
                          uint64_t action_key, unsigned type)
{
    struct pr_command c = {.action = action,
                           .type = (uint8_t)type,
                           .key = key,
                           .action_key = action_key,
                           .who = nexus(who)};

    pr_effects_fini(&fx);
    return pr_out(s, &c, &fx);
}

static void told(char who, enum pr_attention attention, bool abort)
{
    struct pr_nexus n = nexus(who);

    for (uint32_t i = 0; i < fx.count; i++) {
        if (!pr_nexus_equal(&fx.list[i].nexus, &n))
            continue;
        assert_int_equal(fx.list[i].attention, attention);
        assert_int_equal(fx.list[i].abort, abort);
        return;
    }
    fail_msg("%c was told nothing", who);
}

/* a, b registered with keys 0xa, 0xb; a holds a reservation. c is a stranger. */
static void reserved(struct pr_state *s, enum pr_type type)
{
    pr_state_fini(s);
    assert_int_equal(out(s, 'a', PR_REGISTER, 0, 0xa, 0), PR_GOOD);
    assert_int_equal(out(s, 'b', PR_REGISTER, 0, 0xb, 0), PR_GOOD);
    assert_int_equal(out(s, 'a', PR_RESERVE, 0xa, 0, type), PR_GOOD);
    assert_int_equal(s->generation, 2);
}

static bool conflicts(const struct pr_state *s, char who, enum pr_access access)
{
    struct pr_nexus n = nexus(who);

    return pr_conflicts(s, &n, access);
}

/* The rows: who may read and write under each type. */
static void access_follows_the_type(void **state)
{
    static const struct {
        enum pr_type type;
        bool b_reads, b_writes, c_reads;
    } rows[] = {
        {PR_WRITE_EXCLUSIVE, true, false, true},   {PR_EXCLUSIVE_ACCESS, false, false, false},
        {PR_WRITE_EXCLUSIVE_RO, true, true, true}, {PR_EXCLUSIVE_ACCESS_RO, true, true, false},
        {PR_WRITE_EXCLUSIVE_AR, true, true, true}, {PR_EXCLUSIVE_ACCESS_AR, true, true, false},
    };
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        reserved(&s, rows[i].type);
        assert_false(conflicts(&s, 'a', PR_ACCESS_READ));
        assert_false(conflicts(&s, 'a', PR_ACCESS_EXCLUSIVE));
        assert_int_equal(conflicts(&s, 'b', PR_ACCESS_READ), !rows[i].b_reads);
        assert_int_equal(conflicts(&s, 'b', PR_ACCESS_EXCLUSIVE), !rows[i].b_writes);
        assert_int_equal(conflicts(&s, 'c', PR_ACCESS_READ), !rows[i].c_reads);
        assert_true(conflicts(&s, 'c', PR_ACCESS_EXCLUSIVE));
        assert_false(conflicts(&s, 'c', PR_ACCESS_ALWAYS));
    }
    pr_state_fini(&s);
    assert_false(conflicts(&s, 'c', PR_ACCESS_EXCLUSIVE));
}

static void registering(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    assert_int_equal(out(&s, 'a', PR_REGISTER, 7, 0xa, 0), PR_CONFLICT);
    assert_int_equal(out(&s, 'a', PR_REGISTER, 0, 0, 0), PR_GOOD); /* nothing to do */
    assert_int_equal(s.count + s.generation, 0);
    assert_int_equal(out(&s, 'a', PR_REGISTER, 0, 0xa, 0), PR_GOOD);
    assert_int_equal(out(&s, 'a', PR_REGISTER, 0, 0xa1, 0), PR_CONFLICT);
    assert_int_equal(out(&s, 'a', PR_REGISTER, 0xa, 0xa1, 0), PR_GOOD);
    assert_int_equal(out(&s, 'a', PR_REGISTER_AND_IGNORE, 0, 0xa2, 0), PR_GOOD);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.regs[0].key, 0xa2);
    assert_int_equal(s.generation, 3);
    assert_int_equal(out(&s, 'a', PR_REGISTER, 0xa2, 0, 0), PR_GOOD);
    assert_int_equal(s.count, 0);
    assert_int_equal(s.generation, 4);
    for (uint32_t i = 0; i < PR_REGISTRANTS_MAX; i++) {
        struct pr_command c = {.action = PR_REGISTER, .action_key = 1, .who = {.port = 1}};

        snprintf(c.who.initiator, sizeof(c.who.initiator), "iqn.%u,i,0x1", i);
        assert_int_equal(pr_out(&s, &c, &fx), PR_GOOD);
    }
    assert_int_equal(out(&s, 'a', PR_REGISTER, 0, 1, 0), PR_NO_ROOM);
    pr_state_fini(&s);
}

static void strangers_and_wrong_keys_conflict(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    reserved(&s, PR_EXCLUSIVE_ACCESS);
    for (unsigned a = PR_RESERVE; a <= PR_REGISTER_AND_MOVE; a++) {
        if (a == PR_REGISTER_AND_IGNORE)
            continue;
        assert_int_equal(out(&s, 'c', a, 0, 0xa, PR_EXCLUSIVE_ACCESS), PR_CONFLICT);
        assert_int_equal(out(&s, 'a', a, 0xb, 0xb, PR_EXCLUSIVE_ACCESS), PR_CONFLICT);
    }
    assert_int_equal(s.generation, 2);
    pr_state_fini(&s);
}

static void reserving_and_releasing(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        unsigned t = types[i], other = types[(i + 1) % ARRAY_SIZE(types)];

        reserved(&s, t);
        assert_int_equal(out(&s, 'a', PR_RESERVE, 0xa, 0, t), PR_GOOD); /* again */
        assert_int_equal(out(&s, 'a', PR_RESERVE, 0xa, 0, other), PR_CONFLICT);
        assert_int_equal(out(&s, 'b', PR_RESERVE, 0xb, 0, t),
                         pr_type_all(t) ? PR_GOOD : PR_CONFLICT);
        assert_int_equal(out(&s, 'a', PR_RELEASE, 0xa, 0, other), PR_INVALID_RELEASE);
        assert_int_equal(out(&s, 'b', PR_RELEASE, 0xb, 0, other),
                         pr_type_all(t) ? PR_INVALID_RELEASE : PR_GOOD);
        assert_int_equal(s.type, t);
        assert_int_equal(out(&s, 'a', PR_RELEASE, 0xa, 0, t), PR_GOOD);
        assert_int_equal(s.type, PR_NONE);
        assert_int_equal(fx.count, t >= PR_WRITE_EXCLUSIVE_RO ? 1 : 0);
        if (fx.count > 0)
            told('b', PR_RESERVATIONS_RELEASED, false);
        assert_int_equal(out(&s, 'a', PR_RELEASE, 0xa, 0, t), PR_GOOD); /* none: no error */
        assert_int_equal(s.generation, 2);
    }
    pr_state_fini(&s);
}

static void a_holder_that_unregisters_releases(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        unsigned t = types[i];

        reserved(&s, t);
        assert_int_equal(out(&s, 'a', PR_REGISTER, 0xa, 0, 0), PR_GOOD);
        assert_int_equal(s.type, pr_type_all(t) ? t : PR_NONE);
        assert_int_equal(fx.count, t == PR_WRITE_EXCLUSIVE_RO || t == PR_EXCLUSIVE_ACCESS_RO);
        assert_int_equal(out(&s, 'b', PR_REGISTER, 0xb, 0, 0), PR_GOOD);
        assert_int_equal(s.type, PR_NONE);
    }
    pr_state_fini(&s);
}

static void clear_leaves_nothing(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    reserved(&s, PR_WRITE_EXCLUSIVE);
    assert_int_equal(out(&s, 'b', PR_CLEAR, 0xb, 0, 0), PR_GOOD);
    assert_int_equal(s.count + s.type, 0);
    assert_int_equal(s.generation, 3);
    assert_int_equal(fx.count, 1);
    told('a', PR_RESERVATIONS_PREEMPTED, false);
    pr_state_fini(&s);
}

static void preempting_the_holder(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    reserved(&s, PR_WRITE_EXCLUSIVE_RO);
    assert_int_equal(out(&s, 'd', PR_REGISTER, 0, 0xd, 0), PR_GOOD);
    assert_int_equal(out(&s, 'b', PR_PREEMPT_AND_ABORT, 0xb, 0xa, PR_EXCLUSIVE_ACCESS), PR_GOOD);
    assert_int_equal(s.type, PR_EXCLUSIVE_ACCESS);
    assert_int_equal(s.count, 2);
    assert_int_equal(fx.count, 2);
    told('a', PR_REGISTRATIONS_PREEMPTED, true);
    told('d', PR_RESERVATIONS_RELEASED, false);
    assert_false(conflicts(&s, 'b', PR_ACCESS_EXCLUSIVE));
    assert_true(conflicts(&s, 'a', PR_ACCESS_READ));
    /* its own reservation: another type */
    assert_int_equal(out(&s, 'b', PR_PREEMPT, 0xb, 0xb, PR_WRITE_EXCLUSIVE), PR_GOOD);
    assert_int_equal(s.type, PR_WRITE_EXCLUSIVE);
    assert_int_equal(s.count, 2);
    assert_int_equal(fx.count, 0);
    pr_state_fini(&s);
}

static void preempting_registrations(void **state)
{
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    reserved(&s, PR_WRITE_EXCLUSIVE);
    assert_int_equal(out(&s, 'a', PR_PREEMPT, 0xa, 0xb, PR_EXCLUSIVE_ACCESS), PR_GOOD);
    assert_int_equal(s.type, PR_WRITE_EXCLUSIVE); /* the reservation stays what it was */
    assert_int_equal(s.count, 1);
    told('b', PR_REGISTRATIONS_PREEMPTED, false);
    assert_int_equal(out(&s, 'a', PR_PREEMPT, 0xa, 0xb, PR_WRITE_EXCLUSIVE), PR_CONFLICT);
    assert_int_equal(out(&s, 'a', PR_PREEMPT, 0xa, 0, PR_WRITE_EXCLUSIVE), PR_INVALID_KEY);
    /* all registrants: 0 takes it from all */
    reserved(&s, PR_WRITE_EXCLUSIVE_AR);
    assert_int_equal(out(&s, 'b', PR_PREEMPT, 0xb, 0xa, PR_WRITE_EXCLUSIVE), PR_GOOD);
    assert_int_equal(s.type, PR_WRITE_EXCLUSIVE_AR);
    reserved(&s, PR_WRITE_EXCLUSIVE_AR);
    assert_int_equal(out(&s, 'b', PR_PREEMPT, 0xb, 0, PR_EXCLUSIVE_ACCESS), PR_GOOD);
    assert_int_equal(s.type, PR_EXCLUSIVE_ACCESS);
    assert_int_equal(s.count, 1);
    assert_true(s.regs[0].holder);
    told('a', PR_REGISTRATIONS_PREEMPTED, false);
    pr_state_fini(&s);
}

static void moving_the_reservation(void **state)
{
    struct pr_nexus c = nexus('c'), a = nexus('a');
    struct pr_command cmd = {.action = PR_REGISTER_AND_MOVE,
                             .key = 0xa,
                             .action_key = 0xc,
                             .unregister = true,
                             .who = a,
                             .others = &a,
                             .other_count = 1};
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    reserved(&s, PR_WRITE_EXCLUSIVE);
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_INVALID_OTHER);
    cmd.others = &c;
    cmd.action_key = 0;
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_INVALID_KEY);
    cmd.action_key = 0xc;
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_GOOD);
    assert_null(pr_find(&s, &a));
    assert_true(pr_find(&s, &c)->holder);
    assert_int_equal(pr_find(&s, &c)->key, 0xc);
    assert_int_equal(s.type, PR_WRITE_EXCLUSIVE);
    reserved(&s, PR_WRITE_EXCLUSIVE_AR);
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_CONFLICT);
    pr_state_fini(&s);
}

static void several_ports_at_once(void **state)
{
    struct pr_nexus other_port = nexus('a'), others[2] = {nexus('b'), nexus('c')};
    struct pr_command cmd = {.action = PR_REGISTER,
                             .action_key = 0xa,
                             .all_ports = true,
                             .who = nexus('a'),
                             .others = others,
                             .other_count = 2};
    struct pr_state s;

    (void)state;
    pr_state_init(&s);
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_GOOD);
    assert_int_equal(s.count, 3);
    other_port.port = 9;
    assert_non_null(pr_find(&s, &other_port));
    assert_int_equal(s.regs[0].nexus.port, PR_PORT_ALL);
    cmd.key = 0xa;
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_INVALID_OTHER); /* already registered */
    cmd.key = 0;
    cmd.who = nexus('d');
    assert_int_equal(pr_out(&s, &cmd, &fx), PR_CONFLICT); /* b is */
    assert_int_equal(s.count, 3);
    pr_state_fini(&s);
}

static void records_are_read_back(void **state)
{
    struct pr_state s, t;
    uint8_t *record;

    (void)state;
    pr_state_init(&s);
    pr_state_init(&t);
    reserved(&s, PR_WRITE_EXCLUSIVE_RO);
    s.aptpl = true;
    size_t len = pr_encode(&s, &record);
    assert_int_equal(pr_decode(&t, record, len), 0);
    assert_int_equal(t.generation, 2);
    assert_int_equal(t.type, PR_WRITE_EXCLUSIVE_RO);
    assert_int_equal(t.count, 2);
    assert_true(t.aptpl && t.regs[0].holder && !t.regs[1].holder);
    assert_memory_equal(t.regs, s.regs, 2 * sizeof(t.regs[0]));
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(pr_decode(&t, record, cut), ERR_FORMAT);
    record[8] = 2; /* no such type */
    assert_int_equal(pr_decode(&t, record, len), ERR_FORMAT);
    record[8] = PR_WRITE_EXCLUSIVE_AR; /* has no single holder */
    assert_int_equal(pr_decode(&t, record, len), ERR_FORMAT);
    record[8] = s.type;
    record[len - 2] = 0; /* in the last name */
    assert_int_equal(pr_decode(&t, record, len), ERR_FORMAT);
    assert_int_equal(t.count, 2);
    mem_free(record);
    pr_state_fini(&s);
    pr_state_fini(&t);
}

/* ---- the commands ---- */

struct rig {
    struct pr_store store;
    struct pr_registry registry;
    struct scsi_target targets[2]; /* that export the same volume */
    struct scsi_lun *luns[2];
    struct scsi_nexus a, b; /* one at each */
    struct scsi_cmd cmd;
    uint8_t in[1024];
    /* what is kept */
    uint8_t record[4096];
    size_t len;
    uint64_t version;
    int fail, fail_settle;
    uint32_t settled;
    bool cut_off;
};

static co_fn int rig_load(void *arg, uint64_t volume_id, uint8_t **ret, size_t *ret_len,
                          uint64_t *ret_version)
{
    struct rig *r = arg;

    assert_int_equal(volume_id, 77);
    *ret_len = r->len;
    *ret_version = r->version;
    if (r->len > 0) {
        *ret = mem_alloc(r->len);
        memcpy(*ret, r->record, r->len);
    }
    return 0;
}

static co_fn int rig_replace(void *arg, uint64_t volume_id, uint64_t version, const uint8_t *record,
                             size_t len, uint64_t *ret_version)
{
    struct rig *r = arg;

    (void)volume_id;
    if (r->fail != 0)
        return err_set(r->fail, "injected");
    if (version != r->version)
        return err_set(ERR_STALE, "version %llu", (unsigned long long)r->version);
    memcpy(r->record, record, len);
    r->len = len;
    *ret_version = r->version += 10;
    return 0;
}

static co_fn int rig_settle(void *arg, uint64_t version)
{
    struct rig *r = arg;

    assert_int_equal(version, r->version);
    r->settled++;
    return r->fail_settle != 0 ? err_set(r->fail_settle, "injected") : 0;
}

static co_fn int rig_fresh(void *arg)
{
    struct rig *r = arg;

    return r->cut_off ? err_set(ERR_EXPIRED, "injected") : 0;
}

static void unit_add(struct rig *r, int i)
{
    struct pr_unit *pr;

    scsi_target_init(&r->targets[i], "iqn.2024-01.example:t");
    r->luns[i] = scsi_lun_add(&r->targets[i], 0);
    assert_int_equal(pr_unit_get(&r->registry, 77, &pr), 0);
    scsi_lun_attach(r->luns[i], block_backend_mem_new(77, 1 << 20), pr);
}

static void units_open(struct rig *r)
{
    pr_registry_init(&r->registry, r->store.load != NULL ? &r->store : NULL);
    unit_add(r, 0);
    unit_add(r, 1);
    scsi_nexus_init(&r->a, &r->targets[0], "p", 5, nexus('a').initiator);
    scsi_nexus_init(&r->b, &r->targets[1], "p", 5, nexus('b').initiator);
    memset(r->a.ua, 0, sizeof(r->a.ua));
    memset(r->b.ua, 0, sizeof(r->b.ua));
}

static void units_close(struct rig *r)
{
    scsi_nexus_fini(&r->a);
    scsi_nexus_fini(&r->b);
    for (int i = 0; i < 2; i++) {
        scsi_lun_remove(r->luns[i]);
        scsi_target_fini(&r->targets[i]);
    }
    pr_registry_fini(&r->registry);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));

    r->store = (struct pr_store){.arg = r,
                                 .load = rig_load,
                                 .replace = rig_replace,
                                 .settle = rig_settle,
                                 .fresh = rig_fresh};
    units_open(r);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    units_close(*state);
    free(*state);
    return 0;
}

static struct scsi_cmd *run(struct rig *r, struct scsi_nexus *n, const uint8_t *cdb, size_t cdb_len,
                            const void *data, uint32_t out_len, uint32_t in_len)
{
    struct scsi_cmd *c = &r->cmd;

    memset(c, 0, sizeof(*c));
    memcpy(c->cdb, cdb, cdb_len);
    c->nexus = n;
    c->attr = SCSI_SIMPLE;
    c->out_expected = out_len;
    c->in_expected = in_len;
    scsi_cmd_start(c);
    if (!c->done) {
        if (c->out_len > 0) {
            ASSERT(data != NULL);
            c->out = buf_alloc(c->out_len);
            memcpy(c->out->data, data, c->out_len);
        }
        scsi_cmd_execute(c);
    }
    memset(r->in, 0, sizeof(r->in));
    if (c->in_len > 0)
        memcpy(r->in, c->in->data, c->in_len);
    scsi_cmd_end(c);
    return c;
}

#define CDB(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

static int pr_out_cmd(struct rig *r, struct scsi_nexus *n, enum pr_action action, uint64_t key,
                      uint64_t action_key, uint8_t type, uint8_t flags)
{
    uint8_t list[24] = {0};

    put_be64(list, key);
    put_be64(list + 8, action_key);
    list[20] = flags;
    return run(r, n, CDB(0x5f, action, type, 0, 0, 0, 0, 0, 24, 0), list, 24, 0)->status;
}

static int write_block(struct rig *r, struct scsi_nexus *n)
{
    uint8_t data[512] = {1};

    return run(r, n, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), data, 512, 0)->status;
}

static void expect_attention(struct rig *r, struct scsi_nexus *n, uint8_t asc, uint8_t ascq)
{
    assert_int_equal(run(r, n, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0)->status, SCSI_CHECK_CONDITION);
    assert_int_equal(r->cmd.sense.asc, asc);
    assert_int_equal(r->cmd.sense.ascq, ascq);
}

static void reservations_hold_over_all_units_of_a_volume(void **state)
{
    struct rig *r = *state;

    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 1), SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_RESERVE, 0xa, 0, PR_WRITE_EXCLUSIVE_RO, 0), SCSI_GOOD);
    assert_int_equal(write_block(r, &r->a), SCSI_GOOD);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(run(r, &r->b, CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), NULL, 0, 512)->status,
                     SCSI_GOOD);
    assert_int_equal(r->in[0], 0); /* two memories */
    assert_int_equal(pr_out_cmd(r, &r->b, PR_REGISTER, 0, 0xb, 0, 1), SCSI_GOOD);
    assert_int_equal(write_block(r, &r->b), SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->b, PR_PREEMPT, 0xb, 0xa, PR_EXCLUSIVE_ACCESS, 0), SCSI_GOOD);
    expect_attention(r, &r->a, 0x2a, 0x05);
    assert_int_equal(write_block(r, &r->a), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(run(r, &r->a, CDB(0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0), NULL, 0, 64)->in_len, 16);
    assert_int_equal(get_be32(r->in), 3);
    assert_int_equal(get_be64(r->in + 8), 0xb);
    assert_int_equal(run(r, &r->a, CDB(0x5e, 1, 0, 0, 0, 0, 0, 0, 64, 0), NULL, 0, 64)->in_len, 24);
    assert_int_equal(get_be64(r->in + 8), 0xb);
    assert_int_equal(r->in[21], PR_EXCLUSIVE_ACCESS);
    assert_int_equal(run(r, &r->a, CDB(0x5e, 2, 0, 0, 0, 0, 0, 0, 64, 0), NULL, 0, 64)->in_len, 8);
    assert_int_equal(r->in[2], 0x0d);
    assert_int_equal(r->in[3], 0x81);
    run(r, &r->a, CDB(0x5e, 3, 0, 0, 0, 0, 0, 0, 200, 0), NULL, 0, 200);
    assert_int_equal(get_be32(r->in + 4), r->cmd.in_len - 8);
    assert_int_equal(r->in[8 + 12], 0x01);
    assert_int_equal(get_be16(r->in + 8 + 18), 5);
    assert_string_equal((char *)r->in + 8 + 28, nexus('b').initiator);
}

static void malformed_lists_are_refused(void **state)
{
    struct rig *r = *state;
    uint8_t list[64] = {0};

    put_be64(list + 8, 0xa);
    run(r, &r->a, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 23, 0), list, 23, 0);
    assert_int_equal(r->cmd.sense.asc, 0x1a);
    run(r, &r->a, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 25, 0), list, 25, 0);
    assert_int_equal(r->cmd.sense.asc, 0x1a);
    run(r, &r->a, CDB(0x5f, 1, 0x13, 0, 0, 0, 0, 0, 24, 0), list, 24, 0); /* scope */
    assert_int_equal(r->cmd.sense.asc, 0x24);
    run(r, &r->a, CDB(0x5f, 1, 0x02, 0, 0, 0, 0, 0, 24, 0), list, 24, 0); /* type */
    assert_int_equal(r->cmd.sense.asc, 0x24);
    list[20] = 0x08; /* SPEC_I_PT */
    put_be32(list + 24, 24);
    list[28] = 0x45;
    put_be16(list + 30, 20);
    strcpy((char *)list + 32, "iqn.b,i,0xb");
    run(r, &r->a, CDB(0x5f, 6, 0, 0, 0, 0, 0, 0, 52, 0), list, 52, 0); /* not with "ignore" */
    assert_int_equal(r->cmd.sense.asc, 0x26);
    list[28] = 0x05; /* no port in it */
    run(r, &r->a, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 52, 0), list, 52, 0);
    assert_int_equal(r->cmd.sense.asc, 0x26);
    assert_int_equal(r->cmd.sense.field, 28);
    list[28] = 0x45;
    assert_int_equal(run(r, &r->a, CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 52, 0), list, 52, 0)->status,
                     SCSI_GOOD);
    run(r, &r->a, CDB(0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0), NULL, 0, 64);
    assert_int_equal(get_be32(r->in + 4), 16);
}

static void what_was_kept_is_found_again(void **state)
{
    struct rig *r = *state;

    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 1), SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_RESERVE, 0xa, 0, PR_WRITE_EXCLUSIVE, 0), SCSI_GOOD);
    units_close(r);
    units_open(r);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(write_block(r, &r->a), SCSI_GOOD);
}

/* Another process was faster: ours is tried again on what that left. */
static void a_change_elsewhere_is_obeyed(void **state)
{
    struct rig *r = *state;
    struct pr_state s;
    uint8_t *record;

    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_GOOD);
    pr_state_init(&s);
    assert_int_equal(out(&s, 'c', PR_REGISTER, 0, 0xc, 0), PR_GOOD);
    assert_int_equal(out(&s, 'c', PR_RESERVE, 0xc, 0, PR_EXCLUSIVE_ACCESS), PR_GOOD);
    r->len = pr_encode(&s, &record);
    memcpy(r->record, record, r->len);
    r->version = 40;
    assert_int_equal(pr_out_cmd(r, &r->b, PR_REGISTER, 0, 0xb, 0, 0), SCSI_GOOD);
    assert_int_equal(r->version, 50);
    expect_attention(r, &r->a, 0x2a, 0x05);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT);
    /* an old version changes nothing, a new one at once */
    r->version = 49;
    pr_state_fini(&s);
    mem_free(record);
    r->len = pr_encode(&s, &record);
    memcpy(r->record, record, r->len);
    assert_int_equal(pr_registry_changed(&r->registry, 77), 0);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT);
    r->version = 60;
    r->len = 3;
    assert_int_equal(pr_registry_changed(&r->registry, 77), ERR_FORMAT);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT);
    r->len = 20; /* a header alone */
    assert_int_equal(pr_registry_changed(&r->registry, 77), 0);
    assert_int_equal(pr_registry_changed(&r->registry, 78), 0); /* nobody serves it here */
    expect_attention(r, &r->b, 0x2a, 0x03);
    assert_int_equal(write_block(r, &r->b), SCSI_GOOD);
    mem_free(record);
    pr_state_fini(&s);
}

static void what_is_not_kept_is_not_there(void **state)
{
    struct rig *r = *state;

    r->fail = ERR_UNREACHABLE;
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_BUSY);
    r->fail = ERR_AMBIGUOUS;
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_CHECK_CONDITION);
    assert_int_equal(r->cmd.sense.key, SENSE_ABORTED_COMMAND);
    r->fail = 0;
    r->fail_settle = ERR_EXPIRED; /* kept, but perhaps not obeyed everywhere: no answer but this */
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_CHECK_CONDITION);
    assert_int_equal(r->cmd.sense.key, SENSE_ABORTED_COMMAND);
    r->fail_settle = 0;
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0xa, 0, 0, 0), SCSI_GOOD);
    run(r, &r->a, CDB(0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0), NULL, 0, 64);
    assert_int_equal(get_be32(r->in + 4), 0);
    units_close(r);
    r->store.load = NULL; /* memory alone does not promise to survive */
    units_open(r);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 1), SCSI_CHECK_CONDITION);
    assert_int_equal(r->cmd.sense.asc, 0x26);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_GOOD);
}

static int reserve_6(struct rig *r, struct scsi_nexus *n)
{
    return run(r, n, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0, 0)->status;
}

static void whole_units_are_reserved_as_of_old(void **state)
{
    struct rig *r = *state;

    assert_int_equal(reserve_6(r, &r->a), SCSI_GOOD);
    assert_int_equal(reserve_6(r, &r->a), SCSI_GOOD);
    assert_int_equal(reserve_6(r, &r->b), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(write_block(r, &r->a), SCSI_GOOD);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(run(r, &r->b, CDB(0, 0, 0, 0, 0, 0), NULL, 0, 0)->status,
                     SCSI_RESERVATION_CONFLICT);
    assert_int_equal(run(r, &r->b, CDB(0x12, 0, 0, 0, 96, 0), NULL, 0, 96)->status, SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_RESERVATION_CONFLICT);
    assert_int_equal(run(r, &r->b, CDB(0x17, 0, 0, 0, 0, 0), NULL, 0, 0)->status, SCSI_GOOD);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT); /* not b's to release */
    units_close(r);
    units_open(r);
    assert_int_equal(write_block(r, &r->b), SCSI_RESERVATION_CONFLICT); /* it was kept */
    scsi_nexus_leave(&r->a);
    assert_int_equal(write_block(r, &r->b), SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_GOOD);
    assert_int_equal(reserve_6(r, &r->a), SCSI_RESERVATION_CONFLICT);
}

/* On every path, here and elsewhere; whoever can't be told of it is not waited for long. */
static void resets_concern_the_volume(void **state)
{
    struct rig *r = *state;
    struct pr_state s;
    uint8_t *record;

    assert_int_equal(reserve_6(r, &r->a), SCSI_GOOD);
    scsi_lun_reset(r->luns[1]);
    expect_attention(r, &r->a, 0x29, 0x03);
    expect_attention(r, &r->b, 0x29, 0x03);
    assert_int_equal(write_block(r, &r->b), SCSI_GOOD);
    pr_state_init(&s);
    assert_int_equal(pr_decode(&s, r->record, r->len), 0);
    assert_int_equal(s.resets, 1);
    assert_false(s.legacy);
    pr_reset(&s); /* by another process */
    r->len = pr_encode(&s, &record);
    memcpy(r->record, record, r->len);
    r->version++;
    assert_int_equal(pr_registry_changed(&r->registry, 77), 0);
    expect_attention(r, &r->a, 0x29, 0x03);
    expect_attention(r, &r->b, 0x29, 0x03);
    r->fail = ERR_UNREACHABLE;
    scsi_lun_reset(r->luns[0]);
    expect_attention(r, &r->a, 0x29, 0x03);
    assert_int_equal(write_block(r, &r->b), SCSI_GOOD);
    mem_free(record);
    pr_state_fini(&s);
}

/* Others may have reserved it without us. Who does not use reservations is not concerned. */
static void nothing_is_executed_while_cut_off(void **state)
{
    struct rig *r = *state;

    r->cut_off = true;
    assert_int_equal(write_block(r, &r->a), SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_GOOD);
    assert_int_equal(r->settled, 1);
    write_block(r, &r->a);
    assert_int_equal(r->cmd.lost, ERR_EXPIRED);
    r->cut_off = false;
    assert_int_equal(write_block(r, &r->a), SCSI_GOOD);
}

/* A write that was started before it lost its right is not executed. */
static void waiting_commands_are_judged_again(void **state)
{
    struct rig *r = *state;
    struct scsi_cmd w = {
        .nexus = &r->b, .cdb = {0x2a, 0, 0, 0, 0, 0, 0, 0, 1}, .out_expected = 512};

    scsi_cmd_start(&w);
    assert_false(w.done);
    w.out = buf_alloc(512);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_REGISTER, 0, 0xa, 0, 0), SCSI_GOOD);
    assert_int_equal(pr_out_cmd(r, &r->a, PR_RESERVE, 0xa, 0, PR_WRITE_EXCLUSIVE, 0), SCSI_GOOD);
    scsi_cmd_execute(&w);
    assert_int_equal(w.status, SCSI_RESERVATION_CONFLICT);
    scsi_cmd_end(&w);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(access_follows_the_type),
        cmocka_unit_test(registering),
        cmocka_unit_test(strangers_and_wrong_keys_conflict),
        cmocka_unit_test(reserving_and_releasing),
        cmocka_unit_test(a_holder_that_unregisters_releases),
        cmocka_unit_test(clear_leaves_nothing),
        cmocka_unit_test(preempting_the_holder),
        cmocka_unit_test(preempting_registrations),
        cmocka_unit_test(moving_the_reservation),
        cmocka_unit_test(several_ports_at_once),
        cmocka_unit_test(records_are_read_back),
        T(reservations_hold_over_all_units_of_a_volume),
        T(malformed_lists_are_refused),
        T(what_was_kept_is_found_again),
        T(a_change_elsewhere_is_obeyed),
        T(what_is_not_kept_is_not_there),
        T(whole_units_are_reserved_as_of_old),
        T(resets_concern_the_volume),
        T(nothing_is_executed_while_cut_off),
        T(waiting_commands_are_judged_again),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    pr_effects_fini(&fx);
    return rc;
}
