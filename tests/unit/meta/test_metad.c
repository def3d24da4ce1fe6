/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole meta servers in the simulator: beginning, take-over, deposed leaders, lost replies,
 * trimming, snapshots. */
#include "tests/unit/meta/world.h"

static int bootstrap_script(struct mworld *w)
{
    uint64_t id = 0;

    assert_int_equal(pool_create(w, "p", 3), 0);
    assert_int_equal(pool_create(w, "p", 3), ERR_EXISTS);
    assert_int_equal(volume_create(w, "p", "v", 1ull << 30, &id), 0);
    assert_true(id > 0);
    assert_int_equal(volume_create(w, "q", "v", 1ull << 30, &id), ERR_NOTFOUND);
    assert_non_null(strstr(err_text(ERR_NOTFOUND), "zbs-cli pool create q"));
    assert_int_equal(pool_count(w), 1);
    check_equal(w);
    return 0;
}

static void one_server_begins(void **state)
{
    struct sim_conf conf = {.seed = 1};
    struct mworld w;

    (void)state;
    world_init(&w, &conf, 1);
    world_run(&w, bootstrap_script);
    world_fini(&w);
}

static void three_servers_begin(void **state)
{
    (void)state;
    for_seeds(bootstrap_script, 10);
}

/* ---- loss of the leader ---- */

/* Pools p0 .. p(n-1) exist; how long until the next answer, from now. */
static nsec_t time_to_answer(struct mworld *w, int expected)
{
    nsec_t start = co_now();
    int n = pool_count(w);

    assert_int_equal(n, expected);
    return co_now() - start;
}

static int leader_crash_script(struct mworld *w)
{
    nsec_t worst = 0;

    assert_int_equal(pool_create(w, "p0", 1), 0);
    for (int i = 1; i < 5; i++) {
        uint32_t l = wait_leader(w);
        char name[16];
        nsec_t took;

        (void)co_sleep(MSEC(37) * i);
        sim_proc_crash(w->metas[l].proc);
        took = time_to_answer(w, i);
        worst = took > worst ? took : worst;
        snprintf(name, sizeof(name), "p%d", i);
        assert_int_equal(pool_create(w, name, 1), 0);
        world_start(w, l);
        (void)co_sleep(SEC(1));
    }
    /* takeover_ms + authority_ms, and the time to notice and to write (PROTOCOL 12) */
    assert_true(worst < MSEC(2200));
    assert_true(worst > MSEC(800)); /* T_auth was waited for */
    check_equal(w);
    return 0;
}

static int leader_stop_script(struct mworld *w)
{
    uint32_t l;

    assert_int_equal(pool_create(w, "p0", 1), 0);
    l = wait_leader(w);
    sim_proc_stop(w->metas[l].proc); /* resigns: only T_auth is waited for */
    assert_true(time_to_answer(w, 1) < MSEC(1300));
    world_start(w, l);
    check_equal(w);
    return 0;
}

/* A request that reaches the leader just before it is paused, or while it is. */
struct late {
    struct mworld *w;
    uint32_t at;
    int rc;
    uint32_t pools;
    bool is_write;
};

static int late_main(void *arg)
{
    struct late *late = arg;
    Zbs__Meta__PoolListRequest list = ZBS__META__POOL_LIST_REQUEST__INIT;
    Zbs__Meta__PoolCreateRequest create = ZBS__META__POOL_CREATE_REQUEST__INIT;
    struct rpc_client_conf conf = {
        .addr = late->w->metas[late->at].listen, .self = "late", .cluster_id = ""};
    struct rpc_client *c = rpc_client_new(&conf);
    struct rpc_reply r;

    create.name = (char *)"late";
    create.replicas = 1;
    rpc_reply_init(&r);
    late->rc = rpc_call(c, &zbs__meta__meta__descriptor,
                        late->is_write ? META_POOL_CREATE : META_POOL_LIST,
                        late->is_write ? &create.base : &list.base, NULL, &r);
    if (late->rc == 0 && !late->is_write)
        late->pools = (uint32_t)((Zbs__Meta__PoolListReply *)r.msg)->n_pools;
    rpc_reply_free(&r);
    rpc_client_close(c);
    return 0;
}

