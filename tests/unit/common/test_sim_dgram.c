/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated datagrams: ways there and back, what is lost, doubled, overtaken. A process on host A
 * echoes; one on host B runs the test's body. */
#include "tests/unit/common/sim_fixture.h"

#define ECHO_ADDR HOST_A ":700"

static int echo_main(void *arg)
{
    struct net_dgram *d;
    struct net_way way;
    char buf[100];
    ssize_t n;

    CHECK(net_dgram_open(arg, &d) == 0);
    while ((n = net_dgram_recv(d, buf, sizeof(buf), &way)) >= 0)
        CHECK(net_dgram_send(d, buf, (size_t)n, &way) == 0);
    net_dgram_close(d);
    return 0;
}

static struct net_way to(const char *peer)
{
    struct net_way way = {0};

    strcpy(way.peer, peer);
    return way;
}

/* The answers to so many numbered questions. */
static uint32_t ask(struct net_dgram *d, uint32_t questions, uint8_t *times)
{
    struct net_way way = to(ECHO_ADDR);
    nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
    uint32_t overtaken = 0, last = 0;
    uint8_t n;

    CHECK(questions <= UINT8_MAX);
    memset(times, 0, questions);
    for (uint32_t i = 0; i < questions; i++) {
        n = (uint8_t)i;
        CHECK(net_dgram_send(d, &n, 1, &way) == 0);
    }
    while (net_dgram_recv(d, &n, 1, &way) == 1) {
        CHECK(n < questions && strcmp(way.peer, ECHO_ADDR) == 0);
        overtaken += n < last;
        last = n;
        times[n]++;
    }
    co_deadline_restore(former);
    return overtaken;
}

static void run(const struct sim_conf *conf, const char *addr, int (*body)(void *))
{
    struct sim *s = sim_new(conf);
    struct sim_proc *a = sim_proc_new(s, HOST_A, "echo"), *b = sim_proc_new(s, HOST_B, "asks");

    sim_proc_start(a, echo_main, (void *)(uintptr_t)addr);
    sim_run_for(s, MSEC(10));
    assert_int_equal(proc_run(s, b, body, s), 0);
    sim_proc_stop(a);
    sim_free(s);
}

/* ---- there and back ---- */

static int body_back(void *arg)
{
    struct net_way way = to(ECHO_ADDR);
    struct net_dgram *d, *second;
    char buf[10];

    (void)arg;
    CHECK(net_dgram_open(HOST_B ":0", &d) == 0);
    CHECK(net_dgram_open(net_dgram_addr(d), &second) == ERR_BUSY);
    CHECK(net_dgram_open("unix:/x", &second) == ERR_INVAL);
    CHECK(net_dgram_open(HOST_A ":1", &second) == ERR_INVAL);
    CHECK(net_dgram_send(d, "hello", 5, &way) == 0);
    CHECK(net_dgram_recv(d, buf, 3, &way) == 3 && memcmp(buf, "hel", 3) == 0);
    CHECK(strcmp(way.peer, ECHO_ADDR) == 0 && strcmp(way.local, net_dgram_addr(d)) == 0);
    strcpy(way.peer, "nobody");
    CHECK(net_dgram_send(d, "hello", 5, &way) == ERR_INVAL);
    net_dgram_close(d);
    return 0;
}

static void an_answer_comes_from_where_was_asked(void **state)
{
    struct sim_conf conf = {.seed = 1};

    (void)state;
    run(&conf, ECHO_ADDR, body_back);
    run(&conf, "0.0.0.0:700", body_back);
}

/* ---- what the network does to them ---- */

static int body_faithful(void *arg)
{
    struct net_dgram *d;
    uint8_t times[50];

    (void)arg;
    CHECK(net_dgram_open(HOST_B ":0", &d) == 0);
    CHECK(ask(d, 50, times) > 0); /* they overtake each other */
    for (int i = 0; i < 50; i++)
        CHECK(times[i] == 1);
    net_dgram_close(d);
    return 0;
}

static int body_unfaithful(void *arg)
{
    uint32_t lost = 0, doubled = 0;
    struct net_dgram *d;
    uint8_t times[50];

    (void)arg;
    CHECK(net_dgram_open(HOST_B ":0", &d) == 0);
    (void)ask(d, 50, times);
    for (int i = 0; i < 50; i++) {
        lost += times[i] == 0;
        doubled += times[i] > 1;
    }
    CHECK(lost > 0 && lost < 40 && doubled > 0 && doubled < 40);
    net_dgram_close(d);
    return 0;
}

static void they_are_lost_doubled_and_overtaken(void **state)
{
    struct sim_conf faithful = {.seed = 1},
                    not = {.seed = 2, .net_loss_ppm = 100000, .net_double_ppm = 100000};

    (void)state;
    run(&faithful, ECHO_ADDR, body_faithful);
    run(&not, ECHO_ADDR, body_unfaithful);
}

static int body_cut(void *arg)
{
    struct net_dgram *d;
    uint8_t times[10];

    CHECK(net_dgram_open(HOST_B ":0", &d) == 0);
    sim_net_cut(arg, HOST_A, HOST_B);
    (void)ask(d, 10, times);
    for (int i = 0; i < 10; i++)
        CHECK(times[i] == 0);
    sim_net_heal_all(arg);
    (void)ask(d, 10, times);
    CHECK(times[0] == 1);
    net_dgram_close(d);
    return 0;
}

static void none_comes_over_a_path_that_is_cut(void **state)
{
    struct sim_conf conf = {.seed = 3};

    (void)state;
    run(&conf, ECHO_ADDR, body_cut);
}

/* Nobody receives: what does not fit is lost, the rest goes with the process. */
static int body_flood(void *arg)
{
    struct net_way way = to(HOST_B ":900");
    struct net_dgram *d;
    uint32_t got = 0;
    uint8_t n = 0;

    (void)arg;
    CHECK(net_dgram_open(way.peer, &d) == 0);
    for (int i = 0; i < 1000; i++)
        CHECK(net_dgram_send(d, &n, 1, &way) == 0);
    CHECK(co_sleep(NSEC_PER_SEC) == 0);
    (void)co_deadline_push(co_now() + NSEC_PER_SEC);
    while (net_dgram_recv(d, &n, 1, &way) == 1)
        got++;
    CHECK(got > 10 && got < 1000);
    way = to(HOST_B ":900");
    for (int i = 0; i < 10; i++)
        CHECK(net_dgram_send(d, &n, 1, &way) == 0);
    return 0; /* left open */
}

static void a_socket_keeps_no_more_than_it_may(void **state)
{
    struct sim_conf conf = {.seed = 4};

    (void)state;
    run(&conf, ECHO_ADDR, body_flood);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_comes_from_where_was_asked),
        cmocka_unit_test(they_are_lost_doubled_and_overtaken),
        cmocka_unit_test(none_comes_over_a_path_that_is_cut),
        cmocka_unit_test(a_socket_keeps_no_more_than_it_may),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
