/* SPDX-License-Identifier: Apache-2.0
 *
 * Which target port is active/optimized, as two access servers over one store tell it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "access/scsi/scsi_int.h"
#include "common/base/assert.h"
#include "common/base/mem.h"

#define VOLUME 77u

enum { HERE, THERE, SERVERS };

static struct scsi_port port_list[] = {{.addr = "10.0.0.1:3260", .number = 11},
                                       {.addr = "10.0.0.2:3260", .number = 12},
                                       {.addr = "10.0.0.3:3260", .number = 13}};
static const struct scsi_ports three = {port_list, 3}, two = {port_list, 2};

/* One access server with two initiators: one on the host of port 11, one on no port's host. */
struct server {
    struct pr_registry registry;
    struct scsi_target target;
    struct scsi_lun *lun;
    struct scsi_nexus local, far;
};

struct rig {
    struct server servers[SERVERS];
    struct pr_store store;
    uint8_t record[512];
    size_t len;
    uint64_t version;
    struct scsi_cmd cmd;
    uint8_t in[256];
};

static int rig_load(void *arg, uint64_t volume_id, uint8_t **ret, size_t *ret_len,
                    uint64_t *ret_version)
{
    struct rig *r = arg;

    assert_int_equal(volume_id, VOLUME);
    *ret = mem_alloc(r->len + 1);
    memcpy(*ret, r->record, r->len);
    *ret_len = r->len;
    *ret_version = r->version;
    return 0;
}

static int rig_replace(void *arg, uint64_t volume_id, uint64_t version, const uint8_t *record,
                       size_t len, uint64_t *ret_version)
{
    struct rig *r = arg;

    assert_int_equal(volume_id, VOLUME);
    if (version != r->version)
        return err_set(ERR_STALE, "another was faster");
    memcpy(r->record, record, len);
    r->len = len;
    *ret_version = ++r->version;
    return 0;
}

/* The others obey before the change is complete. */
static int rig_settle(void *arg, uint64_t version)
{
    struct rig *r = arg;

    assert_int_equal(version, r->version);
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(pr_registry_changed(&r->servers[i].registry, VOLUME), 0);
    return 0;
}

static int rig_fresh(void *arg)
{
    (void)arg;
    return 0;
}

static void server_open(struct server *s, const struct pr_store *store, uint16_t port)
{
    struct pr_unit *pr;

    pr_registry_init(&s->registry, store);
    scsi_target_init(&s->target, "iqn.2024-01.example:t");
    scsi_target_set_ports(&s->target, &three);
    s->lun = scsi_lun_add(&s->target, 0);
    assert_int_equal(pr_unit_get(&s->registry, VOLUME, &pr), 0);
    scsi_lun_attach(s->lun, block_backend_mem_new(VOLUME, 1 << 20), pr);
    scsi_nexus_init(&s->local, &s->target, "10.0.0.1:40000", port, "iqn.local,i,0x000000000001");
    scsi_nexus_init(&s->far, &s->target, "10.9.9.9:40000", port, "iqn.far,i,0x000000000002");
    s->local.ua[0] = s->far.ua[0] = 0;
}

static void server_close(struct server *s)
{
    scsi_nexus_fini(&s->local);
    scsi_nexus_fini(&s->far);
    scsi_lun_remove(s->lun);
    scsi_target_fini(&s->target);
    pr_registry_fini(&s->registry);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));

    r->store = (struct pr_store){.arg = r,
                                 .load = rig_load,
                                 .replace = rig_replace,
                                 .settle = rig_settle,
                                 .fresh = rig_fresh};
    server_open(&r->servers[HERE], &r->store, 11);
    server_open(&r->servers[THERE], &r->store, 12);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    for (int i = 0; i < SERVERS; i++)
        server_close(&r->servers[i]);
    free(r);
    return 0;
}

static struct scsi_cmd *run(struct rig *r, struct scsi_nexus *n, const uint8_t *cdb,
                            const uint8_t *out, uint32_t out_len, uint32_t in_len)
{
    struct scsi_cmd *c = &r->cmd;

    memset(c, 0, sizeof(*c));
    memcpy(c->cdb, cdb, 12);
    c->nexus = n;
    c->attr = SCSI_SIMPLE;
    c->out_expected = out_len;
    c->in_expected = in_len;
    scsi_cmd_start(c);
    if (!c->done) {
        ASSERT(out != NULL);
        c->out = buf_alloc(out_len);
        memcpy(c->out->data, out, out_len);
        scsi_cmd_execute(c);
    }
    if (c->in_len > 0)
        memcpy(r->in, c->in->data, c->in_len);
    scsi_cmd_end(c);
    return c;
}

static void report(struct rig *r, struct scsi_nexus *n)
{
    const uint8_t cdb[12] = {0xa3, 0x0a, [9] = 255};

    assert_int_equal(run(r, n, cdb, NULL, 0, 255)->status, SCSI_GOOD);
    assert_int_equal(get_be32(r->in), r->cmd.in_len - 4);
}

