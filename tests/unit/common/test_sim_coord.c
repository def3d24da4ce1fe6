/* SPDX-License-Identifier: Apache-2.0
 *
 * The twin of the coordination service: tree, versions, multis, watches, sessions, uncertainty. */
#include "tests/unit/common/sim_fixture.h"

#define SERVERS "127.0.0.2:2181,127.0.0.3:2181"

struct rig {
    struct sim *s;
    struct sim_proc *p, *q;
    int (*body)(struct coord *c, struct rig *r);
    struct coord *c;
    int rc;
    bool ready, go, stale_seen;
    nsec_t at;
};

static struct rig rig_new(uint64_t seed, int (*body)(struct coord *c, struct rig *r))
{
    struct rig r = {.s = world_new(seed), .body = body};

    r.p = sim_proc_new(r.s, HOST_A, "p");
    r.q = sim_proc_new(r.s, HOST_B, "q");
    return r;
}

static struct coord *open_connected(void)
{
    struct coord *c;

    CHECK(coord_open(SERVERS, "/zbs/test", 1000, &c) == 0);
    CHECK(coord_state(c) == COORD_CONNECTING);
    CHECK(coord_wait_connected(c) == 0);
    return c;
}

static int rig_main(void *arg)
{
    struct rig *r = arg;
    int rc;

    r->c = open_connected();
    rc = r->body(r->c, r);
    coord_close(r->c);
    return rc;
}

/* Each behaviour holds whichever server a handle is attached to. */
static void run_seeds(int (*body)(struct coord *c, struct rig *r))
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct rig r = rig_new(seed, body);

        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        sim_free(r.s);
    }
}

static void expect(struct coord *c, const char *path, const char *want, int32_t version)
{
    struct coord_stat st;
    void *data;
    size_t len;

    CHECK(coord_get(c, path, &data, &len, &st) == 0);
    CHECK(len == strlen(want) && memcmp(data, want, len + 1) == 0);
    CHECK(st.version == version && st.data_len == len);
    mem_free(data);
}

/* ---- tree ---- */

static int body_tree(struct coord *c, struct rig *r)
{
    struct coord_stat st;
    char **names, *path;
    uint32_t n;

    (void)r;
    CHECK(coord_create(c, "/a", "one", 3, 0, &path) == 0 && strcmp(path, "/a") == 0);
    mem_free(path);
    expect(c, "/a", "one", 0);
    CHECK(coord_create(c, "/a", "", 0, 0, NULL) == ERR_EXISTS);
    CHECK(coord_create(c, "/x/y", "", 0, 0, NULL) == ERR_NOTFOUND);
    CHECK(coord_set(c, "/a", "two", 3, 1, NULL) == ERR_STALE);
    CHECK(coord_set(c, "/a", "two", 3, 0, &st) == 0 && st.version == 1 && st.mzxid > st.czxid);
    expect(c, "/a", "two", 1);
    CHECK(coord_set(c, "/b", "", 0, -1, NULL) == ERR_NOTFOUND);
    CHECK(coord_create(c, "/a/k", NULL, 0, 0, NULL) == 0);
    CHECK(coord_create(c, "/a/e", NULL, 0, COORD_EPHEMERAL, NULL) == 0);
    CHECK(coord_create(c, "/a/e/z", NULL, 0, 0, NULL) == ERR_INVAL);
    CHECK(coord_children(c, "/a", &names, &n) == 0 && n == 2);
    CHECK(strcmp(names[0], "e") == 0 && strcmp(names[1], "k") == 0);
    mem_free(names);
    CHECK(coord_get(c, "/a", NULL, NULL, &st) == 0 && st.children == 2 && !st.ephemeral);
    CHECK(coord_get(c, "/a/e", NULL, NULL, &st) == 0 && st.ephemeral);
    CHECK(coord_delete(c, "/a", -1) == ERR_NOT_EMPTY);
    CHECK(coord_delete(c, "/a/k", 3) == ERR_STALE && coord_delete(c, "/a/k", 0) == 0);
    CHECK(coord_get(c, "/a/k", NULL, NULL, NULL) == ERR_NOTFOUND);
    CHECK(coord_children(c, "/", &names, &n) == 0 && n == 1);
    mem_free(names);
    return 0;
}

