/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-metad --config FILE. Tells systemd (NOTIFY_SOCKET) when it serves, and feeds its watchdog
 * for as long as the loop runs. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include "common/base/conf.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "meta/metad.h"

static const struct conf_key keys[] = {
    {"meta", "name", CONF_STRING, offsetof(struct metad_conf, name), NULL, 1, 128,
     "unique among the meta servers", NULL},
    {"meta", "listen", CONF_STRING, offsetof(struct metad_conf, listen), NULL, 1, 127,
     "RPC address, as it stands in peers", NULL},
    {"meta", "data_dir", CONF_STRING, offsetof(struct metad_conf, data_dir), "/var/lib/zbs/meta", 1,
     1024, "folder of the metadata store", NULL},
    {"meta", "zookeeper", CONF_STRING, offsetof(struct metad_conf, zookeeper), NULL, 1, 1024,
     "ZooKeeper servers, numeric: 10.0.0.1:2181,10.0.0.2:2181", NULL},
    {"meta", "zk_root", CONF_STRING, offsetof(struct metad_conf, zk_root), "/zbs", 1, 255,
     "node in ZooKeeper that holds this cluster", NULL},
    {"meta", "peers", CONF_STRING, offsetof(struct metad_conf, peers), "", 0, 4096,
     "RPC addresses of all meta servers, this one too; empty: there is only this one", NULL},
    {"meta", "zk_session_ms", CONF_U32, offsetof(struct metad_conf, zk_session_ms), "1500", 400,
     60000, "how soon a silent ZooKeeper server is given up", NULL},
    {"meta", "beat_ms", CONF_U32, offsetof(struct metad_conf, beat_ms), "200", 10, 1000,
     "the leader's heartbeat", NULL},
    {"meta", "takeover_ms", CONF_U32, offsetof(struct metad_conf, takeover_ms), "800", 30, 3000,
     "silence of the leader before a standby takes over", NULL},
    {"meta", "authority_ms", CONF_U32, offsetof(struct metad_conf, authority_ms), "800", 30, 3000,
     "how long a leader may answer after its last write to ZooKeeper", NULL},
    {"meta", "session_ttl_ms", CONF_U32, offsetof(struct metad_conf, session_ttl_ms), "1000", 40,
     3000, "silence after which an access server's leases end", NULL},
    {"meta", "chunk_dead_ms", CONF_U32, offsetof(struct metad_conf, chunk_dead_ms), "1000", 40,
     3000, "silence after which a chunk server counts as dead", NULL},
    {"meta", "log_keep", CONF_U32, offsetof(struct metad_conf, log_keep), "1000", 1, 100000,
     "log entries kept in ZooKeeper beyond what must be", NULL},
};

struct program {
    const char *config;
    struct metad_conf conf;
};

static void on_ready(void *arg)
{
    const struct program *p = arg;

    log_info("metad.ready", "listen=%s", p->conf.listen);
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

static co_fn int read_config(struct program *p)
{
    char *text;
    size_t len;
    int rc = env_file_read(p->config, &text, &len);

    if (rc < 0)
        return rc;
    rc = conf_parse(p->config, text, len, keys, ARRAY_SIZE(keys), &p->conf);
    mem_free(text);
    return rc;
}

static co_fn int program_main(void *arg)
{
    struct program *p = arg;
    struct co_group group;
    int rc = read_config(p);

    if (rc < 0) {
        log_error("metad.config", "why=\"%s\"", err_text(rc));
        return rc;
    }
    p->conf.ready = on_ready;
    p->conf.ready_arg = p;
    co_group_init(&group);
    co_spawn(&group, "watchdog", watchdog_main, NULL);
    rc = make_folder(p->conf.data_dir);
    if (rc == 0)
        rc = metad_main(&p->conf);
    if (rc < 0)
        log_error("metad.end", "why=\"%s\"", err_text(rc));
    sd_notify(0, "STOPPING=1");
    (void)co_group_close(&group);
    conf_free(keys, ARRAY_SIZE(keys), &p->conf);
    return rc;
}

static void usage(FILE *to)
{
    fprintf(to, "usage: zbs-metad --config FILE\n\nSettings of section [meta]:\n");
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        fprintf(to, "  %-15s %s%s%s%s\n", keys[i].key, keys[i].help,
                keys[i].otherwise == NULL ? " (required)" : " [",
                keys[i].otherwise == NULL ? "" : keys[i].otherwise,
                keys[i].otherwise == NULL ? "" : "]");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct env_real_conf env = {.name = "zbs-metad", .handle_signals = true};
    struct program p = {0};
    int opt;

    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (opt == 'h') {
            usage(stdout);
            return 0;
        }
        if (opt != 'c') {
            usage(stderr);
            return 2;
        }
        p.config = optarg;
    }
    if (p.config == NULL || optind != argc) {
        usage(stderr);
        return 2;
    }
    log_set_service("zbs-metad");
    return env_real_run(&env, program_main, &p) < 0 ? 1 : 0;
}
