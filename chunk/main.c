/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-chunkd --config FILE, and zbs-chunkd --format DEVICE. Tells systemd (NOTIFY_SOCKET) when it
 * serves, and feeds its watchdog for as long as the loop runs. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include "chunk/chunkd.h"
#include "chunk/format.h"
#include "common/base/conf.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "common/env/env_real.h"

struct settings {
    char *listen, *listen_unix, *data_dir, *meta, *host, *rack, *zone, *disks;
    uint64_t memory_bytes;
    nsec_t flush_delay;
};
static const struct conf_key keys[] = {
    {"chunk", "listen", CONF_STRING, offsetof(struct settings, listen), NULL, 1, 127,
     "RPC address, numeric: 10.0.0.1:7200", NULL},
    {"chunk", "listen_unix", CONF_STRING, offsetof(struct settings, listen_unix), "", 0, 107,
     "socket for the access server of this host: unix:/run/zbs/chunk.sock", NULL},
    {"chunk", "data_dir", CONF_STRING, offsetof(struct settings, data_dir), "/var/lib/zbs/chunk", 1,
     1024, "folder of the lock file", NULL},
    {"chunk", "meta", CONF_STRING, offsetof(struct settings, meta), "", 0, 4096,
     "RPC addresses of all meta servers", NULL},
    {"chunk", "host", CONF_STRING, offsetof(struct settings, host), NULL, 1, 128,
     "this host's name, the same for all its services", NULL},
    {"chunk", "rack", CONF_STRING, offsetof(struct settings, rack), "", 0, 128,
     "failure domain above the host", NULL},
    {"chunk", "zone", CONF_STRING, offsetof(struct settings, zone), "", 0, 128,
     "failure domain above the rack", NULL},
    {"chunk", "disks", CONF_STRING, offsetof(struct settings, disks), "", 0, 8192,
     "formatted devices, separated by commas or blanks", NULL},
    {"chunk", "memory", CONF_SIZE, offsetof(struct settings, memory_bytes), "1G", 64 << 20,
     (uint64_t)1 << 40, "for all workers together", NULL},
    {"chunk", "flush_delay", CONF_SPAN, offsetof(struct settings, flush_delay), "1s", NSEC_PER_MSEC,
     60 * NSEC_PER_SEC, "how long written pages may stay in the journal only", NULL},
};

struct program {
    const char *config;
    const char *format; /* device */
    struct chunk_format_conf format_conf;
    struct settings settings;
    struct chunkd_conf conf;
};

static void on_ready(void *arg, const char *addr)
{
    (void)arg;
    log_info("chunkd.ready", "listen=%s", addr);
    sd_notify(0, "READY=1");
}

static co_fn int watchdog_main(void *arg)
{
    uint64_t usec = 0;

    (void)arg;
    if (sd_watchdog_enabled(0, &usec) <= 0)
        return 0;
    while (co_sleep((nsec_t)usec * NSEC_PER_USEC / 3) == 0)
        sd_notify(0, "WATCHDOG=1");
    return 0;
}

/* Makes the folder and what is above it. */
static int make_folder(const char *path)
{
    char *copy = mem_strdup(path);
    int rc = 0;

    for (char *p = copy + 1; rc == 0; p++) {
        char end = *p;

        if (end != '/' && end != 0)
            continue;
        *p = 0;
        if (mkdir(copy, 0750) < 0 && errno != EEXIST)
            rc = err_from_errno(errno, "data_dir %s", path);
        *p = end;
        if (end == 0)
            break;
    }
    mem_free(copy);
    return rc;
}

/* Cuts the list of devices, in place. */
static int disks_split(struct program *p)
{
    char *save = NULL;

    for (char *d = strtok_r(p->settings.disks, ", \t", &save); d != NULL;
         d = strtok_r(NULL, ", \t", &save)) {
        if (p->conf.n_disks == CHUNKD_DISKS_MAX)
            return err_set(ERR_INVAL, "%s: more than %u disks", p->config, CHUNKD_DISKS_MAX);
        p->conf.disks[p->conf.n_disks++] = d;
    }
    return 0;
}

