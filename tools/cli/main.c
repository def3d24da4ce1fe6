/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: finds the cluster's configuration and runs one command. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/conf.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "common/env/env_real.h"
#include "tools/cli/cli.h"

#define CONFIG_DEFAULT "/etc/zbs/zbs.conf"

struct settings {
    char *meta;
};

static const struct conf_key keys[] = {
    {.section = "cluster",
     .key = "meta",
     .type = CONF_ADDRESS_LIST,
     .offset = offsetof(struct settings, meta),
     .min = 1,
     .max = CLI_META_ADDRS_MAX - 1,
     .example = "10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100",
     .help = "RPC addresses of all meta servers"},
};

static int config_print(void)
{
    char *text = conf_sample("zbs.conf: where zbs-cli finds the cluster. Another file is named by "
                             "--config or the environment variable ZBS_CONFIG.",
                             keys, ARRAY_SIZE(keys));
    int rc = fputs(text, stdout) < 0 || fflush(stdout) != 0;

    mem_free(text);
    return rc ? CLI_FAILED : CLI_OK;
}

/* Prints what is wrong. */
static co_fn enum cli_exit config_load(struct cli *c)
{
    struct settings s = {0};
    char *text;
    size_t len;
    int rc = env_file_read(c->config, &text, &len);

    if (rc < 0) {
        fprintf(stderr,
                "zbs-cli: %s: name the cluster's configuration with --config FILE or ZBS_CONFIG\n",
                err_text(rc));
        return CLI_USAGE;
    }
    rc = conf_parse(c->config, text, len, keys, ARRAY_SIZE(keys), &s);
    mem_free(text);
    if (rc < 0) {
        fprintf(stderr, "zbs-cli: %s\n", err_text(rc));
        return CLI_USAGE;
    }
    snprintf(c->meta_addrs, sizeof(c->meta_addrs), "%s", s.meta);
    conf_free(keys, ARRAY_SIZE(keys), &s);
    return CLI_OK;
}

static int run_command(void *arg)
{
    struct cli *c = arg;

    c->exit = config_load(c);
    if (c->exit != CLI_OK)
        return 0;
    c->meta = meta_client_new(c->meta_addrs, "zbs-cli");
    c->exit = cli_resolve_paths(c);
    if (c->exit == CLI_OK)
        c->exit = c->command->run(c);
    for (uint32_t i = 0; i < c->n_resolved; i++)
        mem_free(c->resolved[i]);
    meta_client_close(c->meta);
    return 0;
}

int main(int argc, char **argv)
{
    const struct env_real_conf conf = {.name = "zbs-cli", .pool_threads = 1, .ring_entries = 8};
    const char *path = getenv("ZBS_CONFIG");
    struct cli c = {.config = path && path[0] ? path : CONFIG_DEFAULT};
    char *words[64];
    int n_words = 0;
    enum cli_exit rc;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            c.json = true;
        } else if (!strcmp(argv[i], "--config")) {
            if (++i == argc)
                return cli_usage_error(&c, "--config needs a file");
            c.config = argv[i];
        } else if (!strncmp(argv[i], "--config=", 9)) {
            c.config = argv[i] + 9;
        } else if (!strcmp(argv[i], "--print-config")) {
            return config_print();
        } else if (!strcmp(argv[i], "--help") || (n_words == 0 && !strcmp(argv[i], "help"))) {
            return cli_help(n_words > 0 ? words[0] : i + 1 < argc ? argv[i + 1] : NULL);
        } else if (n_words == (int)ARRAY_SIZE(words)) {
            return cli_usage_error(&c, "more than %d words", n_words);
        } else {
            words[n_words++] = argv[i];
        }
    }
    rc = cli_parse(&c, n_words, words);
    if (rc != CLI_OK)
        return (int)rc;
    log_threshold = LOG_LV_ERROR;
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* names are UTF-8, and tables measure them */
    if (env_real_run(&conf, run_command, &c) < 0)
        return CLI_FAILED;
    return (int)c.exit;
}
