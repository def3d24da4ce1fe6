/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-chunkd --config FILE, and zbs-chunkd --format DEVICE. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chunk/chunkd.h"
#include "chunk/engine.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env_real.h"
#include "common/env/service.h"

struct settings {
    char *listen, *listen_unix, *data_dir, *meta, *host, *rack, *zone, *disks;
    uint64_t memory, disk_errors, disk_slow_factor;
    uint64_t readahead, scrub_rate, drain_rate;
    nsec_t scrub_interval;
    nsec_t flush_delay, merge_delay, disk_hung, disk_slow_floor, disk_slow_after;
};

#define FIELD(f) .section = "chunk", .key = #f, .offset = offsetof(struct settings, f)

static const struct conf_key keys[] = {
    {FIELD(listen), .type = CONF_ADDRESS, .min = 1, .example = "10.0.0.1:7200",
     .help = "RPC address, as the access servers reach it"},
    {FIELD(listen_unix), .type = CONF_ADDRESS_UNIX, .otherwise = "",
     .example = "unix:/run/zbs-chunk/socket", .usual = true,
     .help = "Socket for the access server of this host, which costs half of what TCP does; "
             "empty: none"},
    {FIELD(data_dir), .type = CONF_PATH, .otherwise = "/var/lib/zbs/chunk", .min = 1, .max = 1024,
     .help = "Folder of the lock file and of the list of disks that zbs-cli disk add extends"},
    {FIELD(meta), .type = CONF_ADDRESS_LIST, .min = 1,
     .example = "10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100",
     .help = "RPC addresses of all meta servers"},
    {FIELD(host), .type = CONF_NAME, .min = 1, .max = 63, .example = "host-1",
     .help = "Name of this host, the same for all its services; no two replicas on one host"},
    {FIELD(rack), .type = CONF_NAME, .otherwise = "", .max = 63, .example = "rack-1",
     .help = "Failure domain above the host; empty: none"},
    {FIELD(zone), .type = CONF_NAME, .otherwise = "", .max = 63, .example = "zone-1",
     .help = "Failure domain above the rack; empty: none"},
    {FIELD(disks), .type = CONF_PATH_LIST, .otherwise = "", .max = 8000,
     .example = "/dev/disk/by-id/nvme-A,/dev/disk/by-id/nvme-B", .usual = true,
     .help = "Devices, separated by commas, by names that outlive a restart of the host; each was "
             "formatted with 'zbs-chunkd --format DEVICE'. At least one is needed here or from "
             "'zbs-cli disk add'"},
    {FIELD(memory), .type = CONF_SIZE, .otherwise = "1G", .min = 64 << 20, .max = (uint64_t)1 << 40,
     .help = "Memory for all workers together"},
    {FIELD(flush_delay), .type = CONF_SPAN, .otherwise = "1s", .min = NSEC_PER_MSEC,
     .max = 60 * NSEC_PER_SEC,
     .help = "How long nobody must have written before small writes go home from the journal; "
             "a ring that fills up has them go home earlier"},
    {FIELD(merge_delay), .type = CONF_SPAN, .otherwise = "200us", .max = 10 * NSEC_PER_MSEC,
     .help = "How long small sequential writes that are in flight together may wait for one "
             "another, to be written as one; 0: never"},
    {FIELD(readahead), .type = CONF_SIZE, .otherwise = "1M", .max = 16 << 20,
     .help = "How much is read ahead of a sequential reader with small requests, at most; 0: "
             "nothing"},
    {FIELD(scrub_rate), .type = CONF_SIZE, .otherwise = "20M", .max = (uint64_t)1 << 40,
     .help = "Bytes a second that are read in the background to find pages that went bad; 0: only "
             "when 'zbs-cli chunk scrub' asks for it"},
    {FIELD(scrub_interval), .type = CONF_SPAN, .otherwise = "604800s", .min = 60 * NSEC_PER_SEC,
     .max = (nsec_t)10 * 365 * 86400 * NSEC_PER_SEC,
     .help = "From the start of one such round to that of the next"},
    {FIELD(drain_rate), .type = CONF_SIZE, .otherwise = "0", .max = (uint64_t)1 << 40,
     .help = "Bytes a second at which a disk is drained, at most; while there are requests they "
             "go first in any case. 0: no limit"},
    {FIELD(disk_errors), .type = CONF_U64, .otherwise = "8", .min = 1, .max = 1000000,
     .help = "A disk of which so many requests fail within a minute is taken out of service"},
    {FIELD(disk_hung), .type = CONF_SPAN, .otherwise = "10s", .min = NSEC_PER_SEC,
     .max = 3600 * NSEC_PER_SEC,
     .help = "A disk that leaves a request unanswered for so long is taken out of service"},
    {FIELD(disk_slow_factor), .type = CONF_U64, .otherwise = "8", .min = 2, .max = 1000000,
     .help = "A disk whose slowest requests take so many times as long as those of the other disks "
             "is taken out of service, if there are at least two to compare it with"},
    {FIELD(disk_slow_floor), .type = CONF_SPAN, .otherwise = "50ms", .min = NSEC_PER_MSEC,
     .max = 3600 * NSEC_PER_SEC,
     .help = "A disk that answers sooner than this never counts as slow"},
    {FIELD(disk_slow_after), .type = CONF_SPAN, .otherwise = "10s", .min = NSEC_PER_SEC,
     .max = 3600 * NSEC_PER_SEC, .help = "How long a disk must have been slow without a break"},
};