static void tree_and_versions(void **state)
{
    (void)state;
    run_seeds(body_tree);
}

static int body_names(struct coord *c, struct rig *r)
{
    static const char *const bad[] = {"", "a", "/", "//", "/a/", "/a//b", "/.", "/a/..", "/a/./b"};
    char *big = mem_alloc(COORD_DATA_MAX + 1), *first, *second;

    (void)r;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK(coord_create(c, bad[i], NULL, 0, 0, NULL) == ERR_INVAL);
    CHECK(coord_create(c, "/big", big, COORD_DATA_MAX + 1, 0, NULL) == ERR_TOO_LARGE);
    CHECK(coord_create(c, "/big", big, COORD_DATA_MAX, 0, NULL) == 0);
    mem_free(big);
    CHECK(coord_create(c, "/s-", NULL, 0, COORD_SEQUENCE, &first) == 0);
    CHECK(coord_create(c, "/s-", NULL, 0, COORD_SEQUENCE, &second) == 0);
    CHECK(strlen(first) == 13 && strcmp(first, second) < 0);
    mem_free(first);
    mem_free(second);
    return 0;
}

static void names_and_limits(void **state)
{
    (void)state;
    run_seeds(body_names);
}

static int body_multi(struct coord *c, struct rig *r)
{
    struct coord_op good[] = {
        {.kind = COORD_OP_CHECK, .path = "/term", .version = 0},
        {.kind = COORD_OP_SET, .path = "/head", .data = "1", .len = 1, .version = 0},
        {.kind = COORD_OP_CREATE, .path = "/log-1", .data = "entry", .len = 5},
        {.kind = COORD_OP_DELETE, .path = "/old", .version = -1},
    };

    (void)r;
    CHECK(coord_create(c, "/term", "1", 1, 0, NULL) == 0);
    CHECK(coord_create(c, "/head", "0", 1, 0, NULL) == 0);
    CHECK(coord_create(c, "/old", "0", 1, 0, NULL) == 0);
    CHECK(coord_multi(c, good, 4) == 0 && good[1].ret_version == 1);
    expect(c, "/head", "1", 1);
    expect(c, "/log-1", "entry", 0);
    CHECK(coord_get(c, "/old", NULL, NULL, NULL) == ERR_NOTFOUND);
    /* the last fails: nothing of the others stays */
    good[1].version = 1;
    good[2].path = "/log-2";
    good[3].path = "/none";
    CHECK(coord_multi(c, good, 4) == ERR_NOTFOUND);
    CHECK(good[3].rc == ERR_NOTFOUND && good[0].rc == 0);
    expect(c, "/head", "1", 1);
    CHECK(coord_get(c, "/log-2", NULL, NULL, NULL) == ERR_NOTFOUND);
    CHECK(coord_set(c, "/term", "2", 1, 0, NULL) == 0);
    CHECK(coord_multi(c, good, 3) == ERR_STALE && good[0].rc == ERR_STALE);
    CHECK(coord_multi(c, good, COORD_MULTI_MAX + 1) == ERR_TOO_LARGE);
    return 0;
}

static void multi_is_all_or_nothing(void **state)
{
    (void)state;
    run_seeds(body_multi);
}

/* ---- order ---- */

struct writer {
    struct coord *c;
    int i;
};

static int write_one(void *arg)
{
    struct writer *w = arg;
    char text[8];

    snprintf(text, sizeof(text), "%d", w->i);
    return coord_set(w->c, "/n", text, strlen(text), w->i, NULL);
}

