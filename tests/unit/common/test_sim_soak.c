/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything at once under random faults, each seed twice: the two traces must be the same,
 * though every allocation lies elsewhere. */
#include "tests/unit/common/sim_fixture.h"

#define NODES   3
#define SERVERS "127.0.0.2:2181"

struct world {
    struct sim *s;
    struct sim_proc *nodes[NODES];
    uint64_t served, written;
};

struct node {
    struct world *w;
    int self;
};

static struct node nodes[NODES];

static void addr_of(int node, char *addr)
{
    snprintf(addr, NET_ADDR_MAX, "127.1.0.%d:9000", node + 1);
}

static int serve_conn(void *arg)
{
    struct net_conn *c = arg;
    char buf[8192];
    int rc = 0;

    while (rc == 0) {
        uint32_t len;

        rc = net_read_full(c, &len, sizeof(len));
        if (rc == 0)
            rc = net_read_full(c, buf, len);
        if (rc == 0) {
            struct iovec iov = {buf, len};

            rc = net_writev_full(c, &iov, 1);
        }
    }
    net_close(c);
    return 0;
}

static int serve(void *arg)
{
    struct node *n = arg;
    struct net_listener *l;
    struct net_conn *c;
    struct co_group g;
    char addr[NET_ADDR_MAX];
    int rc;

    addr_of(n->self, addr);
    co_group_init(&g);
    rc = net_listen(addr, &l);
    if (rc < 0)
        return rc;
    while ((rc = net_accept(l, &c)) == 0)
        co_spawn(&g, "conn", serve_conn, c);
    net_listener_close(l);
    (void)co_group_close(&g);
    return rc;
}

static int talk(void *arg)
{
    struct node *n = arg;

    while (!co_canceled()) {
        char addr[NET_ADDR_MAX], buf[8192];
        struct net_conn *c;
        int rc;

        addr_of((int)(env_random() % NODES), addr);
        rc = net_connect(addr, &c);
        if (rc < 0) {
            (void)co_sleep(MSEC(20));
            continue;
        }
        for (int i = 0; rc == 0 && i < 50; i++) {
            uint32_t len = 1 + (uint32_t)(env_random() % sizeof(buf));
            struct iovec iov[2] = {{&len, sizeof(len)}, {buf, len}};
            nsec_t former = co_deadline_push(co_now() + MSEC(300));

            memset(buf, i, len);
            rc = net_writev_full(c, iov, 2);
            if (rc == 0)
                rc = net_read_full(c, buf, len);
            co_deadline_restore(former);
            n->w->served += rc == 0;
            (void)co_sleep(MSEC(3));
            if (rc == 0)
                CHECK(buf[0] == (char)i && buf[len - 1] == (char)i);
        }
        net_close(c);
        (void)co_sleep(MSEC(5));
    }
    return 0;
}

static int store(void *arg)
{
    struct node *n = arg;
    uint8_t *page = mem_alloc_aligned(4096, 16384);
    struct disk *d;
    struct kv *kv;
    int rc = 0;

    memset(page, 0, 16384);
    CHECK(disk_open("/d", DISK_EXCLUSIVE, &d) == 0 && kv_open("/kv", &kv) == 0);
    while (!co_canceled()) {
        struct kv_batch *b = kv_batch_new();
        uint64_t key = env_random() % 100;

        page[0] = (uint8_t)key;
        rc = disk_write(d, page, 16384, key * 16384, key % 2);
        if (rc == 0 && key % 8 == 0)
            rc = disk_flush(d);
        kv_batch_put(b, &key, sizeof(key), page, 64);
        CHECK(kv_write(kv, b, key % 4 == 0) == 0);
        kv_batch_free(b);
        n->w->written += rc == 0;
        (void)co_sleep(MSEC(2));
    }
    kv_close(kv);
    disk_close(d);
    mem_free(page);
    return 0;
}

static int coordinate(void *arg)
{
    struct node *n = arg;

    while (!co_canceled()) {
        struct coord_watch w = {0};
        struct coord *c;
        char path[32];
        int rc;

        CHECK(coord_open(SERVERS, "/soak", 800, &c) == 0);
        snprintf(path, sizeof(path), "/n%d-", n->self);
        rc = coord_wait_connected(c);
        while (rc == 0 || rc == ERR_UNCERTAIN || rc == ERR_EXISTS) {
            nsec_t former = co_deadline_push(co_now() + MSEC(200));

            if (rc == 0)
                rc = coord_create(c, path, "x", 1, COORD_EPHEMERAL | COORD_SEQUENCE, NULL);
            if (rc == 0)
                rc = coord_create(c, "/shared", "x", 1, 0, NULL);
            if (rc == 0 || rc == ERR_EXISTS)
                rc = coord_watch_arm(c, &w, COORD_WATCH_NODE, "/shared");
            if (rc == 0 && env_random() % 3 == 0)
                rc = coord_delete(c, "/shared", -1);
            if (rc == 0)
                (void)coord_watch_wait(&w);
            coord_watch_cancel(&w);
            co_deadline_restore(former);
            if (rc == ERR_TIMEOUT || rc == ERR_NOTFOUND || rc == ERR_UNCERTAIN)
                rc = co_sleep(MSEC(10));
        }
        coord_close(c);
    }
    return 0;
}