static co_fn int read_config(struct program *p)
{
    const struct settings *s = &p->settings;
    char *text;
    size_t len;
    int rc = env_file_read(p->config, &text, &len);

    if (rc < 0)
        return rc;
    rc = conf_parse(p->config, text, len, keys, ARRAY_SIZE(keys), &p->settings);
    mem_free(text);
    if (rc < 0)
        return rc;
    p->conf = (struct chunkd_conf){
        .listen = s->listen,
        .listen_unix = s->listen_unix[0] != 0 ? s->listen_unix : NULL,
        .data_dir = s->data_dir,
        .meta = s->meta,
        .host = s->host,
        .rack = s->rack,
        .zone = s->zone,
        .memory_bytes = s->memory_bytes,
        .flush_delay_ms = (uint32_t)(s->flush_delay / NSEC_PER_MSEC),
        .ready = on_ready,
    };
    return disks_split(p);
}

static co_fn int serve_main(void *arg)
{
    struct program *p = arg;
    struct co_group group;
    int rc = read_config(p);

    if (rc < 0) {
        log_error("chunkd.config", "why=\"%s\"", err_text(rc));
        return rc;
    }
    co_group_init(&group);
    co_spawn(&group, "watchdog", watchdog_main, NULL);
    rc = make_folder(p->conf.data_dir);
    if (rc == 0)
        rc = chunkd_main(&p->conf);
    if (rc < 0)
        log_error("chunkd.end", "why=\"%s\"", err_text(rc));
    sd_notify(0, "STOPPING=1");
    (void)co_group_close(&group);
    conf_free(keys, ARRAY_SIZE(keys), &p->settings);
    return rc;
}

static co_fn int format_main(void *arg)
{
    struct program *p = arg;
    int rc = chunk_format(p->format, &p->format_conf);

    if (rc < 0)
        fprintf(stderr, "zbs-chunkd: %s%s\n", err_text(rc),
                rc == ERR_EXISTS ? "; --force formats it nevertheless and destroys what it holds"
                                 : "");
    else
        printf("%s is formatted for %" PRIu32 " worker(s)\n", p->format, p->format_conf.workers);
    return rc;
}

static void usage(FILE *to)
{
    fprintf(to, "usage: zbs-chunkd --config FILE\n"
                "       zbs-chunkd --format DEVICE [--workers N] [--journal SIZE] [--force]\n\n"
                "Settings of section [chunk]:\n");
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        fprintf(to, "  %-12s %s%s%s%s\n", keys[i].key, keys[i].help,
                keys[i].otherwise == NULL ? " (required)" : " [",
                keys[i].otherwise == NULL ? "" : keys[i].otherwise,
                keys[i].otherwise == NULL ? "" : "]");
}

static int option_workers(struct program *p, const char *text)
{
    uint64_t n;
    int rc = conf_u64_parse(text, &n);

    if (rc < 0)
        return rc;
    if (n < 1 || n > WORKERS_MAX)
        return err_set(ERR_INVAL, "--workers %s: 1 to %u", text, WORKERS_MAX);
    p->format_conf.workers = (uint32_t)n;
    return 0;
}

/* Returns 0, or the exit code + 1. */
static int options_parse(struct program *p, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"format", required_argument, NULL, 'f'},
                                            {"workers", required_argument, NULL, 'w'},
                                            {"journal", required_argument, NULL, 'j'},
                                            {"force", no_argument, NULL, 'F'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int opt, rc = 0;

    while ((opt = getopt_long(argc, argv, "c:f:w:j:h", options, NULL)) != -1 && rc == 0) {
        switch (opt) {
        case 'c':
            p->config = optarg;
            break;
        case 'f':
            p->format = optarg;
            break;
        case 'w':
            rc = option_workers(p, optarg);
            break;
        case 'j':
            rc = conf_size_parse(optarg, &p->format_conf.journal_bytes);
            break;
        case 'F':
            p->format_conf.force = true;
            break;
        case 'h':
            usage(stdout);
            return 1;
        default:
            usage(stderr);
            return 3;
        }
    }
    if (rc < 0) {
        fprintf(stderr, "zbs-chunkd: %s\n", err_text(rc));
        return 3;
    }
    if ((p->config == NULL) == (p->format == NULL) || optind != argc) {
        usage(stderr);
        return 3;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct env_real_conf env = {.name = "zbs-chunkd", .handle_signals = true};
    struct program p = {.format_conf = {.workers = 1}};
    int end = options_parse(&p, argc, argv);

    if (end != 0)
        return end - 1;
    log_set_service("zbs-chunkd");
    return env_real_run(&env, p.format != NULL ? format_main : serve_main, &p) < 0 ? 1 : 0;
}