/* Many in flight: applied in order of submission, or the versions would not match. */
static int body_pipeline(struct coord *c, struct rig *r)
{
    struct writer w[20];
    struct co_group g;

    (void)r;
    CHECK(coord_create(c, "/n", NULL, 0, 0, NULL) == 0);
    co_group_init(&g);
    for (int i = 0; i < 20; i++) {
        w[i] = (struct writer){c, i};
        co_spawn(&g, "write", write_one, &w[i]);
        CHECK(co_sleep(5 * NSEC_PER_USEC) == 0);
    }
    CHECK(co_group_join(&g) == 0);
    expect(c, "/n", "19", 20);
    return 0;
}

static void writes_are_applied_in_order(void **state)
{
    (void)state;
    run_seeds(body_pipeline);
}

/* A second handle may read an older state, but not after a sync. */
static int body_stale(struct coord *c, struct rig *r)
{
    struct coord *other = open_connected();

    CHECK(coord_create(c, "/v", "0", 1, 0, NULL) == 0);
    CHECK(coord_sync(other, "/v") == 0);
    for (int32_t i = 1; i < 30; i++) {
        struct coord_stat st;

        CHECK(coord_set(c, "/v", "x", 1, i - 1, NULL) == 0);
        CHECK(coord_get(other, "/v", NULL, NULL, &st) == 0 && st.version <= i);
        r->stale_seen |= st.version < i;
        expect(c, "/v", "x", i);                                         /* its own write */
        CHECK(coord_set(other, "/v", "y", 1, i + 7, NULL) == ERR_STALE); /* decided by the leader */
        CHECK(coord_sync(other, "/v") == 0);
        CHECK(coord_get(other, "/v", NULL, NULL, &st) == 0 && st.version == i);
    }
    coord_close(other);
    return 0;
}

static void reads_may_be_stale_until_sync(void **state)
{
    bool seen = false;

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct rig r = rig_new(seed, body_stale);

        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        seen |= r.stale_seen;
        sim_free(r.s);
    }
    assert_true(seen);
}

/* ---- watches ---- */

static int body_watch(struct coord *c, struct rig *r)
{
    struct coord_watch node = {0}, kids = {0}, gone = {0}, never = {0};

    (void)r;
    CHECK(coord_watch_arm(c, &node, COORD_WATCH_NODE, "/w") == 0); /* need not exist */
    CHECK(coord_watch_arm(c, &kids, COORD_WATCH_CHILDREN, "/w") == ERR_NOTFOUND);
    CHECK(coord_create(c, "/w", "1", 1, 0, NULL) == 0);
    CHECK(coord_watch_wait(&node) == 0 && node.fired);
    CHECK(coord_watch_arm(c, &node, COORD_WATCH_NODE, "/w") == 0);
    CHECK(coord_watch_arm(c, &kids, COORD_WATCH_CHILDREN, "/w") == 0);
    CHECK(coord_watch_arm(c, &never, COORD_WATCH_NODE, "/w/kid") == 0);
    coord_watch_cancel(&never);
    CHECK(coord_create(c, "/w/kid", NULL, 0, 0, NULL) == 0);
    CHECK(coord_watch_wait(&kids) == 0);
    CHECK(!node.fired && !never.fired);
    CHECK(coord_watch_arm(c, &kids, COORD_WATCH_CHILDREN, "/w") == 0);
    CHECK(coord_set(c, "/w", "2", 1, -1, NULL) == 0);
    CHECK(coord_watch_wait(&node) == 0 && !kids.fired);
    CHECK(coord_watch_arm(c, &gone, COORD_WATCH_NODE, "/w/kid") == 0);
    CHECK(coord_delete(c, "/w/kid", -1) == 0);
    CHECK(coord_watch_wait(&gone) == 0 && coord_watch_wait(&kids) == 0);
    CHECK(coord_watch_arm(c, &node, COORD_WATCH_NODE, "/w") == 0);
    (void)co_deadline_push(co_now() + MSEC(50));
    CHECK(coord_watch_wait(&node) == ERR_TIMEOUT);
    co_deadline_restore(NSEC_NEVER);
    coord_watch_cancel(&node);
    coord_watch_cancel(&node);
    return 0;
}

