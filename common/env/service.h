/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemons' main functions share: command line, configuration, data folder, signals, and
 * the service manager (READY, STATUS, WATCHDOG, STOPPING when systemd or a test listens). */
#ifndef ZBS_ENV_SERVICE_H
#define ZBS_ENV_SERVICE_H

#include "common/base/conf.h"
#include "common/co/co.h"

struct service {
    const char *name;  /* "zbs-metad" */
    const char *what;  /* "the meta server": for the head of the sample configuration */
    const char *usage; /* further lines of --help, with newlines; NULL: none */
    const struct conf_key *keys;
    size_t key_count;
    void *settings;       /* zeroed; filled from the file */
    char **data_dir;      /* the setting with the folder to make */
    uint64_t arena_bytes; /* env_real_conf.arena_bytes */
    /* Checks and converts what the table cannot; the configuration file's name for messages.
     * Suspends not. NULL: nothing to do. */
    int (*prepare)(void *arg, const char *file);
    co_fn int (*run)(void *arg); /* until cancelled: 0; or a start-up error */
    void *arg;

    /* inside */
    const char *config;
    bool check_only, is_ready;
    int rc;
    struct co_group group;
};

/* Runs a daemon; its exit code: 0 stopped in good order, 1 failed, 2 wrong usage. */
int service_main(struct service *s, int argc, char **argv);

/* Tells the service manager that it serves, and where: what daemons call when they are ready. */
void service_ready(void *service, const char *where);

#endif
