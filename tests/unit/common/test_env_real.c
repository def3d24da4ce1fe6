/* SPDX-License-Identifier: Apache-2.0
 *
 * The real environment: loops, timers, threads, the pool, disks on temporary files.
 * The bodies run as coroutines, where cmocka's jumps must not go, so they ASSERT. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "tests/lib/nouring.h"
#include "tests/unit/common/env_rig.h"

#define PAGE     4096u
#define DISK_LEN (8u * 1024 * 1024)

static int group_teardown(void **state)
{
    static const char *const names[] = {"disk", "lock", "small", "probe"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        unlink(path_in_dir(names[i]));
    return rmdir(dir);
}

static int body_result(void *arg)
{
    (void)arg;
    return err_set(ERR_STALE, "as wanted");
}

static void result_of_main_is_returned(void **state)
{
    (void)state;
    assert_int_equal(run(body_result), ERR_STALE);
}

static int sleeper_order[3], sleepers_done;

static int sleeper(void *arg)
{
    int n = (int)(intptr_t)arg, rc;

    rc = co_sleep(n * 3 * NSEC_PER_MSEC);
    if (rc == 0)
        sleeper_order[sleepers_done++] = n;
    return rc;
}

static int body_timers(void *arg)
{
    struct co_group g;
    nsec_t start = co_now(), former;

    (void)arg;
    sleepers_done = 0;
    co_group_init(&g);
    for (intptr_t n = 3; n >= 1; n--)
        (void)co_spawn(&g, "sleeper", sleeper, (void *)n);
    ASSERT(co_group_join(&g) == 0);
    ASSERT(sleeper_order[0] == 1 && sleeper_order[1] == 2 && sleeper_order[2] == 3);
    ASSERT(co_now() - start >= 9 * NSEC_PER_MSEC);
    former = co_deadline_push(co_now() + NSEC_PER_MSEC);
    ASSERT(co_sleep(60 * NSEC_PER_SEC) == ERR_TIMEOUT);
    co_deadline_restore(former);
    (void)co_spawn(&g, "sleeper", sleeper, (void *)(intptr_t)1000000);
    ASSERT(co_yield () == 0);
    ASSERT(co_group_close(&g) == 0);
    ASSERT(env_random() != env_random());
    ASSERT(env_wall_ns() > 0);
    return 0;
}

static void timers_fire_in_order_and_deadlines_end_waits(void **state)
{
    (void)state;
    assert_int_equal(run(body_timers), 0);
}

static int body_signal(void *arg)
{
    (void)arg;
    ASSERT(kill(getpid(), SIGTERM) == 0);
    return co_sleep(60 * NSEC_PER_SEC);
}

static void sigterm_cancels_main(void **state)
{
    struct env_real_conf conf = {.name = "test", .handle_signals = true};

    (void)state;
    assert_int_equal(run_conf(&conf, body_signal, NULL), ERR_CANCELED);
}

/* ---- threads and pool ---- */

static int body_threads(void *arg)
{
    struct co_loop *threads[3], *home, *self = co_loop();
    uint64_t drawn;
    int visits = 0;

    (void)arg;
    for (int i = 0; i < 3; i++)
        ASSERT(env_thread_start("worker", &threads[i]) == 0);
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 3; i++) {
            home = co_enter(threads[i]);
            ASSERT(home == self && co_loop() == threads[i]);
            if (round % 50 == 0)
                ASSERT(co_sleep(NSEC_PER_MSEC) == 0);
            visits++;
            ASSERT(co_enter(home) == threads[i]);
        }
        home = co_enter(env_pool());
        drawn = env_random();
        co_enter(home);
        ASSERT(drawn != env_random()); /* 64 bits: equal once in the age of the world */
    }
    ASSERT(visits == 600);
    for (int i = 0; i < 3; i++)
        env_thread_stop(threads[i]);
    return 0;
}

static void coroutines_move_between_threads(void **state)
{
    struct env_real_conf conf = {.name = "test", .pool_threads = 3, .spin_us = 20};

    (void)state;
    assert_int_equal(run_conf(&conf, body_threads, NULL), 0);
}