static void watches_fire_once(void **state)
{
    (void)state;
    run_seeds(body_watch);
}

/* ---- sessions ---- */

static int body_hold(struct coord *c, struct rig *r)
{
    struct coord_watch w = {0};

    CHECK(coord_create(c, "/me", NULL, 0, COORD_EPHEMERAL, NULL) == 0);
    CHECK(coord_watch_arm(c, &w, COORD_WATCH_NODE, "/other") == 0);
    r->ready = true;
    r->rc = coord_watch_wait(&w);
    if (r->rc == ERR_EXPIRED) {
        CHECK(coord_state(c) == COORD_EXPIRED);
        CHECK(coord_get(c, "/me", NULL, NULL, NULL) == ERR_EXPIRED);
        CHECK(coord_wait_connected(c) == ERR_EXPIRED);
    }
    coord_watch_cancel(&w);
    return 0;
}

/* How long the ephemeral of the other process stays. */
static int observe_main(void *arg)
{
    struct rig *r = arg;
    struct coord *c = open_connected();
    nsec_t start;

    while (coord_get(c, "/me", NULL, NULL, NULL) == ERR_NOTFOUND)
        CHECK(co_sleep(MSEC(1)) == 0);
    r->go = true;
    start = co_now();
    while (coord_get(c, "/me", NULL, NULL, NULL) == 0)
        CHECK(co_sleep(MSEC(5)) == 0);
    r->at = co_now() - start;
    coord_close(c);
    return 0;
}

static bool may_go(void *arg)
{
    struct rig *r = arg;

    return r->go && r->ready;
}

enum fault { CRASH, POWER, PAUSE, CUT, NET_CUT, EXPIRE, FAULTS };

static void session_fault(enum fault fault, struct rig *r)
{
    switch (fault) {
    case CRASH:
        sim_proc_crash(r->p);
        break;
    case POWER:
        sim_proc_power_loss(r->p);
        break;
    case PAUSE:
        sim_proc_pause(r->p);
        break;
    case CUT:
        sim_coord_cut(r->s, r->p, true);
        break;
    case NET_CUT:
        sim_net_cut(r->s, HOST_A, "*");
        break;
    default:
        sim_coord_expire(r->s, r->p);
    }
}

static void sessions_expire(void **state)
{
    (void)state;
    for (enum fault fault = CRASH; fault < FAULTS; fault++) {
        struct rig r = rig_new(20 + fault, body_hold);

        sim_proc_start(r.p, rig_main, &r);
        sim_proc_start(r.q, observe_main, &r);
        assert_true(sim_run_until(r.s, may_go, &r, SEC(5)));
        session_fault(fault, &r);
        assert_true(sim_run_until(r.s, proc_is_over, r.q, SEC(5)));
        if (fault == EXPIRE)
            assert_true(r.at < MSEC(50));
        else
            assert_true(r.at > MSEC(600) && r.at < MSEC(1500));
        if (fault == PAUSE || fault == CUT || fault == NET_CUT) {
            sim_run_for(r.s, SEC(2));
            assert_true(sim_proc_running(r.p)); /* it does not know yet */
            sim_proc_resume(r.p);
            sim_coord_cut(r.s, r.p, false);
            sim_net_heal_all(r.s);
        }
        if (fault != CRASH && fault != POWER) {
            assert_true(sim_run_until(r.s, proc_is_over, r.p, SEC(2)));
            assert_int_equal(r.rc, ERR_EXPIRED);
        }
        sim_free(r.s);
    }
}

