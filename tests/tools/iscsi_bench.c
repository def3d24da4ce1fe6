/* SPDX-License-Identifier: Apache-2.0
 *
 * Load generator over iSCSI (libiscsi), the same for every target that is compared: one session, a
 * fixed queue depth, for a fixed time after a ramp. Prints one JSON object: iops, mib_s, mean_us,
 * p50_us, p99_us, max_us, longest_gap_us (without any answer), ios, errors.
 *
 *   iscsi_bench --url URL --rw randwrite|randread|seqwrite|seqread --block BYTES --depth D
 *               --seconds S [--ramp S] [--span BYTES] [--ios N] [--seed N]
 *
 * --ios N ends after N operations instead (to fill a volume). Runs with the same seed access the
 * same addresses in the same order. */
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define DEPTH_MAX 256
#define SECTOR    512

struct op {
    double begin;
    struct scsi_iovec iov;
    uint8_t *data;
};

static struct {
    struct iscsi_context *iscsi;
    int lun, depth, in_flight;
    bool write, sequential, stop;
    uint32_t block;
    uint64_t span, next, rng, limit;
    double measure_from, end, answered; /* the latter: the last time */
    uint64_t ios, submitted, errors;
    double sum, gap;
    float *lat; /* us */
    size_t lat_cap;
    struct op ops[DEPTH_MAX];
} b;