/* The one port that the nexus is told to be optimized; *ret_pref: the preferred one. */
static uint16_t optimized(struct rig *r, struct scsi_nexus *n, uint16_t *ret_pref)
{
    uint16_t found = 0;

    *ret_pref = 0;
    report(r, n);
    for (uint32_t at = 4; at < r->cmd.in_len; at += 12) {
        uint16_t number = get_be16(r->in + at + 2);

        assert_int_equal(get_be16(r->in + at + 10), number);
        if (r->in[at] & 0x80)
            *ret_pref = number;
        if ((r->in[at] & 0x0f) == 0) {
            assert_int_equal(found, 0);
            found = number;
        }
    }
    return found;
}

static void expect_optimized(struct rig *r, struct scsi_nexus *n, uint16_t number, uint16_t pref)
{
    uint16_t preferred;

    assert_int_equal(optimized(r, n, &preferred), number);
    assert_int_equal(preferred, pref);
}

static struct scsi_cmd *set(struct rig *r, struct scsi_nexus *n, const uint8_t *list, uint8_t len)
{
    const uint8_t cdb[12] = {0xa4, 0x0a, [9] = len};

    return run(r, n, cdb, list, len, 0);
}

static struct scsi_cmd *set_one(struct rig *r, struct scsi_nexus *n, uint8_t access_state,
                                uint8_t port)
{
    return set(r, n, (const uint8_t[]){0, 0, 0, 0, access_state, 0, 0, port}, 8);
}

static bool told(struct scsi_nexus *n)
{
    bool was = n->ua[0] & SCSI_UA_ACCESS_STATE;

    assert_int_equal(n->ua[0] & ~SCSI_UA_ACCESS_STATE, 0);
    n->ua[0] = 0;
    return was;
}

static void every_portal_is_a_group(void **state)
{
    struct rig *r = *state;
    const uint8_t extended[12] = {0xa3, 0x2a, [9] = 255}, inquiry[12] = {0x12, [4] = 96};
    const uint8_t unknown_format[12] = {0xa3, 0x4a, [9] = 255};
    struct scsi_nexus *n = &r->servers[HERE].local;

    report(r, n);
    assert_int_equal(r->cmd.in_len, 4 + 3 * 12);
    for (int i = 0; i < 3; i++) {
        const uint8_t *p = r->in + 4 + i * 12;

        assert_int_equal(p[1], 3); /* optimized and non-optimized are supported */
        assert_int_equal(get_be16(p + 2), 11 + i);
        assert_int_equal(p[5], 2); /* as it came about by itself */
        assert_int_equal(p[7], 1);
    }
    assert_int_equal(run(r, n, extended, NULL, 0, 255)->in_len, 8 + 3 * 12);
    assert_int_equal(r->in[4], 0x10);
    assert_int_equal(get_be16(r->in + 8 + 2), 11);
    assert_int_equal(run(r, n, unknown_format, NULL, 0, 255)->sense.asc, 0x24);
    run(r, n, inquiry, NULL, 0, 96);
    assert_int_equal(r->in[5] & 0x30, 0x30); /* TPGS */
}

/* All servers tell an initiator the same; the port on its own host comes first. */
static void the_port_at_home_is_optimized(void **state)
{
    struct rig *r = *state;
    uint16_t here, there, pref;

    expect_optimized(r, &r->servers[HERE].local, 11, 11);
    expect_optimized(r, &r->servers[THERE].local, 11, 11);
    here = optimized(r, &r->servers[HERE].far, &pref);
    assert_int_equal(pref, here);
    there = optimized(r, &r->servers[THERE].far, &pref);
    assert_int_equal(here, there);
}