static int body_close(struct coord *c, struct rig *r)
{
    struct coord *other = open_connected();

    (void)r;
    CHECK(coord_create(other, "/mine", NULL, 0, COORD_EPHEMERAL, NULL) == 0);
    coord_close(other);
    CHECK(coord_sync(c, "/") == 0);
    return coord_get(c, "/mine", NULL, NULL, NULL) == ERR_NOTFOUND ? 0 : ERR_EXISTS;
}

static void close_ends_the_session(void **state)
{
    (void)state;
    run_seeds(body_close);
}

/* Short losses of the service cost connections, not sessions. */
static int body_outage(struct coord *c, struct rig *r)
{
    int rc, uncertain = 0;

    CHECK(coord_create(c, "/e", NULL, 0, COORD_EPHEMERAL, NULL) == 0);
    sim_coord_available(r->s, false);
    rc = coord_create(c, "/f", NULL, 0, 0, NULL);
    CHECK(rc == ERR_UNCERTAIN);
    CHECK(co_sleep(SEC(5)) == 0);
    CHECK(coord_state(c) == COORD_CONNECTING);
    sim_coord_available(r->s, true);
    CHECK(coord_wait_connected(c) == 0);
    CHECK(coord_get(c, "/e", NULL, NULL, NULL) == 0); /* froze, not expired */
    sim_coord_cut(r->s, r->p, true);
    (void)co_deadline_push(co_now() + MSEC(100));
    CHECK(coord_set(c, "/e", "x", 1, -1, NULL) == ERR_TIMEOUT);
    co_deadline_restore(NSEC_NEVER);
    sim_coord_cut(r->s, r->p, false);
    CHECK(coord_get(c, "/e", NULL, NULL, NULL) == 0);
    for (int i = 0; i < 3; i++)
        uncertain += coord_set(c, "/e", "y", 1, -1, NULL) == ERR_UNCERTAIN;
    CHECK(uncertain == 0);
    return 0;
}

static void outages_do_not_expire(void **state)
{
    (void)state;
    run_seeds(body_outage);
}

static int body_uncertain(struct coord *c, struct rig *r)
{
    int32_t version = 0;
    int applied = 0, lost = 0;

    (void)r;
    while (coord_create(c, "/u", NULL, 0, 0, NULL) == ERR_UNCERTAIN)
        continue;
    for (int i = 0; i < 200; i++) {
        struct coord_stat st;
        int rc = coord_set(c, "/u", "z", 1, version, NULL);

        CHECK(rc == 0 || rc == ERR_UNCERTAIN);
        while (coord_get(c, "/u", NULL, NULL, &st) < 0)
            CHECK(coord_wait_connected(c) == 0);
        CHECK(st.version == version + 1 || (rc == ERR_UNCERTAIN && st.version == version));
        applied += rc < 0 && st.version > version;
        lost += rc < 0 && st.version == version;
        version = st.version;
    }
    CHECK(applied > 5 && lost > 5);
    return 0;
}

static void uncertain_is_either(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 4; seed++) {
        struct sim_conf conf = {.seed = seed, .coord_uncertain_ppm = 200000};
        struct rig r = {.s = sim_new(&conf), .body = body_uncertain};

        r.p = sim_proc_new(r.s, HOST_A, "p");
        assert_int_equal(proc_run(r.s, r.p, rig_main, &r), 0);
        sim_free(r.s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_and_versions),
        cmocka_unit_test(names_and_limits),
        cmocka_unit_test(multi_is_all_or_nothing),
        cmocka_unit_test(writes_are_applied_in_order),
        cmocka_unit_test(reads_may_be_stale_until_sync),
        cmocka_unit_test(watches_fire_once),
        cmocka_unit_test(sessions_expire),
        cmocka_unit_test(close_ends_the_session),
        cmocka_unit_test(outages_do_not_expire),
        cmocka_unit_test(uncertain_is_either),
    };

    return cmocka_run_group_tests_name("sim_coord", tests, NULL, NULL);
}