struct program {
    struct service service;
    struct settings settings;
    struct chunkd_conf conf;
};

struct format {
    const char *device;
    struct chunk_format_conf conf;
};

/* Cuts the list of devices, in place. */
static int disks_split(struct program *p, const char *file)
{
    char *save = NULL;

    for (char *d = strtok_r(p->settings.disks, ",", &save); d != NULL;
         d = strtok_r(NULL, ",", &save)) {
        if (p->conf.n_disks == CHUNKD_DISKS_MAX)
            return err_set(ERR_INVAL, "%s: [chunk] disks: more than %u", file, CHUNKD_DISKS_MAX);
        p->conf.disks[p->conf.n_disks++] = d;
    }
    return 0;
}

static int prepare(void *arg, const char *file)
{
    struct program *p = arg;
    const struct settings *s = &p->settings;

    p->conf = (struct chunkd_conf){
        .listen = s->listen,
        .listen_unix = s->listen_unix[0] != 0 ? s->listen_unix : NULL,
        .data_dir = s->data_dir,
        .meta = s->meta,
        .host = s->host,
        .rack = s->rack,
        .zone = s->zone,
        .memory_bytes = s->memory,
        .flush_delay_ms = (uint32_t)(s->flush_delay / NSEC_PER_MSEC),
        .merge_us = s->merge_delay < NSEC_PER_USEC ? MERGE_NEVER
                                                   : (uint32_t)(s->merge_delay / NSEC_PER_USEC),
        .readahead = s->readahead != 0 ? (uint32_t)s->readahead : READAHEAD_NEVER,
        .health = {.errors = (uint32_t)s->disk_errors,
                   .hung = s->disk_hung,
                   .slow_factor = (uint32_t)s->disk_slow_factor,
                   .slow_floor = s->disk_slow_floor,
                   .slow_windows = (uint32_t)(s->disk_slow_after / NSEC_PER_SEC)},
        .drain_bytes_per_s = s->drain_rate,
        .scrub_bytes_per_s = s->scrub_rate,
        .scrub_interval = s->scrub_interval,
        .ready = service_ready,
        .ready_arg = &p->service,
    };
    return disks_split(p, file);
}

static co_fn int run(void *arg)
{
    struct program *p = arg;

    return chunkd_main(&p->conf);
}

/* ---- --format ---- */

static const char usage_format[] =
    "       zbs-chunkd --format DEVICE [--workers N] [--journal SIZE] [--force]\n"
    "                  [--guest-rings N] [--journal-on DEVICE]\n"
    "         --guest-rings  also makes room for the journals of N other, slower devices\n"
    "         --journal-on   the journals go to that device of the same server, which has room for "
    "them\n";

