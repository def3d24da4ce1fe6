/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-accessd --config FILE. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include "access/accessd.h"
#include "common/base/conf.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "common/env/env_real.h"

#define FIELD(f) offsetof(struct accessd_conf, f)

static const struct conf_key keys[] = {
    {"access", "name", CONF_STRING, FIELD(name), NULL, 1, 63, "unique among the access servers",
     NULL},
    {"access", "listen", CONF_STRING, FIELD(listen), NULL, 1, 127,
     "RPC address, reachable by the other access servers", NULL},
    {"access", "data_dir", CONF_STRING, FIELD(data_dir), "/var/lib/zbs/access", 1, 1024,
     "folder of the lock file", NULL},
    {"access", "meta", CONF_STRING, FIELD(meta), NULL, 1, 4096,
     "RPC addresses of the meta servers, comma separated", NULL},
    {"access", "host", CONF_STRING, FIELD(host), NULL, 1, 63,
     "name of this host, the same as its chunk server's", NULL},
    {"access", "rack", CONF_STRING, FIELD(rack), "", 0, 63, "failure domain above the host", NULL},
    {"access", "zone", CONF_STRING, FIELD(zone), "", 0, 63, "failure domain above the rack", NULL},
    {"access", "iscsi_listen", CONF_STRING, FIELD(iscsi_listen), "", 0, 127,
     "iSCSI portal, as initiators reach it; empty: none", NULL},
    {"access", "iscsi_connections", CONF_U32, FIELD(iscsi_connections), "256", 1, 65536,
     "iSCSI connections at most", NULL},
    {"access", "member_deadline_ms", CONF_U32, FIELD(member_deadline_ms), "1000", 50, 2000,
     "a replica that does not confirm a write for so long is removed", NULL},
};

struct program {
    const char *config;
    struct accessd_conf conf;
};

static void on_ready(void *arg)
{
    (void)arg;
    sd_notify(0, "READY=1");
}

/* The loop lives, so systemd's watchdog is fed. */
static int watchdog(void *arg)
{
    uint64_t interval_us = 0;

    (void)arg;
    if (sd_watchdog_enabled(0, &interval_us) > 0)
        while (co_sleep((nsec_t)interval_us * NSEC_PER_USEC / 3) == 0)
            sd_notify(0, "WATCHDOG=1");
    return 0;
}

static int folder_make(const char *path)
{
    char *part = mem_strdup(path);
    int rc = 0;

    for (char *end = strchr(part + 1, '/'); rc == 0; end = strchr(end + 1, '/')) {
        if (end)
            *end = 0;
        if (mkdir(part, 0750) < 0 && errno != EEXIST)
            rc = err_from_errno(errno, "cannot make %s", part);
        if (!end)
            break;
        *end = '/';
    }
    mem_free(part);
    return rc;
}

static int config_read(struct program *p)
{
    size_t len;
    char *text;
    int rc = env_file_read(p->config, &text, &len);

    if (rc < 0)
        return err_prefix(rc, "configuration");
    rc = conf_parse(p->config, text, len, keys, ARRAY_SIZE(keys), &p->conf);
    mem_free(text);
    return rc;
}

static int program_main(void *arg)
{
    struct program *p = arg;
    struct co_group extra;
    int rc = config_read(p);

    if (rc < 0) {
        log_error("access.config", "error=\"%s\"", err_text(rc));
        return rc;
    }
    p->conf.ready = on_ready;
    co_group_init(&extra);
    co_spawn(&extra, "watchdog", watchdog, NULL);
    rc = folder_make(p->conf.data_dir);
    if (rc == 0)
        rc = accessd_main(&p->conf);
    if (rc < 0)
        log_error("access.failed", "error=%s \"%s\"", err_name(rc), err_text(rc));
    sd_notify(0, "STOPPING=1");
    (void)co_group_close(&extra);
    conf_free(keys, ARRAY_SIZE(keys), &p->conf);
    return rc;
}

static int usage(FILE *to)
{
    fputs("usage: zbs-accessd --config FILE\n\nKeys of section [access]:\n", to);
    for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
        fprintf(to, "  %-19s%s (%s)\n", keys[k].key, keys[k].help,
                keys[k].otherwise ? keys[k].otherwise : "required");
    return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct env_real_conf env = {.name = "zbs-accessd", .handle_signals = true};
    struct program p = {.config = NULL};
    int opt;

    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (opt != 'c')
            return usage(opt == 'h' ? stdout : stderr);
        p.config = optarg;
    }
    if (!p.config || optind != argc)
        return usage(stderr);
    log_set_service("zbs-accessd");
    return env_real_run(&env, program_main, &p) < 0 ? 1 : 0;
}
