/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli: the command line. */
#include "tools/cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_command *const tables[] = {
    cli_cluster_commands, cli_disk_commands,     cli_scrub_commands,    cli_chunk_commands,
    cli_pool_commands,    cli_volume_commands,   cli_snapshot_commands, cli_stream_commands,
    cli_iscsi_commands,   cli_share_commands,    cli_nfs_commands,      cli_reservation_commands,
    cli_setting_commands, cli_recovery_commands,
};

const struct cli_command *cli_find(const char *noun, const char *verb)
{
    for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
        for (const struct cli_command *k = tables[t]; k->noun; k++)
            if (!strcmp(k->noun, noun) && (!verb || !strcmp(k->verb, verb)))
                return k;
    return NULL;
}

static void help_command(const struct cli_command *k)
{
    printf("  zbs-cli %s %s%s%s\n      %s\n", k->noun, k->verb, k->args[0] ? " " : "", k->args,
           k->help);
    for (size_t i = 0; i < ARRAY_SIZE(k->options) && k->options[i].name; i++) {
        const struct cli_option *o = &k->options[i];
        char left[64];

        snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        printf("      %-24s %s\n", left, o->help);
    }
}

enum cli_exit cli_help(const char *noun)
{
    if (noun && !cli_find(noun, NULL))
        return cli_usage_error(NULL, "unknown noun '%s'", noun);
    printf("usage: zbs-cli [--config FILE] [--json] NOUN VERB [ARGUMENT ...] [--OPTION ...]\n\n"
           "The cluster is found through --config FILE or the environment variable ZBS_CONFIG\n"
           "(default /etc/zbs/zbs.conf), whose [cluster] section names the meta servers;\n"
           "zbs-cli --print-config prints a sample.\n\n");
    for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
        for (const struct cli_command *k = tables[t]; k->noun; k++)
            if (!noun || !strcmp(noun, k->noun))
                help_command(k);
    printf("\nexit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found,\n"
           "            4 cluster not reachable, 5 replicas differ (volume verify)\n");
    return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

enum cli_exit cli_usage_error(const struct cli *c, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "zbs-cli: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (c && c->command)
        fprintf(stderr, "; see 'zbs-cli help %s'\n", c->command->noun);
    else
        fprintf(stderr, "; see 'zbs-cli help'\n");
    return CLI_USAGE;
}

const char *cli_option(const struct cli *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_options; i++)
        if (!strcmp(c->option_names[i], name))
            return c->option_values[i];
    return NULL;
}

bool cli_option_u32(const struct cli *c, const char *name, uint32_t min, uint32_t max,
                    uint32_t *ret)
{
    const char *text = cli_option(c, name);
    unsigned long long v;
    char *end;

    if (!text)
        return true;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || v < min || v > max) {
        (void)cli_usage_error(c, "--%s takes a number from %u to %u, not '%s'", name, min, max,
                              text);
        return false;
    }
    *ret = (uint32_t)v;
    return true;
}

bool cli_parse_size(const char *text, uint64_t *ret)
{
    static const char units[] = "KMGTP";
    unsigned long long v;
    unsigned shift = 0;
    char *end;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (!errno && end != text && text[0] != '-') {
        const char *u = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;

        if (u) {
            shift = 10 * (unsigned)(u - units + 1);
            end++;
        }
        if (*end == 'i')
            end++;
        if (*end == 'B')
            end++;
        if (!*end && (shift == 0 || v >> (64 - shift) == 0)) {
            *ret = v << shift;
            return true;
        }
    }
    fprintf(stderr, "zbs-cli: '%s' is not a size: write for example 4G, 512M or 1T\n", text);
    return false;
}

bool cli_parse_volume(const char *text, char pool[CLI_NAME_ROOM], char volume[CLI_NAME_ROOM])
{
    const char *slash = strchr(text, '/');
    size_t pool_len = slash ? (size_t)(slash - text) : 0;

    if (!slash || pool_len == 0 || !slash[1] || strchr(slash + 1, '/')) {
        fprintf(stderr, "zbs-cli: '%.300s' does not name a volume: write POOL/VOLUME\n", text);
        return false;
    }
    if (pool_len >= CLI_NAME_ROOM || strlen(slash + 1) >= CLI_NAME_ROOM) {
        fprintf(stderr, "zbs-cli: '%.300s': names have %d bytes at most\n", text,
                CLI_NAME_ROOM - 1);
        return false;
    }
    memcpy(pool, text, pool_len);
    pool[pool_len] = 0;
    strcpy(volume, slash + 1);
    return true;
}

/* One option of the chosen command; advances *i over its value. */
static enum cli_exit parse_option(struct cli *c, int argc, char **argv, int *i)
{
    const char *word = argv[*i] + 2, *eq = strchr(word, '=');
    size_t len = eq ? (size_t)(eq - word) : strlen(word);
    const struct cli_option *o = NULL;

    for (size_t k = 0; k < ARRAY_SIZE(c->command->options) && c->command->options[k].name; k++) {
        const struct cli_option *cand = &c->command->options[k];

        if (strlen(cand->name) == len && !memcmp(cand->name, word, len))
            o = cand;
    }
    if (!o)
        return cli_usage_error(c, "unknown option '%s'", argv[*i]);
    if (c->n_options == CLI_OPTIONS_MAX)
        return cli_usage_error(c, "too many options");
    if (o->value && !eq && *i + 1 >= argc)
        return cli_usage_error(c, "--%s needs a value", o->name);
    if (cli_option(c, o->name) && !(o->value && strstr(o->value, "...")))
        return cli_usage_error(c, "--%s is given twice", o->name);
    if (!o->value && eq)
        return cli_usage_error(c, "--%s takes no value", o->name);
    c->option_names[c->n_options] = o->name;
    c->option_values[c->n_options++] = !o->value ? "" : eq ? eq + 1 : argv[++*i];
    return CLI_OK;
}

enum cli_exit cli_parse(struct cli *c, int argc, char **argv)
{
    const char *noun = argc > 0 ? argv[0] : NULL, *verb = argc > 1 ? argv[1] : NULL;
    char two[64] = "";
    enum cli_exit rc;
    int at = 2;

    if (!noun)
        return cli_usage_error(c, "nothing to do: name a noun and a verb");
    if (!cli_find(noun, NULL))
        return cli_usage_error(c, "unknown noun '%s'", noun);
    if (argc > 2)
        snprintf(two, sizeof(two), "%s %s", verb, argv[2]);
    if (cli_find(noun, two)) {
        verb = two;
        at = 3;
    }
    if (!verb || !cli_find(noun, verb)) {
        c->command = cli_find(noun, NULL);
        return cli_usage_error(c, verb ? "'%s' has no verb '%s'" : "'%s' needs a verb", noun, verb);
    }
    c->command = cli_find(noun, verb);
    for (int i = at; i < argc; i++) {
        if (!strncmp(argv[i], "--", 2)) {
            rc = parse_option(c, argc, argv, &i);
            if (rc)
                return rc;
        } else if (c->n_args == CLI_ARGS_MAX || c->n_args == c->command->args_max) {
            return cli_usage_error(c, "'%s' is one argument too many", argv[i]);
        } else {
            c->args[c->n_args++] = argv[i];
        }
    }
    if (c->n_args < c->command->args_min)
        return cli_usage_error(c, "'%s %s' needs: %s", noun, verb, c->command->args);
    return CLI_OK;
}