static int node_main(void *arg)
{
    struct node *n = arg;
    struct co_group g;
    struct co_loop *worker;

    CHECK(env_lock_file("/run/node") == 0);
    CHECK(env_thread_start("worker", &worker) == 0);
    co_group_init(&g);
    co_spawn(&g, "serve", serve, n);
    co_spawn(&g, "talk", talk, n);
    co_spawn(&g, "talk", talk, n);
    co_spawn(&g, "store", store, n);
    co_spawn(&g, "coordinate", coordinate, n);
    (void)co_group_join(&g);
    env_thread_stop(worker);
    return 0;
}

static void fault_one(struct world *w)
{
    struct sim_proc *p = w->nodes[sim_random(w->s) % NODES];
    char host[32];

    snprintf(host, sizeof(host), "127.1.0.%d", 1 + (int)(sim_random(w->s) % NODES));
    switch (sim_random(w->s) % 10) {
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
        sim_proc_stop(p);
        break;
    case 4:
        sim_net_cut(w->s, host, "*");
        break;
    case 5:
        sim_net_cut(w->s, "*", host);
        break;
    case 6:
        sim_coord_expire(w->s, p);
        break;
    case 7:
        sim_coord_cut(w->s, p, true);
        break;
    case 8:
        sim_coord_available(w->s, false);
        break;
    default:
        sim_disk_fail(p, "/d", true);
    }
}

static void heal(struct world *w)
{
    sim_net_heal_all(w->s);
    sim_coord_available(w->s, true);
    for (int i = 0; i < NODES; i++) {
        sim_coord_cut(w->s, w->nodes[i], false);
        sim_disk_fail(w->nodes[i], "/d", false);
        sim_proc_resume(w->nodes[i]);
        if (!sim_proc_running(w->nodes[i]))
            sim_proc_start(w->nodes[i], node_main, &nodes[i]);
    }
}

static int faults(void *arg)
{
    struct world *w = arg;

    for (int i = 0; i < 20; i++) {
        heal(w);
        CHECK(co_sleep((nsec_t)(sim_random(w->s) % SEC(1))) == 0);
        fault_one(w);
        CHECK(co_sleep((nsec_t)(sim_random(w->s) % SEC(3))) == 0);
    }
    heal(w);
    return 0;
}

static uint64_t soak(uint64_t seed, struct world *w)
{
    struct sim_conf conf = {.seed = seed,
                            .net_spike_ppm = 500,
                            .net_reset_ppm = 200,
                            .disk_spike_ppm = 500,
                            .disk_eio_ppm = 500,
                            .coord_uncertain_ppm = 20000};
    struct sim_conf calm = {.seed = seed};
    uint64_t hash, before;

    *w = (struct world){.s = sim_new(&conf)};
    for (int i = 0; i < NODES; i++) {
        char host[32], name[32];

        snprintf(host, sizeof(host), "127.1.0.%d", i + 1);
        snprintf(name, sizeof(name), "node-%d", i);
        w->nodes[i] = sim_proc_new(w->s, host, name);
        nodes[i] = (struct node){w, i};
        sim_disk_create(w->nodes[i], "/d", 4u << 20);
    }
    sim_control(w->s, "127.1.9.9", "faults", faults, w);
    while (sim_control_running(w->s) > 0)
        sim_run_for(w->s, SEC(1));
    sim_set_conf(w->s, &calm);
    before = w->served;
    sim_run_for(w->s, SEC(15));
    assert_true(w->served > before + 500); /* healed: all goes on */
    for (int i = 0; i < NODES; i++) {
        sim_proc_stop(w->nodes[i]);
        assert_null(sim_proc_halted(w->nodes[i]));
    }
    hash = sim_trace_hash(w->s);
    sim_free(w->s);
    return hash;
}

static void faults_are_reproducible(void **state)
{
    uint64_t all = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct world a, b;
        uint64_t first = soak(seed, &a), second;
        void *shift = malloc(seed * 1234);

        second = soak(seed, &b);
        free(shift);
        assert_true(first == second);
        assert_true(a.served == b.served && a.written == b.written && a.written > 1000);
        all = all * 31 + first;
    }
    if (getenv("ZBS_SIM_HASH"))
        printf("hash %016llx\n", (unsigned long long)all); /* to compare two processes */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_are_reproducible),
    };

    return cmocka_run_group_tests_name("sim_soak", tests, NULL, NULL);
}
