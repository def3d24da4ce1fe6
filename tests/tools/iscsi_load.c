/* SPDX-License-Identifier: Apache-2.0
 *
 * A verified load through a real initiator library (libiscsi): random writes and reads of 4 KiB
 * blocks, each carrying its number and version, so that a lost, stale, torn or misplaced block is
 * found. Commands that a broken connection cut off are sent again, on the next URL if there are
 * several, until they are answered; a SCSI error is an error. Ends with one JSON line:
 * operations, errors, mismatches, the longest pause between two completions and the longest time
 * that a read and a write took.
 *
 *   iscsi_load --url URL [--url URL] --seconds S [--depth D] [--blocks N] [--first BLOCK]
 *              [--reads PERCENT] [--seed N] [--stall SECONDS] [--stop-file FILE]
 *              [--no-final-check]
 *
 * Blocks (from --first, default 0) must not have been written before. After the load (S seconds, or
 * until FILE exists) every block that was ever written is read back and compared. A path without an
 * answer for --stall seconds (default 5) while another exists is given up. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#define BLOCK       4096
#define SECTOR      512
#define URLS_MAX    4
#define DEPTH_MAX   256
#define GIVE_UP_SEC 180 /* no answer at all for this long: the cluster is gone */

struct slot {
    bool busy, sent, is_write;
    uint32_t block, version;
    double begin;
    uint8_t data[BLOCK];
    struct load *load;
    struct scsi_task *task;
};

struct load {
    const char *urls[URLS_MAX];
    int n_urls, at;
    int seconds, depth, read_percent, stall_sec;
    const char *stop_file;
    bool final_check;
    uint64_t seed, rng;
    uint32_t n_blocks, first_block;
    struct iscsi_context *iscsi;
    int lun;
    uint32_t *versions; /* last acknowledged; 0: never written */
    uint8_t *locked;    /* a command is in flight */
    struct slot slots[DEPTH_MAX];
    uint64_t reads, writes, errors, mismatches, reconnects;
    double longest_pause, longest_read, longest_write, last_done, started;
    bool broken;
    char first_error[512];
};

static double now_sec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t next_random(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void fill(const struct load *l, uint8_t *data, uint32_t block, uint32_t version)
{
    for (uint32_t s = 0; s < BLOCK / SECTOR; s++) {
        uint64_t x = l->seed ^ ((uint64_t)block << 32 | version) ^ (uint64_t)s << 56;
        uint64_t *words = (uint64_t *)(void *)(data + s * SECTOR);

        if (version == 0) {
            memset(words, 0, SECTOR);
            continue;
        }
        words[0] = (uint64_t)block << 32 | version;
        words[1] = s;
        for (uint32_t w = 2; w < SECTOR / 8; w++)
            words[w] = next_random(&x);
    }
}

static void note_error(struct load *l, const char *what, const char *why)
{
    if (!l->first_error[0])
        snprintf(l->first_error, sizeof(l->first_error), "%s: %s", what, why);
}

static void check_block(struct load *l, uint32_t block, uint32_t version, const uint8_t *got)
{
    uint8_t want[BLOCK];
    char text[200];
    uint64_t words[2];

    fill(l, want, block, version);
    if (!memcmp(want, got, BLOCK))
        return;
    l->mismatches++;
    for (uint32_t s = 0; s < BLOCK / SECTOR; s++) {
        if (!memcmp(want + s * SECTOR, got + s * SECTOR, SECTOR))
            continue;
        memcpy(words, got + s * SECTOR, sizeof(words));
        snprintf(text, sizeof(text),
                 "block %u sector %u: version %u expected, found block %u version %u sector %u",
                 block, s, version, (uint32_t)(words[0] >> 32), (uint32_t)words[0],
                 (uint32_t)words[1]);
        note_error(l, "mismatch", text);
        fprintf(stderr, "iscsi_load: %s\n", text);
        return;
    }
}

static void finish(struct slot *s)
{
    struct load *l = s->load;
    double now = now_sec();
    double *longest = s->is_write ? &l->longest_write : &l->longest_read;

    if (now - l->last_done > l->longest_pause)
        l->longest_pause = now - l->last_done;
    if (now - s->begin > *longest)
        *longest = now - s->begin;
    l->last_done = now;
    l->locked[s->block] = 0;
    s->busy = s->sent = false;
}

static void on_done(struct iscsi_context *iscsi, int status, void *command_data, void *private_data)
{
    struct slot *s = private_data;
    struct load *l = s->load;
    struct scsi_task *task = command_data;

    s->task = NULL;
    if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || l->broken) {
        /* the connection is going: the command is sent again */
        s->sent = false;
        l->broken = true;
        scsi_free_scsi_task(task);
        return;
    }
    if (status != SCSI_STATUS_GOOD) {
        bool retry =
            status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL ||
            (status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_UNIT_ATTENTION);

        if (!retry) {
            l->errors++;
            note_error(l, s->is_write ? "write" : "read", iscsi_get_error(iscsi));
        }
        s->sent = false;
        scsi_free_scsi_task(task);
        return;
    }
    if (s->is_write) {
        l->versions[s->block] = s->version;
        l->writes++;
    } else {
        if (task->datain.size == BLOCK)
            check_block(l, s->block, l->versions[s->block], task->datain.data);
        else
            l->mismatches++;
        l->reads++;
    }
    scsi_free_scsi_task(task);
    finish(s);
}

