/* SPDX-License-Identifier: Apache-2.0
 *
 * The shell around a daemon. Everything that can be wrong with the configuration is found before a
 * disk, a port or a peer is touched. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "common/env/service.h"

/* A daemon that waits for others (a meta server for ZooKeeper's quorum) counts as started for the
 * service manager after this time, because what it waits for may be started after it. */
#define START_PATIENCE (10 * NSEC_PER_SEC)

void service_ready(void *service, const char *where)
{
    struct service *s = service;

    s->is_ready = true;
    sd_notifyf(0, "READY=1\nSTATUS=serving at %s", where);
}

static co_fn int patience_main(void *arg)
{
    struct service *s = arg;

    sd_notify(0, "STATUS=starting");
    if (co_sleep(START_PATIENCE) == 0 && !s->is_ready)
        sd_notify(0, "READY=1\nSTATUS=waiting for other services: see the log");
    return 0;
}

/* Fed for as long as the loop runs. */
static co_fn int watchdog_main(void *arg UNUSED)
{
    uint64_t usec = 0;

    if (sd_watchdog_enabled(0, &usec) <= 0)
        return 0;
    do
        sd_notify(0, "WATCHDOG=1");
    while (co_sleep((nsec_t)usec * NSEC_PER_USEC / 3) == 0);
    return 0;
}

static co_fn int stop_main(void *arg UNUSED)
{
    while (co_sleep_until(NSEC_NEVER) == 0)
        continue;
    sd_notify(0, "STOPPING=1\nSTATUS=stopping");
    return 0;
}

static co_fn int run_main(void *arg)
{
    struct service *s = arg;

    s->rc = s->run(s->arg);
    if (s->rc < 0) {
        log_error("service.end", "why=\"%s\"", err_text(s->rc));
        sd_notifyf(0, "STATUS=failed: %s", err_text(s->rc));
    }
    co_group_cancel(&s->group);
    return 0;
}

/* Makes the folder and what is above it. */
static int folder_make(const char *path)
{
    char *copy = mem_strdup(path);
    int rc = 0;

    for (char *p = copy + 1; rc == 0; p++) {
        char end = *p;

        if (end != '/' && end != 0)
            continue;
        *p = 0;
        if (mkdir(copy, 0750) < 0 && errno != EEXIST)
            rc = err_from_errno(errno, "data_dir %s: cannot make %s", path, copy);
        *p = end;
        if (end == 0)
            break;
    }
    mem_free(copy);
    return rc;
}

static co_fn int config_read(struct service *s)
{
    char *text;
    size_t len;
    int rc = env_file_read(s->config, &text, &len);

    if (rc < 0)
        return rc;
    rc = conf_parse(s->config, text, len, s->keys, s->key_count, s->settings);
    mem_free(text);
    if (rc == 0 && s->prepare != NULL) {
        rc = s->prepare(s->arg, s->config);
        if (rc < 0)
            conf_free(s->keys, s->key_count, s->settings);
    }
    return rc;
}

static co_fn int serve(struct service *s)
{
    struct co_group beside;
    int rc = folder_make(*s->data_dir);

    if (rc < 0) {
        log_error("service.data_dir", "why=\"%s\"", err_text(rc));
        return rc;
    }
    co_group_init(&beside);
    co_spawn(&beside, "watchdog", watchdog_main, NULL);
    co_spawn(&beside, "patience", patience_main, s);
    co_group_init(&s->group);
    co_spawn(&s->group, "run", run_main, s);
    co_spawn(&s->group, "stop", stop_main, s);
    (void)co_group_join(&s->group); /* passes a signal's cancel on */
    (void)co_group_close(&beside);
    return s->rc;
}

static co_fn int service_entry(void *arg)
{
    struct service *s = arg;
    int rc = config_read(s);

    if (rc < 0) {
        log_error("service.config", "why=\"%s\"", err_text(rc));
        sd_notifyf(0, "STATUS=failed: %s", err_text(rc));
        return rc;
    }
    if (!s->check_only)
        rc = serve(s);
    conf_free(s->keys, s->key_count, s->settings);
    return rc;
}

static int usage(const struct service *s, FILE *to)
{
    char *help;

    fprintf(to, "usage: %s --config FILE [--check]   serve, or only check the file\n", s->name);
    fprintf(to, "       %s --print-config            a file with all settings explained\n",
            s->name);
    if (s->usage != NULL)
        fputs(s->usage, to);
    if (to == stdout) {
        help = conf_help(s->keys, s->key_count);
        fprintf(to, "\n%s", help);
        mem_free(help);
    }
    return to == stdout ? 0 : 2;
}

static int config_print(const struct service *s)
{
    char *intro = mem_printf("%s: %s. Every setting with its help; what is commented out shows the "
                             "default or an example. '%s --config FILE --check' checks a file; a "
                             "change takes effect at a restart.",
                             s->name, s->what, s->name);
    char *text = conf_sample(intro, s->keys, s->key_count);
    int rc = fputs(text, stdout) < 0 || fflush(stdout) != 0;

    mem_free(intro);
    mem_free(text);
    return rc;
}

int service_main(struct service *s, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'C'},
                                            {"print-config", no_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct env_real_conf env = {
        .name = s->name, .handle_signals = true, .arena_bytes = s->arena_bytes};
    int opt;

    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            s->config = optarg;
            break;
        case 'C':
            s->check_only = true;
            break;
        case 'p':
            return config_print(s);
        case 'h':
            return usage(s, stdout);
        default:
            return usage(s, stderr);
        }
    }
    if (s->config == NULL || optind != argc)
        return usage(s, stderr);
    log_set_service(s->name);
    return env_real_run(&env, service_entry, s) < 0 ? 1 : 0;
}