static co_fn void format_report(const struct format *f)
{
    struct super_block *sb = mem_alloc(sizeof(*sb));
    struct disk *d;

    if (super_read(f->device, sb) == 0)
        printf("%s is formatted for %" PRIu32 " worker(s)\n", f->device, sb->workers);
    if (f->conf.journal_on != NULL) {
        printf("its journals are on %s\n", f->conf.journal_on);
    } else if (f->conf.guests == 0 && disk_open(f->device, DISK_READ_ONLY, &d) == 0) {
        if (disk_info(d)->rotational && !disk_info(d)->is_file)
            printf("it is a hard disk: if the server has flash, too, small writes are faster with "
                   "the journals there (--guest-rings, --journal-on)\n");
        disk_close(d);
    }
    mem_free(sb);
}

static co_fn int format_entry(void *arg)
{
    struct format *f = arg;
    int rc = chunk_format(f->device, &f->conf);

    if (rc < 0)
        fprintf(stderr, "zbs-chunkd: %s%s\n", err_text(rc),
                rc == ERR_EXISTS ? "; --force formats it nevertheless and destroys what it holds"
                                 : "");
    else
        format_report(f);
    return rc;
}

static int option_count(const char *text, const char *option, uint32_t max, uint32_t *ret)
{
    uint64_t n = 0;
    int rc = conf_u64_parse(text, &n);

    if (rc == 0 && (n < 1 || n > max))
        rc = err_set(ERR_INVAL, "%s is out of range (1 to %" PRIu32 ")", text, max);
    if (rc < 0)
        return err_prefix(rc, "%s", option);
    *ret = (uint32_t)n;
    return 0;
}

/* 0, or ERR_INVAL with what is to be said. */
static int format_options(struct format *f, int argc, char **argv)
{
    static const struct option options[] = {{"format", required_argument, NULL, 'f'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"journal", required_argument, NULL, 'j'},
                                            {"force", no_argument, NULL, 'F'},
                                            {"guest-rings", required_argument, NULL, 'g'},
                                            {"journal-on", required_argument, NULL, 'o'},
                                            {0}};
    int opt, rc = 0;

    while (rc == 0 && (opt = getopt_long(argc, argv, "f:w:j:", options, NULL)) != -1) {
        switch (opt) {
        case 'f':
            f->device = optarg;
            break;
        case 'w':
            rc = option_count(optarg, "--workers", WORKERS_MAX, &f->conf.workers);
            break;
        case 'j':
            rc = conf_size_parse(optarg, &f->conf.journal_bytes);
            if (rc < 0)
                rc = err_prefix(rc, "--journal");
            break;
        case 'F':
            f->conf.force = true;
            break;
        case 'g':
            rc = option_count(optarg, "--guest-rings", GUESTS_MAX, &f->conf.guests);
            break;
        case 'o':
            f->conf.journal_on = optarg;
            break;
        default:
            rc = err_set(ERR_INVAL, "see --help");
            break;
        }
    }
    if (rc == 0 && (f->device == NULL || optind != argc))
        rc = err_set(ERR_INVAL, "--format takes one device; see --help");
    return rc;
}

static int format_main(int argc, char **argv)
{
    struct env_real_conf env = {.name = "zbs-chunkd", .handle_signals = true};
    struct format f = {0};
    int rc = format_options(&f, argc, argv);

    if (rc < 0) {
        fprintf(stderr, "zbs-chunkd: %s\n", err_text(rc));
        return 2;
    }
    log_set_service("zbs-chunkd");
    return env_real_run(&env, format_entry, &f) < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct program p = {
        .service = {.name = "zbs-chunkd",
                    .what = "the chunk server, one per host",
                    .usage = usage_format,
                    .keys = keys,
                    .key_count = ARRAY_SIZE(keys),
                    .settings = &p.settings,
                    .data_dir = &p.settings.data_dir,
                    .prepare = prepare,
                    .run = run,
                    .arg = &p},
    };

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--format") == 0 || strncmp(argv[i], "--format=", 9) == 0)
            return format_main(argc, argv);
    }
    return service_main(&p.service, argc, argv);
}
