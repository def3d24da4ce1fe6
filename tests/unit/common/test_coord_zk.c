/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordination service against a real ZooKeeper server, which this program starts on a free
 * loopback port, stops, kills and starts again. Bodies run as coroutines, where cmocka's jumps
 * must not go, so they ASSERT. Exit code 77: there is no java or no ZooKeeper. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/env_real.h"
#include "common/env/real/coord_zk.h"

#define JAR        "/usr/share/java/zookeeper.jar"
#define SESSION_MS 10000

static char dir[64], config[96], servers[32];
static pid_t server = -1;

/* ---- the server ---- */

static int free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ASSERT(bind(fd, (struct sockaddr *)&in, len) == 0);
    ASSERT(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
    close(fd);
    return ntohs(in.sin_port);
}

static void server_start(void)
{
    char log[96];

    snprintf(log, sizeof(log), "%s/log", dir);
    server = fork();
    ASSERT(server >= 0);
    if (server == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed assertion must not leave it behind */
        dup2(fd, 1);
        dup2(fd, 2);
        execlp("java", "java", "-Xmx256m", "-XX:-UsePerfData", "-XX:+UseSerialGC",
               "-XX:TieredStopAtLevel=1", "-cp", JAR,
               "org.apache.zookeeper.server.quorum.QuorumPeerMain", config, (char *)NULL);
        _exit(127);
    }
}

static void server_kill(void)
{
    if (server < 0)
        return;
    kill(server, SIGKILL);
    while (waitpid(server, NULL, 0) < 0 && errno == EINTR)
        ;
    server = -1;
}

/* Returns when all its threads have stopped. */
static void server_stop(void)
{
    int status;

    kill(server, SIGSTOP);
    ASSERT(waitpid(server, &status, WUNTRACED) == server && WIFSTOPPED(status));
}

