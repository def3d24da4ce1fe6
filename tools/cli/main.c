/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: finds the cluster's configuration and runs one command. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "common/base/log.h"
#include "common/env/env_real.h"
#include "tools/cli/cli.h"

#define CONFIG_DEFAULT "/etc/zbs/zbs.conf"

static int config_item(void *user, const char *section, const char *name, const char *value)
{
    struct cli *c = user;

    if (strcmp(section, "cluster") || strcmp(name, "meta"))
        return 0;
    if (strlen(value) >= sizeof(c->meta_addrs))
        return 0;
    strcpy(c->meta_addrs, value);
    return 1;
}

static enum cli_exit config_load(struct cli *c, const char *path)
{
    int line = ini_parse(path, config_item, c);

    if (line < 0) {
        fprintf(stderr,
                "zbs-cli: %s: %s: name the cluster's configuration with --config FILE or "
                "ZBS_CONFIG\n",
                path, strerror(errno ? errno : ENOENT));
        return CLI_USAGE;
    }
    if (line > 0) {
        fprintf(stderr,
                "zbs-cli: %s:%d: not understood: the file has a section [cluster] with one key, "
                "meta = ADDRESS:PORT,…\n",
                path, line);
        return CLI_USAGE;
    }
    if (!c->meta_addrs[0]) {
        fprintf(stderr, "zbs-cli: %s: [cluster] meta = ADDRESS:PORT,… is missing\n", path);
        return CLI_USAGE;
    }
    return CLI_OK;
}

static int run_command(void *arg)
{
    struct cli *c = arg;

    c->meta = meta_client_new(c->meta_addrs, "zbs-cli");
    c->exit = c->command->run(c);
    meta_client_close(c->meta);
    return 0;
}

int main(int argc, char **argv)
{
    const struct env_real_conf conf = {.name = "zbs-cli", .pool_threads = 1, .ring_entries = 8};
    const char *path = getenv("ZBS_CONFIG");
    struct cli c = {0};
    char *words[64];
    int n_words = 0;
    enum cli_exit rc;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            c.json = true;
        } else if (!strcmp(argv[i], "--config") && i + 1 < argc) {
            path = argv[++i];
        } else if (!strncmp(argv[i], "--config=", 9)) {
            path = argv[i] + 9;
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "help")) {
            cli_help(i + 1 < argc ? argv[i + 1] : n_words ? words[0] : NULL);
            return CLI_OK;
        } else if (n_words < (int)ARRAY_SIZE(words)) {
            words[n_words++] = argv[i];
        }
    }
    rc = cli_parse(&c, n_words, words);
    if (rc == CLI_OK)
        rc = config_load(&c, path && path[0] ? path : CONFIG_DEFAULT);
    if (rc != CLI_OK)
        return (int)rc;
    log_threshold = LOG_LV_ERROR;
    if (env_real_run(&conf, run_command, &c) < 0)
        return CLI_FAILED;
    return (int)c.exit;
}