/* ---- small files, locks ---- */

static int body_files(void *arg)
{
    char path[128], *text;
    size_t len;
    int rc;

    (void)arg;
    strcpy(path, path_in_dir("small"));
    ASSERT(env_file_read(path, &text, &len) == ERR_NOTFOUND);
    rc = env_file_write(path, "first", 5);
    ASSERTF(rc == 0, "%s", err_text(rc));
    ASSERT(env_file_write(path, "second\n", 7) == 0);
    ASSERT(env_file_read(path, &text, &len) == 0);
    ASSERT(len == 7 && strcmp(text, "second\n") == 0);
    mem_free(text);
    ASSERT(env_file_read(dir, &text, &len) == ERR_INVAL);
    strcpy(path, path_in_dir("lock"));
    ASSERT(env_lock_file(path) == 0);
    ASSERT(env_lock_file(path) == ERR_BUSY);
    ASSERT(strstr(err_text(ERR_BUSY), "lock") != NULL);
    return 0;
}

static void files_are_replaced_and_locks_exclude(void **state)
{
    (void)state;
    assert_int_equal(run(body_files), 0);
    unlink(path_in_dir("small"));
    assert_int_equal(run(body_files), 0); /* the lock went with the environment */
}

/* ---- disks ---- */

static void file_create(const char *name, size_t len)
{
    int fd = open(path_in_dir(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    close(fd);
}

#define DEPTH 600 /* more than the ring has entries */

static void disk_many(struct disk *d)
{
    struct disk_req *reqs = MEM_NEW_ARRAY(struct disk_req, DEPTH);
    struct iovec *iovs = MEM_NEW_ARRAY(struct iovec, DEPTH);
    uint8_t *data = mem_alloc_aligned(PAGE, (size_t)DEPTH * PAGE);

    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < DEPTH; i++) {
            memset(data + (size_t)i * PAGE, pass == 0 ? (int)i % 251 : 255, PAGE);
            iovs[i].iov_base = data + (size_t)i * PAGE;
            iovs[i].iov_len = PAGE;
            reqs[i] = (struct disk_req){.op = pass == 0 ? DISK_WRITE : DISK_READ,
                                        .durable = i % 3 == 0,
                                        .disk = d,
                                        .off = (uint64_t)i * PAGE,
                                        .iov = &iovs[i],
                                        .iov_count = 1};
            disk_submit(&reqs[i]);
        }
        for (uint32_t i = 0; i < DEPTH; i++) {
            ASSERT(disk_wait(&reqs[i]) == 0);
            ASSERT(reqs[i].latency_ns > 0);
        }
    }
    for (uint32_t i = 0; i < DEPTH; i++)
        ASSERT(data[(size_t)i * PAGE] == i % 251 && data[(size_t)i * PAGE + 4095] == i % 251);
    mem_free(data);
    mem_free(iovs);
    mem_free(reqs);
}

/* The smallest write changes nothing beside it. */
static void disk_sector(struct disk *d)
{
    uint32_t n = disk_info(d)->block_bytes;
    char *page = mem_alloc_aligned(4096, 8192);

    ASSERT(n >= 512 && n <= 4096 && disk_info(d)->physical_bytes >= n);
    memset(page, 'a', 8192);
    ASSERT(disk_write(d, page, 8192, 0, false) == 0);
    memset(page, 'b', n);
    ASSERT(disk_write(d, page, n, n, true) == 0);
    ASSERT(disk_read(d, page, 8192, 0) == 0);
    for (uint32_t i = 0; i < 8192; i++)
        ASSERT(page[i] == (i >= n && i < 2 * n ? 'b' : 'a'));
    mem_free(page);
}