static int group_setup(void **state)
{
    int port = free_port();
    FILE *f;

    (void)state;
    strcpy(dir, "/tmp/zbs-zk-XXXXXX");
    ASSERT(mkdtemp(dir) != NULL);
    snprintf(config, sizeof(config), "%s/zoo.cfg", dir);
    snprintf(servers, sizeof(servers), "127.0.0.1:%d", port);
    f = fopen(config, "w");
    ASSERT(f != NULL);
    fprintf(f,
            "tickTime=200\ndataDir=%s/data\nclientPort=%d\nclientPortAddress=127.0.0.1\n"
            "maxSessionTimeout=60000\nadmin.enableServer=false\n",
            dir, port);
    (void)fclose(f);
    server_start();
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int group_teardown(void **state)
{
    (void)state;
    server_kill();
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int run(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test"};

    return env_real_run(&conf, fn, NULL);
}

/* Java may take its time on a loaded machine. */
static void wait_connected(struct coord *c)
{
    nsec_t former = co_deadline_push(co_now() + 60 * NSEC_PER_SEC);
    int rc = coord_wait_connected(c);

    ASSERTF(rc == 0, "%s", err_text(rc));
    co_deadline_restore(former);
}

static struct coord *open_root(const char *root)
{
    struct coord *c;

    ASSERT(coord_open(servers, root, SESSION_MS, &c) == 0);
    ASSERT(coord_state(c) == COORD_CONNECTING);
    wait_connected(c);
    return c;
}

static void must(int rc)
{
    ASSERTF(rc == 0, "%s: %s", err_name(rc), err_text(rc));
}

/* ---- nodes ---- */

static int body_nodes(void *arg)
{
    struct coord *c = open_root("/zbs/nodes");
    struct coord_stat st;
    char *path, **names;
    void *data;
    size_t len;
    uint32_t n;

    (void)arg;
    must(coord_create(c, "/a", "one", 3, 0, NULL));
    ASSERT(coord_create(c, "/a", "two", 3, 0, NULL) == ERR_EXISTS);
    ASSERT(coord_create(c, "/no/parent", NULL, 0, 0, NULL) == ERR_NOTFOUND);
    must(coord_get(c, "/a", &data, &len, &st));
    ASSERT(len == 3 && strcmp(data, "one") == 0 && st.version == 0 && st.czxid == st.mzxid);
    mem_free(data);
    must(coord_set(c, "/a", "three", 5, 0, &st));
    ASSERT(st.version == 1 && st.mzxid > st.czxid && st.data_len == 5);
    ASSERT(coord_set(c, "/a", "x", 1, 0, NULL) == ERR_STALE);
    must(coord_set(c, "/a", "", 0, -1, NULL));
    must(coord_get(c, "/a", &data, &len, &st));
    ASSERT(len == 0 && st.version == 2);
    mem_free(data);
    must(coord_create(c, "/a/q-", NULL, 0, COORD_SEQUENCE, &path));
    ASSERT(strcmp(path, "/a/q-0000000000") == 0);
    mem_free(path);
    must(coord_create(c, "/a/b", NULL, 0, COORD_EPHEMERAL, &path));
    ASSERT(strcmp(path, "/a/b") == 0);
    mem_free(path);
    must(coord_get(c, "/a/b", NULL, NULL, &st));
    ASSERT(st.ephemeral);
    must(coord_children(c, "/a", &names, &n));
    ASSERT(n == 2 && strcmp(names[0], "b") == 0 && strcmp(names[1], "q-0000000000") == 0);
    mem_free(names);
    must(coord_children(c, "/", &names, &n));
    ASSERT(n == 1 && strcmp(names[0], "a") == 0);
    mem_free(names);
    ASSERT(coord_delete(c, "/a", -1) == ERR_NOT_EMPTY);
    ASSERT(coord_delete(c, "/gone", -1) == ERR_NOTFOUND);
    must(coord_delete(c, "/a/q-0000000000", -1));
    must(coord_sync(c, "/a"));
    coord_close(c);
    c = open_root("/zbs/nodes"); /* the ephemeral went with the session */
    must(coord_children(c, "/a", &names, &n));
    ASSERT(n == 0);
    mem_free(names);
    coord_close(c);
    ASSERT(coord_open("localhost:2181", "", SESSION_MS, &c) == ERR_INVAL);
    return 0;
}

static void nodes_and_versions(void **state)
{
    (void)state;
    assert_int_equal(run(body_nodes), 0);
}

static int body_multi(void *arg)
{
    struct coord *c = open_root("/zbs/multi");
    struct coord_op good[] = {
        {.kind = COORD_OP_CREATE, .path = "/term", .data = "1", .len = 1},
        {.kind = COORD_OP_CREATE, .path = "/log", .flags = 0},
        {.kind = COORD_OP_CREATE, .path = "/log/e-", .flags = COORD_SEQUENCE},
        {.kind = COORD_OP_CHECK, .path = "/term", .version = 0},
        {.kind = COORD_OP_SET, .path = "/term", .data = "2", .len = 1, .version = 0},
    };
    struct coord_op bad[] = {
        {.kind = COORD_OP_CREATE, .path = "/x"},
        {.kind = COORD_OP_CHECK, .path = "/term", .version = 0},
        {.kind = COORD_OP_DELETE, .path = "/log", .version = -1},
    };

    (void)arg;
    must(coord_multi(c, good, 5));
    ASSERT(good[4].ret_version == 1);
    ASSERT(coord_multi(c, bad, 3) == ERR_STALE);
    ASSERT(bad[0].rc == 0 && bad[1].rc == ERR_STALE && bad[2].rc == 0);
    ASSERT(coord_get(c, "/x", NULL, NULL, NULL) == ERR_NOTFOUND);
    must(coord_get(c, "/log/e-0000000000", NULL, NULL, NULL));
    must(coord_multi(c, &bad[0], 1));
    ASSERT(coord_multi(c, &bad[0], 1) == ERR_EXISTS);
    coord_close(c);
    return 0;
}

static void multis_are_all_or_nothing(void **state)
{
    (void)state;
    assert_int_equal(run(body_multi), 0);
}

struct set_job {
    struct coord *c;
    int n;
    int32_t version;
};

static int set_one(void *arg)
{
    struct set_job *job = arg;
    struct coord_stat st;
    int rc = coord_set(job->c, "/n", &job->n, sizeof(job->n), -1, &st);

    job->version = st.version;
    return rc;
}

static int body_order(void *arg)
{
    enum { JOBS = 200 };
    struct coord *c = open_root("/zbs/order");
    struct set_job jobs[JOBS];
    struct co_group g;
    void *data;

    (void)arg;
    must(coord_create(c, "/n", NULL, 0, 0, NULL));
    co_group_init(&g);
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct set_job){.c = c, .n = i};
        (void)co_spawn(&g, "set", set_one, &jobs[i]);
    }
    must(co_group_join(&g));
    for (int i = 0; i < JOBS; i++)
        ASSERT(jobs[i].version == i + 1);
    must(coord_get(c, "/n", &data, NULL, NULL));
    ASSERT(memcmp(data, &(int){JOBS - 1}, sizeof(int)) == 0);
    mem_free(data);
    coord_close(c);
    return 0;
}

static void writes_in_flight_keep_their_order(void **state)
{
    (void)state;
    assert_int_equal(run(body_order), 0);
}

