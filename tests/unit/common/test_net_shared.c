/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams through shared memory on the real environment: bytes in both directions, more than fits,
 * the end, and offers that are not what they should be. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/co/sync.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "common/env/ring.h"
#include "tests/lib/nouring.h"
#include "tests/lib/rpcworld.h"

#define RINGS_BYTES ROUND_UP(2 * sizeof(struct ring_mem), 4096)

struct place {
    char dir[64], addr[96];
    struct net_listener *listener;
};

static void place_start(struct place *p)
{
    snprintf(p->dir, sizeof(p->dir), "/tmp/zbs-shared-XXXXXX");
    CHECK(mkdtemp(p->dir) != NULL);
    snprintf(p->addr, sizeof(p->addr), "unix:%s/sock", p->dir);
    CHECK(net_listen(p->addr, &p->listener) == 0);
}

static void place_stop(struct place *p)
{
    net_listener_close(p->listener);
    CHECK(rmdir(p->dir) == 0);
}

static uint32_t open_fds(void)
{
    uint32_t n = 0;

    for (int fd = 0; fd < 1000; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Both ends of a stream that goes through memory. */
static void pair_open(struct place *p, struct net_conn **a, struct net_conn **b)
{
    CHECK(net_connect(p->addr, a) == 0 && net_accept(p->listener, b) == 0);
    CHECK(net_can_share(*a) && net_can_share(*b));
    CHECK(net_share(*a) == 0 && net_share_take(*b) == 0);
}

static void run_real(int (*fn)(void *arg))
{
    struct env_real_conf conf = {.name = "test_net_shared"};
    struct place p = {.listener = NULL};

    CHECK(env_real_run(&conf, fn, &p) == 0);
}

/* ---- bytes ---- */

#define BULK (1u << 20)

static int bulk_writer(void *arg)
{
    uint8_t *bytes = mem_alloc(BULK);
    struct iovec iov = {bytes, BULK};
    int rc;

    rpctest_fill(bytes, BULK, 3);
    rc = net_writev_full(arg, &iov, 1);
    mem_free(bytes);
    return rc;
}

static void bulk_through(struct net_conn *from, struct net_conn *to)
{
    uint8_t *bytes = mem_alloc(BULK);
    struct co_group g;

    co_group_init(&g);
    co_spawn(&g, "writer", bulk_writer, from);
    CHECK(net_read_full(to, bytes, BULK) == 0);
    CHECK(co_group_join(&g) == 0);
    CHECK(rpctest_filled(bytes, BULK, 3));
    mem_free(bytes);
}

static int main_bytes(void *arg)
{
    struct place *p = arg;
    struct net_conn *a = NULL, *b = NULL;
    uint32_t fds;

    place_start(p);
    fds = open_fds();
    pair_open(p, &a, &b);
    CHECK(!net_readable(a) && !net_readable(b));
    bulk_through(a, b);
    bulk_through(b, a);
    net_close(a);
    net_close(b);
    CHECK(open_fds() == fds);
    place_stop(p);
    return 0;
}

static void bytes_in_both_directions(void **state)
{
    (void)state;
    run_real(main_bytes);
}

/* ---- the end ---- */

static int main_end(void *arg)
{
    struct iovec iov = {(char[]){"last words"}, 10};
    struct place *p = arg;
    struct net_conn *a = NULL, *b = NULL;
    char bytes[10];

    place_start(p);
    pair_open(p, &a, &b);
    CHECK(net_writev_full(a, &iov, 1) == 0);
    net_shutdown(a);
    CHECK(net_readv(a, &(struct iovec){bytes, 10}, 1) == ERR_CLOSED);
    CHECK(net_read_full(b, bytes, 10) == 0 && memcmp(bytes, "last words", 10) == 0);
    CHECK(net_read_full(b, bytes, 1) == ERR_CLOSED);
    /* The one that was shut down knows when the other lets go of the memory. */
    co_deadline_push(co_now() + 20 * NSEC_PER_MSEC);
    CHECK(net_wait_end(a) == ERR_TIMEOUT);
    co_deadline_restore(NSEC_NEVER);
    net_close(b);
    CHECK(net_wait_end(a) == 0);
    net_close(a);

    pair_open(p, &a, &b);
    net_close(b);
    CHECK(net_read_full(a, bytes, 1) == ERR_CLOSED);
    net_close(a);
    place_stop(p);
    return 0;
}

static void end_of_stream(void **state)
{
    (void)state;
    run_real(main_end);
}

static int blocked_writer(void *arg)
{
    return bulk_writer(arg) == ERR_CLOSED ? 0 : ERR_IO;
}

static int main_blocked(void *arg)
{
    struct place *p = arg;
    struct net_conn *a = NULL, *b = NULL;
    struct co_group g;

    place_start(p);
    for (int i = 0; i < 2; i++) {
        pair_open(p, &a, &b);
        co_group_init(&g);
        co_spawn(&g, "writer", blocked_writer, a);
        CHECK(co_sleep(10 * NSEC_PER_MSEC) == 0); /* long enough to fill the ring, mostly */
        if (i == 0)
            net_close(b);
        else
            net_shutdown(a);
        CHECK(co_group_join(&g) == 0);
        net_close(a);
        if (i == 1)
            net_close(b);
    }
    place_stop(p);
    return 0;
}

static void a_writer_without_room_learns_of_the_end(void **state)
{
    (void)state;
    run_real(main_blocked);
}

/* ---- a peer that does it wrong ---- */

struct offer {
    uint32_t magic, ring_bytes;
    uint64_t arena_bytes;
    size_t bytes; /* of the message that are sent */
    int fds[6];
    int n_fds;
    int end; /* ours of the pair that stands for the stream */
};

static int memory_fd(uint64_t bytes, unsigned seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static void offer_good(struct offer *o)
{
    int pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    *o = (struct offer){0x4d53425au, RING_BYTES, 0, 16, {-1, -1, -1, pair[1], -1, -1}, 4, pair[0]};
    o->fds[0] = memory_fd(RINGS_BYTES, F_SEAL_SHRINK | F_SEAL_GROW);
    o->fds[1] = eventfd(0, EFD_CLOEXEC);
    o->fds[2] = eventfd(0, EFD_CLOEXEC);
}

static void offer_fd(struct offer *o, int i, int fd)
{
    if (o->fds[i] >= 0)
        close(o->fds[i]);
    o->fds[i] = fd;
}

static int raw_connect(const struct place *p)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", p->addr + 5);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0);
    return fd;
}

static void offer_send(int fd, const struct offer *o)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(6 * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {(void *)(uintptr_t)o, o->bytes};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t fds_bytes = (size_t)o->n_fds * sizeof(int);

    if (o->n_fds > 0) {
        struct cmsghdr *cm = &control.align;

        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(fds_bytes);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(fds_bytes);
        memcpy(CMSG_DATA(cm), o->fds, fds_bytes);
    }
    CHECK(sendmsg(fd, &m, 0) == (ssize_t)o->bytes);
}

/* What taking the offer says. Nothing of it stays open in any case. */
static int offered(struct place *p, struct offer *o)
{
    int fd = raw_connect(p), rc;
    struct net_conn *c;
    uint32_t fds;

    CHECK(net_accept(p->listener, &c) == 0);
    fds = open_fds();
    offer_send(fd, o);
    rc = net_share_take(c);
    CHECK(rc == 0 || open_fds() == fds);
    net_close(c);
    CHECK(open_fds() == fds - 1);
    close(fd);
    close(o->end);
    for (int i = 0; i < o->n_fds; i++)
        close(o->fds[i]);
    return rc;
}

static int main_offers(void *arg)
{
    const unsigned seals = F_SEAL_SHRINK | F_SEAL_GROW;
    struct place *p = arg;
    struct offer o;
    int pipes[2];

    place_start(p);
    offer_good(&o);
    CHECK(offered(p, &o) == 0);
    offer_good(&o);
    o.arena_bytes = 8192;
    offer_fd(&o, 4, memory_fd(8192, seals));
    o.n_fds = 5;
    CHECK(offered(p, &o) == 0);

    offer_good(&o);
    o.magic++;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o);
    o.ring_bytes *= 2;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o);
    o.bytes = 15;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* an arena that does not come along */
    o.arena_bytes = 4096;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* one that does, unannounced */
    offer_fd(&o, 4, memory_fd(4096, seals));
    o.n_fds = 5;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* more than there is room for */
    offer_fd(&o, 4, memory_fd(4096, seals));
    offer_fd(&o, 5, memory_fd(4096, seals));
    o.n_fds = 6;
    o.arena_bytes = 4096;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* of another size than it says */
    offer_fd(&o, 4, memory_fd(4096, seals));
    o.n_fds = 5;
    o.arena_bytes = 8192;
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* not sealed: might shrink under us */
    offer_fd(&o, 0, memory_fd(RINGS_BYTES, F_SEAL_GROW));
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o);
    offer_fd(&o, 0, memory_fd(RINGS_BYTES - 4096, seals));
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* a file */
    offer_fd(&o, 0, open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o); /* a doorbell that could block */
    CHECK(pipe2(pipes, O_CLOEXEC) == 0);
    offer_fd(&o, 2, pipes[1]);
    CHECK(offered(p, &o) == ERR_PROTO);
    close(pipes[0]);
    offer_good(&o); /* an end that says nothing of ours */
    offer_fd(&o, 3, eventfd(0, EFD_CLOEXEC));
    CHECK(offered(p, &o) == ERR_PROTO);
    offer_good(&o);
    for (int i = 0; i < 4; i++)
        offer_fd(&o, i, -1);
    o.n_fds = 0;
    CHECK(offered(p, &o) == ERR_PROTO);
    place_stop(p);
    return 0;
}