static void disconnect(struct load *l)
{
    l->broken = true;
    if (l->iscsi)
        iscsi_destroy_context(l->iscsi); /* calls on_done for what is in flight */
    l->iscsi = NULL;
    for (int i = 0; i < l->depth; i++)
        l->slots[i].sent = false;
}

/* Logs in at the next URL; false after one failed attempt. */
static bool connect_once(struct load *l)
{
    struct iscsi_url *url;
    struct iscsi_context *iscsi = iscsi_create_context("iqn.2026-11.io.zbs.test:load");

    if (!iscsi)
        return false;
    url = iscsi_parse_full_url(iscsi, l->urls[l->at]);
    if (!url) {
        fprintf(stderr, "iscsi_load: %s\n", iscsi_get_error(iscsi));
        exit(2);
    }
    iscsi_set_targetname(iscsi, url->target);
    iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
    iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE_CRC32C);
    iscsi_set_noautoreconnect(iscsi, 1);
    iscsi_set_timeout(iscsi, 3);
    if (url->user[0])
        iscsi_set_initiator_username_pwd(iscsi, url->user, url->passwd);
    l->lun = url->lun;
    if (iscsi_full_connect_sync(iscsi, url->portal, url->lun) != 0) {
        iscsi_destroy_url(url);
        iscsi_destroy_context(iscsi);
        return false;
    }
    iscsi_destroy_url(url);
    iscsi_set_timeout(iscsi, 0);
    l->iscsi = iscsi;
    l->broken = false;
    return true;
}

static void reconnect(struct load *l)
{
    disconnect(l);
    l->reconnects++;
    while (!l->iscsi) {
        if (now_sec() - l->last_done > GIVE_UP_SEC) {
            note_error(l, "connect", "no path came back");
            l->errors++;
            return;
        }
        l->at = (l->at + 1) % l->n_urls;
        if (!connect_once(l))
            usleep(50000);
    }
}

static void send_slot(struct load *l, struct slot *s)
{
    uint64_t lba = ((uint64_t)l->first_block + s->block) * (BLOCK / SECTOR);

    if (s->is_write)
        s->task = iscsi_write16_task(l->iscsi, l->lun, lba, s->data, BLOCK, SECTOR, 0, 0, 0, 0, 0,
                                     on_done, s);
    else
        s->task =
            iscsi_read16_task(l->iscsi, l->lun, lba, BLOCK, SECTOR, 0, 0, 0, 0, 0, on_done, s);
    if (s->task)
        s->sent = true;
    else
        l->broken = true;
}

static void choose(struct load *l, struct slot *s)
{
    for (int tries = 0; tries < 100; tries++) {
        uint32_t block = (uint32_t)(next_random(&l->rng) % l->n_blocks);

        if (l->locked[block])
            continue;
        l->locked[block] = 1;
        s->busy = true;
        s->block = block;
        s->begin = now_sec();
        s->is_write = (int)(next_random(&l->rng) % 100) >= l->read_percent;
        if (s->is_write) {
            s->version = l->versions[block] + 1;
            fill(l, s->data, block, s->version);
        }
        return;
    }
}

/* One turn: refill, send, wait for events. */
static void turn(struct load *l, bool refill)
{
    struct pollfd p;

    for (int i = 0; i < l->depth; i++) {
        struct slot *s = &l->slots[i];

        if (!s->busy && refill)
            choose(l, s);
        if (s->busy && !s->sent && l->iscsi && !l->broken)
            send_slot(l, s);
    }
    if (!l->iscsi || l->broken ||
        (l->n_urls > 1 && now_sec() - l->last_done > l->stall_sec &&
         now_sec() - l->started > l->stall_sec)) {
        double before = now_sec();

        reconnect(l);
        l->started = before; /* the new path gets its own patience */
        return;
    }
    p.fd = iscsi_get_fd(l->iscsi);
    p.events = (short)iscsi_which_events(l->iscsi);
    p.revents = 0;
    if (poll(&p, 1, 200) < 0 && errno != EINTR)
        l->broken = true;
    if (iscsi_service(l->iscsi, p.revents) < 0)
        l->broken = true;
    if (now_sec() - l->last_done > GIVE_UP_SEC) {
        note_error(l, "wait", "no answer");
        l->errors++;
    }
}