/* ---- watches ---- */

static int body_watch(void *arg)
{
    struct coord *c = open_root("/zbs/watch"), *other = open_root("/zbs/watch");
    struct coord_watch w[3];

    (void)arg;
    must(coord_watch_arm(c, &w[0], COORD_WATCH_NODE, "/n"));
    ASSERT(coord_watch_arm(c, &w[1], COORD_WATCH_CHILDREN, "/n") == ERR_NOTFOUND);
    must(coord_watch_arm(c, &w[1], COORD_WATCH_CHILDREN, "/"));
    must(coord_create(other, "/n", "1", 1, 0, NULL));
    ASSERT(coord_watch_wait(&w[0]) == 0 && coord_watch_wait(&w[1]) == 0);
    must(coord_watch_arm(c, &w[0], COORD_WATCH_NODE, "/n"));
    must(coord_watch_arm(c, &w[1], COORD_WATCH_NODE, "/n"));
    must(coord_watch_arm(c, &w[2], COORD_WATCH_CHILDREN, "/n"));
    coord_watch_cancel(&w[1]); /* its event still comes, to nobody */
    must(coord_set(other, "/n", "2", 1, -1, NULL));
    ASSERT(coord_watch_wait(&w[0]) == 0);
    ASSERT(!w[2].fired);
    must(coord_create(other, "/n/child", NULL, 0, 0, NULL));
    ASSERT(coord_watch_wait(&w[2]) == 0);
    must(coord_watch_arm(c, &w[0], COORD_WATCH_NODE, "/n/child"));
    coord_watch_cancel(&w[0]);
    must(coord_watch_arm(c, &w[0], COORD_WATCH_NODE, "/n/child"));
    must(coord_delete(other, "/n/child", -1));
    ASSERT(coord_watch_wait(&w[0]) == 0);
    must(coord_watch_arm(c, &w[0], COORD_WATCH_NODE, "/n"));
    must(coord_watch_arm(c, &w[1], COORD_WATCH_NODE, "/n"));
    coord_watch_cancel(&w[1]);
    coord_close(c);
    ASSERT(coord_watch_wait(&w[0]) == ERR_CLOSED);
    coord_close(other);
    return 0;
}

static void watches_fire_once_and_can_be_cancelled(void **state)
{
    (void)state;
    assert_int_equal(run(body_watch), 0);
}

/* ---- trouble ---- */

static int get_late(void *arg)
{
    (void)co_deadline_push(co_now() + 20 * NSEC_PER_MSEC);
    return coord_get(arg, "/n", NULL, NULL, NULL);
}

static int set_in_flight(void *arg)
{
    return coord_set(arg, "/n", "late", 4, -1, NULL);
}

static int watch_in_flight(void *arg)
{
    struct coord_watch w;

    return coord_watch_arm(arg, &w, COORD_WATCH_NODE, "/n");
}

/* Completions that come after their coroutines left, and a handle closed with requests in flight:
 * the server is stopped meanwhile. */
static int body_interrupted(void *arg)
{
    struct coord *c = open_root("/zbs/interrupted");
    struct co_group g;

    (void)arg;
    must(coord_create(c, "/n", NULL, 0, 0, NULL));
    co_group_init(&g);
    server_stop();
    (void)co_spawn(&g, "get", get_late, c);
    ASSERT(co_group_join(&g) == ERR_TIMEOUT);
    (void)co_spawn(&g, "set", set_in_flight, c);
    (void)co_spawn(&g, "watch", watch_in_flight, c);
    (void)co_yield ();
    (void)co_group_close(&g);
    kill(server, SIGCONT);
    must(coord_sync(c, "/n")); /* the answers came before this one */
    co_group_init(&g);
    server_stop();
    (void)co_spawn(&g, "set", set_in_flight, c);
    (void)co_yield ();
    coord_close(c);
    ASSERT(co_group_join(&g) == ERR_UNCERTAIN);
    kill(server, SIGCONT);
    return 0;
}

static void interrupted_requests_and_close(void **state)
{
    (void)state;
    assert_int_equal(run(body_interrupted), 0);
}