static int paused_leader_script(struct mworld *w)
{
    struct late late[8];
    struct co_group group;
    uint32_t old;

    assert_int_equal(pool_create(w, "p0", 1), 0);
    old = wait_leader(w);
    co_group_init(&group);
    for (uint32_t i = 0; i < ARRAY_SIZE(late); i++) {
        late[i] = (struct late){.w = w, .at = old, .is_write = i % 2 == 1};
        if (i == ARRAY_SIZE(late) / 2) {
            (void)co_sleep(MSEC(1)); /* some are inside when it stops */
            sim_proc_pause(w->metas[old].proc);
        }
        co_spawn(&group, "late", late_main, &late[i]);
        (void)co_sleep((nsec_t)(sim_random(w->sim) % 300) * NSEC_PER_USEC);
    }
    assert_int_equal(pool_create(w, "p1", 1), 0);
    (void)co_sleep(SEC(5));
    sim_proc_resume(w->metas[old].proc);
    (void)co_group_join(&group);
    for (uint32_t i = 0; i < ARRAY_SIZE(late); i++) {
        /* What was answered before the pause is good; what came later was refused or lost. */
        if (i >= ARRAY_SIZE(late) / 2)
            assert_true(late[i].rc < 0);
        else if (late[i].rc == 0 && !late[i].is_write)
            assert_true(late[i].pools <= 2);
    }
    check_equal(w);
    assert_true(world_marks.serve == 2 && world_marks.deposed == 1);
    return 0;
}

static void standby_takes_over_in_time(void **state)
{
    (void)state;
    for_seeds(leader_crash_script, 10);
}

static void stopped_leader_resigns(void **state)
{
    (void)state;
    for_seeds(leader_stop_script, 5);
}

static void paused_leader_answers_nothing(void **state)
{
    (void)state;
    for_seeds(paused_leader_script, 20);
}

/* ---- ZooKeeper's troubles ---- */

static int coord_expiry_script(struct mworld *w)
{
    char name[16];

    for (int i = 0; i < 6; i++) {
        uint32_t l = wait_leader(w);

        snprintf(name, sizeof(name), "p%d", i);
        assert_int_equal(pool_create(w, name, 1), 0);
        sim_coord_expire(w->sim, w->metas[i % 2 == 0 ? l : (l + 1) % METAS].proc);
        assert_true(time_to_answer(w, i + 1) < SEC(3));
        (void)co_sleep(MSEC(300));
    }
    check_equal(w);
    return 0;
}

static void expired_session_costs_little(void **state)
{
    (void)state;
    for_seeds(coord_expiry_script, 10);
}

static int coord_down_script(struct mworld *w)
{
    assert_int_equal(pool_create(w, "p0", 1), 0);
    sim_coord_available(w->sim, false);
    (void)co_sleep(SEC(4));
    assert_int_equal(leader(w), METAS); /* nobody has authority */
    sim_coord_available(w->sim, true);
    (void)wait_leader(w);
    assert_int_equal(pool_create(w, "p1", 1), 0);
    /* The leader alone is cut off. */
    for (int i = 2; i < 5; i++) {
        uint32_t l = wait_leader(w);
        char name[16];

        sim_coord_cut(w->sim, w->metas[l].proc, true);
        snprintf(name, sizeof(name), "p%d", i);
        assert_int_equal(pool_create(w, name, 1), 0);
        sim_coord_cut(w->sim, w->metas[l].proc, false);
        (void)co_sleep(SEC(1));
    }
    assert_int_equal(pool_count(w), 5);
    check_equal(w);
    return 0;
}

static void nobody_leads_without_coordination(void **state)
{
    (void)state;
    for_seeds(coord_down_script, 10);
}

/* ---- exactly once ---- */

struct creator {
    struct mworld *w;
    uint32_t number, count;
    nsec_t pace; /* pauses between */
    struct meta_client *mc;
};

static int creator_main(void *arg)
{
    struct creator *c = arg;

    for (uint32_t i = 0; i < c->count; i++) {
        Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
        Zbs__Meta__Mutation mutation;
        struct rpc_reply r;
        char name[32];
        int rc;

        snprintf(name, sizeof(name), "v-%u-%u", c->number, i);
        meta_client_mutation(c->mc, &mutation);
        rq.mutation = &mutation;
        rq.pool = (char *)"p";
        rq.name = name;
        rq.size_bytes = 1 << 30;
        rpc_reply_init(&r);
        do { /* the same mutation until it is answered */
            rc = meta_call(c->mc, META_VOLUME_CREATE, &rq.base, true, &r);
            rpc_reply_free(&r);
        } while (rc == ERR_TIMEOUT || rc == ERR_UNREACHABLE || rc == ERR_CLOSED ||
                 rc == ERR_NOT_LEADER || rc == ERR_AGAIN);
        ASSERTF(rc == 0, "%s: %s", name, err_text(rc)); /* never ERR_EXISTS */
        if (c->pace > 0)
            (void)co_sleep((nsec_t)(sim_random(c->w->sim) % (uint64_t)c->pace));
    }
    return 0;
}