static double now_sec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t next_random(void)
{
    uint64_t z = (b.rng += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void submit(struct op *op);

static void on_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct op *op = private_data;
    double now = now_sec();

    b.in_flight--;
    scsi_free_scsi_task(command_data);
    if (status != SCSI_STATUS_GOOD && status != SCSI_STATUS_CANCELLED) {
        b.errors++;
        b.stop = true;
        fprintf(stderr, "iscsi_bench: %s\n", iscsi_get_error(iscsi));
    }
    if (status == SCSI_STATUS_GOOD && now >= b.measure_from && now < b.end) {
        if (b.ios == b.lat_cap) {
            b.lat_cap = b.lat_cap ? b.lat_cap * 2 : 65536;
            b.lat = realloc(b.lat, b.lat_cap * sizeof(*b.lat));
        }
        if (b.ios > 0 && now - b.answered > b.gap)
            b.gap = now - b.answered;
        b.answered = now;
        b.lat[b.ios++] = (float)((now - op->begin) * 1e6);
        b.sum += (now - op->begin) * 1e6;
    }
    if (!b.stop && now < b.end && (!b.limit || b.submitted < b.limit))
        submit(op);
}

static void submit(struct op *op)
{
    uint64_t blocks = b.span / b.block,
             at = b.sequential ? b.next++ % blocks : next_random() % blocks;
    uint64_t lba = at * (b.block / SECTOR);
    struct scsi_task *task;

    op->begin = now_sec();
    b.submitted++;
    b.in_flight++;
    if (b.write)
        task = iscsi_write16_task(b.iscsi, b.lun, lba, op->data, b.block, SECTOR, 0, 0, 0, 0, 0,
                                  on_done, op);
    else
        task = iscsi_read16_iov_task(b.iscsi, b.lun, lba, b.block, SECTOR, 0, 0, 0, 0, 0, on_done,
                                     op, &op->iov, 1);
    if (!task) {
        fprintf(stderr, "iscsi_bench: %s\n", iscsi_get_error(b.iscsi));
        exit(1);
    }
}

static int compare(const void *x, const void *y)
{
    float a = *(const float *)x, c = *(const float *)y;

    return (a > c) - (a < c);
}

static void connect_target(const char *text)
{
    struct iscsi_url *url;
    struct scsi_task *task;
    struct scsi_readcapacity16 *cap;

    b.iscsi = iscsi_create_context("iqn.2026-11.io.zbs.test:bench");
    url = iscsi_parse_full_url(b.iscsi, text);
    if (!url) {
        fprintf(stderr, "iscsi_bench: %s\n", iscsi_get_error(b.iscsi));
        exit(2);
    }
    iscsi_set_targetname(b.iscsi, url->target);
    iscsi_set_session_type(b.iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(b.iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    if (iscsi_full_connect_sync(b.iscsi, url->portal, url->lun)) {
        fprintf(stderr, "iscsi_bench: %s\n", iscsi_get_error(b.iscsi));
        exit(1);
    }
    b.lun = url->lun;
    iscsi_destroy_url(url);
    task = iscsi_readcapacity16_sync(b.iscsi, b.lun);
    cap = task ? scsi_datain_unmarshall(task) : NULL;
    if (!cap) {
        fprintf(stderr, "iscsi_bench: no capacity: %s\n", iscsi_get_error(b.iscsi));
        exit(1);
    }
    if (!b.span || b.span > (cap->returned_lba + 1) * cap->block_length)
        b.span = (cap->returned_lba + 1) * cap->block_length;
    scsi_free_scsi_task(task);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"url", 1, NULL, 'u'},     {"rw", 1, NULL, 'w'},
        {"block", 1, NULL, 'b'},   {"depth", 1, NULL, 'd'},
        {"seconds", 1, NULL, 's'}, {"ramp", 1, NULL, 'r'},
        {"span", 1, NULL, 'p'},    {"ios", 1, NULL, 'i'},
        {"seed", 1, NULL, 'e'},    {0},
    };
    const char *url = NULL, *rw = "randread";
    double seconds = 5, ramp = 1, begin, spent;
    int o;

    signal(SIGPIPE, SIG_IGN); /* the library writes to sockets that may be gone */
    b.block = 4096;
    b.depth = 1;
    b.rng = 42;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'u':
            url = optarg;
            break;
        case 'w':
            rw = optarg;
            break;
        case 'b':
            b.block = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'd':
            b.depth = atoi(optarg);
            break;
        case 's':
            seconds = atof(optarg);
            break;
        case 'r':
            ramp = atof(optarg);
            break;
        case 'p':
            b.span = strtoull(optarg, NULL, 10);
            break;
        case 'i':
            b.limit = strtoull(optarg, NULL, 10);
            break;
        case 'e':
            b.rng = strtoull(optarg, NULL, 10) << 32;
            break;
        default:
            return 2;
        }
    }
    if (!url || b.depth < 1 || b.depth > DEPTH_MAX || b.block % SECTOR) {
        fprintf(stderr, "iscsi_bench: --url is needed, --depth 1..%d, --block a multiple of 512\n",
                DEPTH_MAX);
        return 2;
    }
    b.write = strstr(rw, "write") != NULL;
    b.sequential = !strncmp(rw, "seq", 3);
    connect_target(url);
    begin = now_sec();
    b.measure_from = b.limit ? begin : begin + ramp;
    b.end = b.limit ? begin + 1e9 : b.measure_from + seconds;
    for (int i = 0; i < b.depth; i++) {
        b.ops[i].data = aligned_alloc(4096, (b.block + 4095) / 4096 * 4096);
        for (uint32_t k = 0; k + 8 <= b.block; k += 8) {
            uint64_t word = next_random();

            memcpy(b.ops[i].data + k, &word, 8);
        }
        b.ops[i].iov.iov_base = b.ops[i].data;
        b.ops[i].iov.iov_len = b.block;
        submit(&b.ops[i]);
    }
    while (b.in_flight) {
        struct pollfd p = {.fd = iscsi_get_fd(b.iscsi),
                           .events = (short)iscsi_which_events(b.iscsi)};

        if (poll(&p, 1, 30000) == 0) {
            fprintf(stderr, "iscsi_bench: no answer for 30 s\n");
            return 1;
        }
        if (iscsi_service(b.iscsi, p.revents) < 0) {
            fprintf(stderr, "iscsi_bench: %s\n", iscsi_get_error(b.iscsi));
            return 1;
        }
    }
    spent = b.limit ? now_sec() - begin : seconds;
    iscsi_logout_sync(b.iscsi);
    iscsi_destroy_context(b.iscsi);
    qsort(b.lat, b.ios, sizeof(*b.lat), compare);
    printf("{\"iops\": %.1f, \"mib_s\": %.2f, \"mean_us\": %.1f, \"p50_us\": %.1f, \"p99_us\": "
           "%.1f, \"max_us\": %.1f, \"longest_gap_us\": %.1f, \"ios\": %" PRIu64
           ", \"errors\": %" PRIu64 "}\n",
           (double)b.ios / spent, (double)b.ios * b.block / spent / 1048576,
           b.ios ? b.sum / (double)b.ios : 0, b.ios ? (double)b.lat[b.ios / 2] : 0,
           b.ios ? (double)b.lat[b.ios * 99 / 100] : 0, b.ios ? (double)b.lat[b.ios - 1] : 0,
           b.gap * 1e6, b.ios, b.errors);
    return b.errors ? 1 : 0;
}