/* Kills the server with a write in flight and starts it again: the session goes on. */
static int body_restart(void *arg)
{
    struct coord *c = open_root("/zbs/restart"), *other;
    struct coord_watch w;
    struct coord_stat st;
    struct co_group g;
    int rc;

    (void)arg;
    must(coord_create(c, "/n", NULL, 0, 0, NULL));
    must(coord_create(c, "/mine", NULL, 0, COORD_EPHEMERAL, NULL));
    must(coord_watch_arm(c, &w, COORD_WATCH_NODE, "/n"));
    co_group_init(&g);
    server_stop();
    (void)co_spawn(&g, "set", set_in_flight, c);
    (void)co_yield ();
    server_kill();
    ASSERT(co_group_join(&g) == ERR_UNCERTAIN);
    ASSERT(coord_state(c) == COORD_CONNECTING);
    ASSERT(get_late(c) == ERR_TIMEOUT);
    co_deadline_restore(NSEC_NEVER);
    server_start();
    rc = coord_get(c, "/mine", NULL, NULL, &st); /* waits for the connection */
    while (rc == ERR_UNREACHABLE)
        rc = coord_get(c, "/mine", NULL, NULL, &st);
    must(rc);
    ASSERT(st.ephemeral);
    other = open_root("/zbs/restart");
    rc = coord_set(other, "/n", "again", 5, -1, NULL);
    must(rc);
    ASSERT(coord_watch_wait(&w) == 0);
    coord_close(other);
    coord_close(c);
    return 0;
}

static void sessions_survive_a_restart_of_the_server(void **state)
{
    (void)state;
    assert_int_equal(run(body_restart), 0);
}

static void raw_watcher(zhandle_t *zh, int type, int state, const char *path, void *ctx)
{
    (void)zh;
    (void)path;
    if (type == ZOO_SESSION_EVENT && state == ZOO_CONNECTED_STATE)
        *(bool *)ctx = true;
}

/* Joins the session from a second client and ends it there: for the first client it expired. */
static void session_end(const clientid_t *id)
{
    bool connected = false;
    zhandle_t *zh = zookeeper_init(servers, raw_watcher, SESSION_MS, id, &connected, 0);

    ASSERT(zh != NULL);
    while (!connected) {
        struct timeval tv;
        int fd = -1, interest = 0, ready;

        (void)zookeeper_interest(zh, &fd, &interest, &tv);
        struct pollfd pfd = {.fd = fd,
                             .events = (short)((interest & ZOOKEEPER_READ ? POLLIN : 0) |
                                               (interest & ZOOKEEPER_WRITE ? POLLOUT : 0))};

        ready = poll(&pfd, 1, (int)(tv.tv_sec * 1000 + tv.tv_usec / 1000));
        (void)zookeeper_process(zh, ready <= 0 ? 0
                                               : (pfd.revents & POLLIN ? ZOOKEEPER_READ : 0) |
                                                     (pfd.revents & POLLOUT ? ZOOKEEPER_WRITE : 0));
    }
    zookeeper_close(zh);
}

static int body_expiry(void *arg)
{
    struct coord *c = open_root("/zbs/expiry"), *other = open_root("/zbs/expiry");
    struct coord_watch w, gone;
    clientid_t id;

    (void)arg;
    must(coord_create(c, "/mine", NULL, 0, COORD_EPHEMERAL, NULL));
    must(coord_watch_arm(c, &w, COORD_WATCH_CHILDREN, "/"));
    must(coord_watch_arm(other, &gone, COORD_WATCH_NODE, "/mine"));
    id = *zoo_client_id(zk_of(c)->zh);
    session_end(&id);
    ASSERT(coord_watch_wait(&w) == ERR_EXPIRED);
    ASSERT(coord_watch_wait(&gone) == 0);
    ASSERT(coord_state(c) == COORD_EXPIRED);
    ASSERT(coord_wait_connected(c) == ERR_EXPIRED);
    ASSERT(coord_get(c, "/mine", NULL, NULL, NULL) == ERR_EXPIRED);
    ASSERT(coord_set(c, "/mine", NULL, 0, -1, NULL) == ERR_EXPIRED);
    ASSERT(coord_get(other, "/mine", NULL, NULL, NULL) == ERR_NOTFOUND);
    coord_close(c);
    coord_close(other);
    return 0;
}

static void expiry_ends_everything(void **state)
{
    (void)state;
    assert_int_equal(run(body_expiry), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_and_versions),
        cmocka_unit_test(multis_are_all_or_nothing),
        cmocka_unit_test(writes_in_flight_keep_their_order),
        cmocka_unit_test(watches_fire_once_and_can_be_cancelled),
        cmocka_unit_test(interrupted_requests_and_close),
        cmocka_unit_test(sessions_survive_a_restart_of_the_server),
        cmocka_unit_test(expiry_ends_everything),
    };

    if (access(JAR, R_OK) != 0 || system("java -version >/dev/null 2>&1") != 0) {
        fprintf(stderr, "skipped: no java or no %s\n", JAR);
        return 77;
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