static void disk_vectors(struct disk *d)
{
    uint8_t *data = mem_alloc_aligned(PAGE, 16 * PAGE), *back = mem_alloc_aligned(PAGE, 16 * PAGE);
    struct iovec iov[16];

    for (int i = 0; i < 16; i++) {
        memset(data + i * (int)PAGE, 'a' + i, PAGE);
        iov[i].iov_base = data + (15 - i) * (int)PAGE;
        iov[i].iov_len = PAGE;
    }
    ASSERT(disk_writev(d, iov, 16, 4u << 20, true) == 0);
    ASSERT(disk_flush(d) == 0);
    ASSERT(disk_read(d, back, 16 * PAGE, 4u << 20) == 0);
    for (int i = 0; i < 16; i++)
        ASSERT(back[i * (int)PAGE] == 'a' + 15 - i);
    if (disk_info(d)->discard) {
        ASSERT(disk_discard(d, 4u << 20, 16 * PAGE) == 0);
        ASSERT(disk_read(d, back, 16 * PAGE, 4u << 20) == 0);
    }
    mem_free(back);
    mem_free(data);
}

static int body_disk(void *arg)
{
    char path[128];
    struct disk *d, *second;
    struct co_loop *worker, *home;

    (void)arg;
    strcpy(path, path_in_dir("disk"));
    ASSERT(disk_open(path_in_dir("nothing"), 0, &d) == ERR_NOTFOUND);
    ASSERT(disk_open(dir, 0, &d) == ERR_INVAL);
    ASSERT(disk_open(path, DISK_EXCLUSIVE, &d) == 0);
    ASSERT(disk_info(d)->size_bytes == DISK_LEN && disk_info(d)->is_file);
    ASSERT(disk_open(path, DISK_EXCLUSIVE, &second) == ERR_BUSY);
    ASSERT(disk_probe(path) == ERR_EXISTS && strstr(err_text(ERR_EXISTS), "in use") != NULL);
    disk_many(d);
    disk_vectors(d);
    disk_sector(d);
    ASSERT(env_thread_start("worker", &worker) == 0);
    home = co_enter(worker);
    ASSERT(disk_open(path, 0, &second) == 0);
    disk_many(second);
    disk_close(second);
    co_enter(home);
    env_thread_stop(worker);
    disk_close(d);
    return 0;
}

static void disk_requests(void **state)
{
    struct env_real_conf conf = {.name = "test"}, small = {.name = "test", .ring_entries = 8};

    (void)state;
    file_create("disk", DISK_LEN);
    assert_int_equal(run_conf(&conf, body_disk, NULL), 0);
    small.spin_us = 50;
    assert_int_equal(run_conf(&small, body_disk, NULL), 0);
}

static int body_crowd(void *path)
{
    struct disk *d;

    ASSERT(disk_open(path, 0, &d) == 0);
    for (int round = 0; round < 40; round++)
        disk_many(d);
    disk_close(d);
    return 0;
}

/* A loop device takes 128 requests; the kernel comes back with the others before it tells of any
 * completion. Without root the file stands in. */
static void more_requests_than_the_device_takes(void **state)
{
    struct env_real_conf conf = {.name = "test"};
    char command[200], device[128] = "";
    FILE *losetup;

    (void)state;
    file_create("disk", DISK_LEN);
    snprintf(command, sizeof(command), "losetup --find --show --direct-io=on %s 2>/dev/null",
             path_in_dir("disk"));
    losetup = popen(command, "r");
    assert_non_null(losetup);
    if (fgets(device, sizeof(device), losetup) != NULL)
        device[strcspn(device, "\n")] = 0;
    pclose(losetup);
    alarm(60);
    if (device[0] == 0)
        strcpy(device, path_in_dir("disk"));
    snprintf(command, sizeof(command), "losetup -d %s", device);
    assert_int_equal(run_conf(&conf, body_crowd, device), 0);
    alarm(0);
    if (strncmp(device, "/dev/", 5) == 0)
        assert_int_equal(system(command), 0);
}

#ifdef ZBS_MUTATE
static int body_late(void *arg)
{
    uint8_t *page = mem_alloc_aligned(PAGE, PAGE);
    char path[128];
    struct disk *d;
    nsec_t begin;

    (void)arg;
    strcpy(path, path_in_dir("disk"));
    ASSERT(disk_open(path, 0, &d) == 0);
    begin = co_now();
    ASSERT(disk_read(d, page, PAGE, 0) == 0);
    ASSERT(co_now() - begin >= 30 * NSEC_PER_MSEC);
    disk_many(d); /* all of them at once, not one after the other */
    disk_close(d);
    mem_free(page);
    return 0;
}