static void bad_offers_are_refused(void **state)
{
    (void)state;
    run_real(main_offers);
}

/* Nonsense in memory, and bytes on the socket, end the stream; nothing else. */
static int main_nonsense(void *arg)
{
    struct place *p = arg;
    struct net_conn *c;
    struct ring_mem *rings;
    struct offer o;
    char byte;

    place_start(p);
    for (int i = 0; i < 3; i++) {
        int fd = raw_connect(p);

        CHECK(net_accept(p->listener, &c) == 0);
        offer_good(&o);
        rings = mmap(NULL, RINGS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, o.fds[0], 0);
        CHECK(rings != MAP_FAILED);
        offer_send(fd, &o);
        CHECK(net_share_take(c) == 0);
        if (i == 0) {
            atomic_store(&rings[0].tail, RING_BYTES + 1);
            CHECK(net_readv(c, &(struct iovec){&byte, 1}, 1) == ERR_PROTO);
        } else if (i == 1) {
            atomic_store(&rings[1].head, 17);
            CHECK(net_writev_full(c, &(struct iovec){&byte, 1}, 1) == ERR_PROTO);
        } else {
            CHECK(write(o.end, "x", 1) == 1);
            CHECK(net_readv(c, &(struct iovec){&byte, 1}, 1) == ERR_PROTO);
        }
        net_close(c);
        close(fd);
        close(o.end);
        for (int k = 0; k < 4; k++)
            close(o.fds[k]);
        munmap(rings, RINGS_BYTES);
    }
    place_stop(p);
    return 0;
}

static void nonsense_ends_the_stream(void **state)
{
    (void)state;
    run_real(main_nonsense);
}

/* The last: there is no way back. */
static void all_that_without_io_uring(void **state)
{
    nouring();
    bytes_in_both_directions(state);
    end_of_stream(state);
    a_writer_without_room_learns_of_the_end(state);
    nonsense_ends_the_stream(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_in_both_directions),
        cmocka_unit_test(end_of_stream),
        cmocka_unit_test(a_writer_without_room_learns_of_the_end),
        cmocka_unit_test(bad_offers_are_refused),
        cmocka_unit_test(nonsense_ends_the_stream),
        cmocka_unit_test(all_that_without_io_uring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