static uint32_t volume_count(struct mworld *w)
{
    Zbs__Meta__VolumeListRequest rq = ZBS__META__VOLUME_LIST_REQUEST__INIT;
    struct rpc_reply r;
    uint32_t n = 0;

    assert_int_equal(call(w, META_VOLUME_LIST, &rq.base, &r), 0);
    n = (uint32_t)((Zbs__Meta__VolumeListReply *)r.msg)->n_volumes;
    rpc_reply_free(&r);
    return n;
}

#define CREATORS 8u

static void create_many(struct mworld *w, uint32_t each, int (*meanwhile)(struct mworld *w))
{
    struct creator creators[CREATORS];
    struct co_group group;

    co_group_init(&group);
    for (uint32_t i = 0; i < CREATORS; i++) {
        creators[i] = (struct creator){.w = w, .number = i, .count = each};
        creators[i].pace = meanwhile != NULL ? MSEC(250) : 0;
        creators[i].mc = meta_client_new(w->peers, "creator");
        co_spawn(&group, "creator", creator_main, &creators[i]);
    }
    if (meanwhile != NULL)
        assert_int_equal(meanwhile(w), 0);
    assert_int_equal(co_group_join(&group), 0);
    for (uint32_t i = 0; i < CREATORS; i++)
        meta_client_close(creators[i].mc);
    assert_int_equal(volume_count(w), CREATORS * each);
}

static int uncertain_script(struct mworld *w)
{
    assert_int_equal(pool_create(w, "p", 1), 0);
    create_many(w, 40, NULL);
    check_equal(w);
    return 0;
}

static void lost_replies_change_nothing_twice(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_conf conf = {.seed = seed, .coord_uncertain_ppm = 50000, .net_reset_ppm = 2000};
        struct mworld w;

        world_init(&w, &conf, 3);
        world_run(&w, uncertain_script);
        assert_true(world_marks.resume > 0);
        world_fini(&w);
    }
}

static int trouble(struct mworld *w)
{
    for (int i = 0; i < 12; i++) {
        uint32_t at = (uint32_t)(sim_random(w->sim) % METAS);
        nsec_t span = (nsec_t)(sim_random(w->sim) % 3000) * NSEC_PER_MSEC;
        struct sim_proc *p = w->metas[at].proc;

        switch (sim_random(w->sim) % 7) {
        case 0:
            sim_proc_crash(p);
            break;
        case 1:
            sim_proc_power_loss(p);
            break;
        case 2:
            sim_proc_pause(p);
            break;
        case 3:
            sim_net_cut(w->sim, w->metas[at].host, "*");
            sim_net_cut(w->sim, "*", w->metas[at].host);
            break;
        case 4:
            sim_net_cut(w->sim, w->metas[at].host, "*");
            break;
        case 5:
            sim_coord_expire(w->sim, p);
            break;
        default:
            sim_coord_cut(w->sim, p, true);
            break;
        }
        (void)co_sleep(span);
        sim_net_heal_all(w->sim);
        sim_coord_cut(w->sim, p, false);
        if (!sim_proc_running(p))
            world_start(w, at);
        else if (sim_proc_paused(p))
            sim_proc_resume(p);
        (void)co_sleep(span / 2);
    }
    return 0;
}

static int trouble_script(struct mworld *w)
{
    assert_int_equal(pool_create(w, "p", 1), 0);
    create_many(w, 150, trouble);
    check_equal(w);
    return 0;
}

static void acknowledged_survives_any_trouble(void **state)
{
    const char *more = getenv("ZBS_TEST_SEEDS");
    uint64_t seeds = more != NULL ? strtoull(more, NULL, 10) : 30;
    uint64_t terms = 0, deposed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct sim_conf conf = {.seed = seed, .coord_uncertain_ppm = seed % 2 * 5000};
        struct mworld w;

        world_init(&w, &conf, 3);
        world_run(&w, trouble_script);
        terms += world_marks.serve;
        deposed += world_marks.deposed;
        world_fini(&w);
    }
    assert_true(terms > 2 * seeds && deposed > seeds / 3);
}

