/* SPDX-License-Identifier: Apache-2.0
 *
 * The bare pipeline that a three-replica write can't beat here: five processes and nothing else.
 * A client sends 4 KiB to a relay over TCP, the relay sends it on to three writers over TCP, each
 * writes it durably (O_DIRECT, RWF_DSYNC) to its own prewritten file and answers. Blocking
 * sockets, one request at a time per lane; `depth` lanes of five threads of control would change
 * what is measured, so only depth 1 is offered.
 *
 *   pipeline --seconds S FILE FILE FILE
 *
 * Prints {"iops": …, "mean_us": …, "p99_us": …, "cpu_s": …} (cpu_s: of relay and writers). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK   4096
#define WRITERS 3

struct request {
    uint64_t block;
    uint8_t data[BLOCK];
};

static void die(const char *what)
{
    fprintf(stderr, "pipeline: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_sec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* 1: read, 0: the peer closed. */
static int read_full(int fd, void *dst, size_t len)
{
    for (size_t n = 0; n < len;) {
        ssize_t r = read(fd, (char *)dst + n, len - n);

        if (r <= 0)
            return 0;
        n += (size_t)r;
    }
    return 1;
}

static void write_full(int fd, const void *src, size_t len)
{
    for (size_t n = 0; n < len;) {
        ssize_t r = write(fd, (const char *)src + n, len - n);

        if (r <= 0)
            die("write");
        n += (size_t)r;
    }
}

static int listen_any(struct sockaddr_in *ret)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof(*ret);

    memset(ret, 0, sizeof(*ret));
    ret->sin_family = AF_INET;
    ret->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)ret, len) || listen(fd, 1) ||
        getsockname(fd, (struct sockaddr *)ret, &len))
        die("listen");
    return fd;
}

static int no_delay(int fd)
{
    int one = 1;

    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static int connect_to(const struct sockaddr_in *a)
{
    int fd = no_delay(socket(AF_INET, SOCK_STREAM, 0));

    if (connect(fd, (const struct sockaddr *)a, sizeof(*a)))
        die("connect");
    return fd;
}

static void writer(int listener, const char *path)
{
    int fd = open(path, O_RDWR | O_DIRECT), conn = no_delay(accept(listener, NULL, NULL));
    struct request *q = aligned_alloc(4096, 3 * 4096);
    uint8_t *aligned = aligned_alloc(4096, BLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        die(path);
    while (read_full(conn, q, sizeof(*q))) {
        struct iovec iov = {aligned, BLOCK};
        uint64_t at = q->block % ((uint64_t)st.st_size / BLOCK) * BLOCK;

        memcpy(aligned, q->data, BLOCK);
        if (pwritev2(fd, &iov, 1, (off_t)at, RWF_DSYNC) != BLOCK)
            die("write");
        write_full(conn, &q->block, sizeof(q->block));
    }
    exit(0);
}

static void relay(int listener, const struct sockaddr_in *writers)
{
    int out[WRITERS], in;
    static struct request q;
    uint64_t answer;

    for (int i = 0; i < WRITERS; i++)
        out[i] = connect_to(&writers[i]);
    in = no_delay(accept(listener, NULL, NULL));
    while (read_full(in, &q, sizeof(q))) {
        for (int i = 0; i < WRITERS; i++)
            write_full(out[i], &q, sizeof(q));
        for (int i = 0; i < WRITERS; i++)
            if (!read_full(out[i], &answer, sizeof(answer)))
                die("writer");
        write_full(in, &answer, sizeof(answer));
    }
    exit(0);
}

static int compare(const void *x, const void *y)
{
    float a = *(const float *)x, c = *(const float *)y;

    return (a > c) - (a < c);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", 1, NULL, 's'}, {0}};
    struct sockaddr_in addrs[WRITERS], front;
    double seconds = 5, begin, sum = 0;
    static struct request q;
    struct rusage ru;
    float *lat = NULL, *grown;
    size_t n = 0, cap = 0;
    int o, fd, listener;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (o == 's')
            seconds = atof(optarg);
    if (argc - optind != WRITERS) {
        fprintf(stderr, "usage: pipeline --seconds S FILE FILE FILE\n");
        return 2;
    }
    for (int i = 0; i < WRITERS; i++) {
        int l = listen_any(&addrs[i]);

        if (fork() == 0)
            writer(l, argv[optind + i]);
        close(l);
    }
    listener = listen_any(&front);
    if (fork() == 0)
        relay(listener, addrs);
    close(listener);
    fd = connect_to(&front);
    begin = now_sec();
    while (now_sec() - begin < seconds + 1) {
        double t = now_sec(), took;
        uint64_t answer;

        q.block = (q.block * 6364136223846793005u + 1442695040888963407u);
        q.block >>= 16;
        write_full(fd, &q, sizeof(q));
        if (!read_full(fd, &answer, sizeof(answer)))
            die("relay");
        took = (now_sec() - t) * 1e6;
        if (t - begin < 1)
            continue; /* ramp */
        if (n == cap) {
            cap = cap ? cap * 2 : 65536;
            grown = realloc(lat, cap * sizeof(*lat));
            if (!grown)
                die("memory");
            lat = grown;
        }
        lat[n++] = (float)took;
        sum += took;
    }
    close(fd);
    while (wait(NULL) > 0)
        ;
    getrusage(RUSAGE_CHILDREN, &ru);
    if (n == 0) {
        fprintf(stderr, "pipeline: nothing was measured\n");
        return 1;
    }
    qsort(lat, n, sizeof(*lat), compare);
    printf("{\"iops\": %.1f, \"mean_us\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_s\": "
           "%.3f}\n",
           (double)n / seconds, sum / (double)n, (double)lat[n / 2], (double)lat[n * 99 / 100],
           (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
               (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    return 0;
}