static bool any_busy(const struct load *l)
{
    for (int i = 0; i < l->depth; i++)
        if (l->slots[i].busy)
            return true;
    return false;
}

static void final_check(struct load *l)
{
    uint32_t next = 0;

    while ((next < l->n_blocks || any_busy(l)) && !l->errors) {
        for (int i = 0; i < l->depth && next < l->n_blocks; i++) {
            struct slot *s = &l->slots[i];

            if (s->busy)
                continue;
            while (next < l->n_blocks && l->versions[next] == 0)
                next++;
            if (next == l->n_blocks)
                break;
            s->busy = true;
            s->begin = now_sec();
            s->is_write = false;
            s->block = next++;
        }
        turn(l, false);
    }
}

static bool load_over(const struct load *l, double end)
{
    return l->errors || l->mismatches || now_sec() >= end ||
           (l->stop_file && access(l->stop_file, F_OK) == 0);
}

static void parse(struct load *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"url", 1, NULL, 'u'},
        {"seconds", 1, NULL, 's'},
        {"depth", 1, NULL, 'd'},
        {"blocks", 1, NULL, 'b'},
        {"first", 1, NULL, 'i'},
        {"reads", 1, NULL, 'r'},
        {"seed", 1, NULL, 'e'},
        {"stall", 1, NULL, 't'},
        {"stop-file", 1, NULL, 'f'},
        {"no-final-check", 0, NULL, 'n'},
        {0},
    };
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'u':
            if (l->n_urls < URLS_MAX)
                l->urls[l->n_urls++] = optarg;
            break;
        case 's':
            l->seconds = atoi(optarg);
            break;
        case 'd':
            l->depth = atoi(optarg);
            break;
        case 'b':
            l->n_blocks = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'i':
            l->first_block = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            l->read_percent = atoi(optarg);
            break;
        case 'e':
            l->seed = strtoull(optarg, NULL, 10);
            break;
        case 't':
            l->stall_sec = atoi(optarg);
            break;
        case 'f':
            l->stop_file = optarg;
            break;
        case 'n':
            l->final_check = false;
            break;
        default:
            exit(2);
        }
    }
    if (!l->n_urls || l->depth < 1 || l->depth > DEPTH_MAX ||
        l->n_blocks < (uint32_t)l->depth * 2) {
        fprintf(stderr, "iscsi_load: --url is needed; depth 1..%d, blocks at least 2 x depth\n",
                DEPTH_MAX);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct load l = {.seconds = 10,
                            .depth = 16,
                            .n_blocks = 16384,
                            .read_percent = 40,
                            .seed = 1,
                            .stall_sec = 5,
                            .final_check = true};
    double begin;

    signal(SIGPIPE, SIG_IGN); /* the library writes to sockets that may be gone */
    parse(&l, argc, argv);
    l.rng = l.seed;
    l.versions = calloc(l.n_blocks, sizeof(*l.versions));
    l.locked = calloc(l.n_blocks, 1);
    for (int i = 0; i < l.depth; i++)
        l.slots[i].load = &l;
    begin = l.started = l.last_done = now_sec();
    l.at = l.n_urls - 1;
    reconnect(&l);
    l.reconnects = 0;
    l.longest_pause = 0;
    l.last_done = now_sec();
    printf("started\n");
    fflush(stdout);
    while (!load_over(&l, begin + l.seconds))
        turn(&l, true);
    while (any_busy(&l) && !l.errors)
        turn(&l, false);
    if (l.final_check)
        final_check(&l);
    disconnect(&l);
    printf("{\"reads\": %" PRIu64 ", \"writes\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"mismatches\": %" PRIu64 ", \"reconnects\": %" PRIu64
           ", \"longest_pause_s\": %.3f, \"longest_read_s\": %.3f, \"longest_write_s\": %.3f"
           ", \"first_error\": \"%s\"}\n",
           l.reads, l.writes, l.errors, l.mismatches, l.reconnects, l.longest_pause, l.longest_read,
           l.longest_write, l.first_error);
    return l.errors || l.mismatches ? 1 : 0;
}