static void artificial_latency(void **state)
{
    (void)state;
    file_create("disk", DISK_LEN);
    setenv("ZBS_DISK_DELAY_US", "30000", 1);
    assert_int_equal(run(body_late), 0);
    unsetenv("ZBS_DISK_DELAY_US");
}
#endif

static int body_fail(void *arg)
{
    char path[128];
    uint8_t *page = mem_alloc_aligned(PAGE, PAGE);
    struct disk *d;

    (void)arg;
    strcpy(path, path_in_dir("disk"));
    ASSERT(disk_open(path, DISK_READ_ONLY, &d) == 0);
    ASSERT(disk_write(d, page, PAGE, 0, true) == ERR_IO);
    ASSERT(truncate(path, 0) == 0);
    ASSERT(disk_read(d, page, PAGE, 0) == ERR_IO);
    disk_close(d);
    mem_free(page);
    return 0;
}

static void failing_requests_are_reported(void **state)
{
    (void)state;
    file_create("disk", DISK_LEN);
    assert_int_equal(run(body_fail), 0);
}

static void poke(const char *name, off_t off, const char *text)
{
    int fd = open(path_in_dir(name), O_WRONLY | O_CLOEXEC);

    ASSERT(fd >= 0 && pwrite(fd, text, strlen(text), off) == (ssize_t)strlen(text));
    close(fd);
}

static int body_probe(void *arg)
{
    char path[128];

    (void)arg;
    strcpy(path, path_in_dir("probe"));
    ASSERT(disk_probe(path) == 0);
    poke("probe", DISK_LEN - 1, "x");
    ASSERT(disk_probe(path) == ERR_EXISTS && strstr(err_text(ERR_EXISTS), "last MiB") != NULL);
    ASSERT(truncate(path, 0) == 0 && truncate(path, DISK_LEN) == 0);
    poke("probe", 4096 - 10, "SWAPSPACE2");
    poke("probe", 1024, "\1"); /* version */
    ASSERT(disk_probe(path) == ERR_EXISTS);
    ASSERT(truncate(path, 0) == 0 && truncate(path, DISK_LEN) == 0);
    poke("probe", 0, "XFSB");
    ASSERT(disk_probe(path) == ERR_EXISTS);
    return 0;
}

static void probe_names_what_it_finds(void **state)
{
    (void)state;
    file_create("probe", DISK_LEN);
    assert_int_equal(run(body_probe), 0);
}

/* ---- the last: there is no way back ---- */

static int body_no_disk(void *arg)
{
    struct disk *d;

    (void)arg;
    ASSERT(disk_open(path_in_dir("disk"), 0, &d) < 0);
    return 0;
}

static void all_but_disks_work_without_io_uring(void **state)
{
    nouring();
    file_create("disk", DISK_LEN);
    assert_int_equal(run(body_no_disk), 0);
    timers_fire_in_order_and_deadlines_end_waits(state);
    sigterm_cancels_main(state);
    coroutines_move_between_threads(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(result_of_main_is_returned),
        cmocka_unit_test(timers_fire_in_order_and_deadlines_end_waits),
        cmocka_unit_test(sigterm_cancels_main),
        cmocka_unit_test(coroutines_move_between_threads),
        cmocka_unit_test(files_are_replaced_and_locks_exclude),
        cmocka_unit_test(disk_requests),
        cmocka_unit_test(more_requests_than_the_device_takes),
#ifdef ZBS_MUTATE
        cmocka_unit_test(artificial_latency),
#endif
        cmocka_unit_test(failing_requests_are_reported),
        cmocka_unit_test(probe_names_what_it_finds),
        cmocka_unit_test(all_but_disks_work_without_io_uring),
    };

    return cmocka_run_group_tests(tests, dir_make, group_teardown);
}