static void units_spread_over_the_ports(void **state)
{
    struct rig *r = *state;
    struct scsi_lun *lun = r->servers[HERE].lun;
    struct scsi_nexus *n = &r->servers[HERE].far;
    unsigned units[3] = {0}, moved = 0;

    for (unsigned i = 0; i < 300; i++) {
        uint16_t of_three, of_two;

        put_be32(lun->info.uuid, i);
        n->target->ports = &three;
        of_three = scsi_alua_optimized(n, lun);
        n->target->ports = &two;
        of_two = scsi_alua_optimized(n, lun);
        units[of_three - 11]++;
        moved += of_three != of_two;
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(units[i], 70, 130);
    assert_int_equal(moved, units[2]); /* those of the port that went */
}

static void a_choice_holds_on_all_servers(void **state)
{
    struct rig *r = *state;
    struct server *here = &r->servers[HERE], *there = &r->servers[THERE];
    uint16_t far_home, pref;

    far_home = optimized(r, &here->far, &pref);
    assert_int_equal(set_one(r, &here->local, 0, 13)->status, SCSI_GOOD);
    assert_false(told(&here->local)); /* who did it knows */
    assert_true(told(&there->local));
    assert_int_equal(told(&here->far), far_home != 13);
    assert_int_equal(told(&there->far), far_home != 13);
    expect_optimized(r, &here->local, 13, 11);
    expect_optimized(r, &there->local, 13, 11);
    expect_optimized(r, &there->far, 13, far_home);
    assert_int_equal(r->in[4 + 5], 1); /* by SET TARGET PORT GROUPS */
    /* what is so already is no change */
    assert_int_equal(set_one(r, &there->far, 0, 13)->status, SCSI_GOOD);
    assert_int_equal(set_one(r, &there->far, 1, 12)->status, SCSI_GOOD);
    assert_int_equal(r->version, 1);
    /* back home: everybody is */
    assert_int_equal(set_one(r, &there->local, 0, 11)->status, SCSI_GOOD);
    assert_true(told(&here->local));
    assert_false(told(&there->local));
    (void)told(&here->far);
    expect_optimized(r, &here->local, 11, 11);
    expect_optimized(r, &here->far, far_home, far_home);
}

static void what_cannot_be_is_refused(void **state)
{
    static const uint8_t both[] = {0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 12};
    static const uint8_t swap[] = {0, 0, 0, 0, 1, 0, 0, 11, 0, 0, 0, 12};
    struct rig *r = *state;
    struct scsi_nexus *n = &r->servers[HERE].local;

    assert_int_equal(set_one(r, n, 2, 12)->sense.asc, 0x26); /* standby */
    assert_int_equal(r->cmd.sense.field, 4);
    assert_int_equal(set_one(r, n, 0, 99)->sense.asc, 0x26); /* no such group */
    assert_int_equal(r->cmd.sense.field, 6);
    assert_int_equal(set_one(r, n, 1, 11)->sense.asc, 0x67); /* none would be left */
    assert_int_equal(r->cmd.sense.ascq, 0x0a);
    assert_int_equal(set(r, n, both, sizeof(both))->sense.asc, 0x67);
    assert_int_equal(set(r, n, swap, 10)->sense.asc, 0x1a);
    assert_int_equal(r->version, 0);
    assert_int_equal(set(r, n, swap, 0)->status, SCSI_GOOD);
    assert_int_equal(set(r, n, swap, sizeof(swap))->status, SCSI_GOOD);
    expect_optimized(r, n, 12, 11);
}

static void ports_that_come_and_go_are_told(void **state)
{
    struct rig *r = *state;
    struct server *s = &r->servers[HERE];

    assert_int_equal(set_one(r, &s->local, 0, 13)->status, SCSI_GOOD);
    (void)told(&s->far);
    scsi_target_set_ports(&s->target, &two); /* the chosen one is gone */
    assert_true(told(&s->local) && told(&s->far));
    expect_optimized(r, &s->local, 11, 11);
    scsi_target_set_ports(&s->target, &three);
    assert_true(told(&s->local) && told(&s->far));
    expect_optimized(r, &s->local, 13, 11);
    scsi_target_set_ports(&s->target, &three);
    assert_false(told(&s->local) || told(&s->far));
    /* reported as what it is */
    scsi_target_set_ports(&s->target, &two);
    run(r, &s->local, (const uint8_t[12]){0}, NULL, 0, 0);
    assert_int_equal(r->cmd.sense.asc, 0x2a);
    assert_int_equal(r->cmd.sense.ascq, 0x06);
}

/* A port that is about to go serves on, and is told to be the worse one before it goes. */
static void ports_that_are_leaving_are_left(void **state)
{
    struct rig *r = *state;
    struct scsi_port list[3];
    struct scsi_ports ports = {list, 3}, all = {list, 1};
    struct server *s = &r->servers[HERE];
    uint16_t pref;

    memcpy(list, port_list, sizeof(list));
    list[0].leaving = true;
    assert_int_equal(set_one(r, &s->far, 0, 11)->status, SCSI_GOOD);
    (void)told(&s->local);
    scsi_target_set_ports(&s->target, &ports);
    assert_true(told(&s->local) && told(&s->far));
    assert_int_not_equal(optimized(r, &s->local, &pref), 11);
    assert_int_equal(r->in[4 + 5], 2); /* not the one that was chosen */
    assert_int_not_equal(optimized(r, &s->far, &pref), 11);
    scsi_target_set_ports(&s->target, &all); /* there is no other */
    assert_true(told(&s->local));
    expect_optimized(r, &s->local, 11, 11);
    scsi_target_set_ports(&s->target, &three);
    s->local.ua[0] = s->far.ua[0] = 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_portal_is_a_group),         T(the_port_at_home_is_optimized),
        T(units_spread_over_the_ports),     T(a_choice_holds_on_all_servers),
        T(what_cannot_be_is_refused),       T(ports_that_come_and_go_are_told),
        T(ports_that_are_leaving_are_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