static int retry_script(struct mworld *w)
{
    Zbs__Meta__VolumeCreateRequest create = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    Zbs__Meta__VolumeDeleteRequest del = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m_create, m_delete;
    struct rpc_reply r;
    uint64_t id = 0, again = 0;

    assert_int_equal(pool_create(w, "p", 1), 0);
    meta_client_mutation(w->mc, &m_create);
    meta_client_mutation(w->mc, &m_delete);
    create.mutation = &m_create;
    del.mutation = &m_delete;
    create.pool = del.pool = (char *)"p";
    create.name = del.name = (char *)"v";
    create.size_bytes = 1 << 30;
    assert_int_equal(call(w, META_VOLUME_CREATE, &create.base, &r), 0);
    id = ((Zbs__Meta__Volume *)r.msg)->id;
    rpc_reply_free(&r);
    sim_proc_crash(w->metas[wait_leader(w)].proc); /* the answers are kept by all */
    assert_int_equal(call(w, META_VOLUME_CREATE, &create.base, &r), 0);
    assert_int_equal(((Zbs__Meta__Volume *)r.msg)->id, id);
    rpc_reply_free(&r);
    assert_int_equal(call(w, META_VOLUME_DELETE, &del.base, &r), 0);
    rpc_reply_free(&r);
    assert_int_equal(volume_create(w, "p", "v", 1 << 30, &again), 0);
    assert_true(again > id);
    assert_int_equal(call(w, META_VOLUME_DELETE, &del.base, &r), 0); /* of the first one */
    rpc_reply_free(&r);
    assert_int_equal(volume_count(w), 1);
    return 0;
}

static void retry_gets_its_first_answer(void **state)
{
    (void)state;
    for_seeds(retry_script, 3);
}

/* ---- trimming and snapshots ---- */

static uint64_t log_tail(void)
{
    struct coord *c;
    void *data;
    uint64_t tail;

    assert_int_equal(coord_open("127.1.0.1:2181", "/zbs", 4000, &c), 0);
    assert_int_equal(coord_wait_connected(c), 0);
    assert_int_equal(coord_get(c, "/tail", &data, NULL, NULL), 0);
    tail = strtoull(data, NULL, 10);
    mem_free(data);
    coord_close(c);
    return tail;
}

static void trim_round(struct mworld *w, const char *prefix, bool expect)
{
    uint64_t before = log_tail(), id;
    char name[32];

    for (int i = 0; i < 150; i++) {
        snprintf(name, sizeof(name), "%s-%d", prefix, i);
        assert_int_equal(volume_create(w, "p", name, 1 << 30, &id), 0);
    }
    (void)co_sleep(SEC(4));
    if (expect)
        assert_true(log_tail() > before + 64);
    else if (prefix[0] == 'd')
        assert_int_equal(log_tail(), before);
}

static int trim_script(struct mworld *w)
{
    uint32_t l, other;

    assert_int_equal(pool_create(w, "p", 1), 0);
    l = wait_leader(w);
    sim_proc_crash(w->metas[(l + 1) % METAS].proc);
    trim_round(w, "a", true);
    world_start(w, (l + 1) % METAS); /* comes back into a log without its place */
    check_equal(w);
    /* With two of three down nothing may be trimmed. */
    l = wait_leader(w);
    sim_proc_power_loss(w->metas[(l + 1) % METAS].proc);
    sim_proc_power_loss(w->metas[(l + 2) % METAS].proc);
    trim_round(w, "b", false); /* what they had told before counts */
    trim_round(w, "d", false);
    world_start(w, (l + 1) % METAS);
    (void)co_sleep(SEC(3));
    trim_round(w, "c", true);
    /* The one with a gap may never lead. */
    sim_proc_crash(w->metas[l].proc);
    sim_proc_crash(w->metas[(l + 1) % METAS].proc);
    world_start(w, (l + 2) % METAS);
    (void)co_sleep(SEC(5));
    assert_int_equal(leader(w), METAS);
    world_start(w, l);
    world_start(w, (l + 1) % METAS);
    other = wait_leader(w);
    assert_true(other < METAS);
    assert_int_equal(volume_count(w), 600);
    check_equal(w);
    assert_true(world_marks.snapshot >= 2);
    return 0;
}

static void trimmed_log_needs_a_snapshot(void **state)
{
    (void)state;
    for_seeds(trim_script, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_server_begins),
        cmocka_unit_test(three_servers_begin),
        cmocka_unit_test(standby_takes_over_in_time),
        cmocka_unit_test(stopped_leader_resigns),
        cmocka_unit_test(paused_leader_answers_nothing),
        cmocka_unit_test(expired_session_costs_little),
        cmocka_unit_test(nobody_leads_without_coordination),
        cmocka_unit_test(lost_replies_change_nothing_twice),
        cmocka_unit_test(acknowledged_survives_any_trouble),
        cmocka_unit_test(retry_gets_its_first_answer),
        cmocka_unit_test(trimmed_log_needs_a_snapshot),
    };

    cmocka_set_test_filter(getenv("ZBS_TEST"));
    return cmocka_run_group_tests_name("metad", tests, NULL, NULL);
}
