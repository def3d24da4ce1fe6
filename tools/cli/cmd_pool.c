/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli pool. */
#include <stdio.h>

#include "tools/cli/cli.h"
#include "tools/cli/limits.h"

static const struct cli_column columns[] = {
    {"name", "POOL", CLI_TEXT},
    {"replicas", "REPLICAS", CLI_TEXT},
    {"min_replicas", "MIN", CLI_TEXT},
    {"failure_domain", "DOMAIN", CLI_TEXT},
    {"volumes", "VOLUMES", CLI_TEXT},
    {"size_bytes", "PROVISIONED", CLI_SIZE},
    {0},
};

static const struct cli_column show_columns[] = {
    {"name", "pool", CLI_TEXT},
    {"replicas", "replicas", CLI_TEXT},
    {"min_replicas", "min replicas", CLI_TEXT},
    {"failure_domain", "failure domain", CLI_TEXT},
    {"volumes", "volumes", CLI_TEXT},
    {"size_bytes", "provisioned", CLI_SIZE},
    LIMIT_COLUMNS,
    {0},
};

static json_t *pool_json(const Zbs__Meta__Pool *p)
{
    json_t *o =
        json_pack("{s:s,s:i,s:i,s:s,s:i,s:I}", "name", p->name, "replicas", (int)p->replicas,
                  "min_replicas", (int)p->min_replicas, "failure_domain", p->failure_domain,
                  "volumes", (int)p->volumes, "size_bytes", (json_int_t)p->size_bytes);

    limits_json(o, p->limits);
    return o;
}

static enum cli_exit pool_create(struct cli *c)
{
    Zbs__Meta__PoolCreateRequest q = ZBS__META__POOL_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;
    const char *domain = cli_option(c, "failure-domain");

    q.replicas = 3;
    if (!cli_option_u32(c, "replicas", 1, 5, &q.replicas) ||
        !cli_option_u32(c, "min-replicas", 1, 5, &q.min_replicas))
        return CLI_USAGE;
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.name = (char *)c->args[0];
    q.failure_domain = (char *)(domain ? domain : "");
    rc = cli_meta_call(c, META_POOL_CREATE, &q.base, &r);
    if (rc)
        return rc;
    cli_warn_placement(c, q.replicas, ((const Zbs__Meta__Pool *)r.msg)->failure_domain, NULL);
    rc = cli_print_object(c, pool_json((const Zbs__Meta__Pool *)r.msg), columns);
    rpc_reply_free(&r);
    return rc;
}

static enum cli_exit get_pools(struct cli *c, const char *name, json_t **ret)
{
    Zbs__Meta__PoolListRequest q = ZBS__META__POOL_LIST_REQUEST__INIT;
    const Zbs__Meta__PoolListReply *list;
    struct rpc_reply r;
    enum cli_exit rc;

    q.name = (char *)name;
    rc = cli_meta_call(c, META_POOL_LIST, &q.base, &r);
    if (rc)
        return rc;
    list = (const Zbs__Meta__PoolListReply *)r.msg;
    *ret = json_array();
    for (size_t i = 0; i < list->n_pools; i++)
        json_array_append_new(*ret, pool_json(list->pools[i]));
    rpc_reply_free(&r);
    return CLI_OK;
}

static enum cli_exit pool_list(struct cli *c)
{
    json_t *rows;
    enum cli_exit rc = get_pools(c, "", &rows);

    return rc ? rc : cli_print_table(c, rows, columns);
}

static enum cli_exit pool_show(struct cli *c)
{
    json_t *rows, *one;
    enum cli_exit rc = get_pools(c, c->args[0], &rows);

    if (rc)
        return rc;
    one = json_incref(json_array_get(rows, 0));
    json_decref(rows);
    if (!one) {
        fprintf(stderr, "zbs-cli: there is no pool '%s': 'zbs-cli pool list' shows them\n",
                c->args[0]);
        return CLI_NOT_FOUND;
    }
    return cli_print_object(c, one, show_columns);
}

static enum cli_exit pool_set(struct cli *c)
{
    Zbs__Meta__PoolSetRequest q = ZBS__META__POOL_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    const char *domain = cli_option(c, "failure-domain");
    struct limits_change limits;
    struct rpc_reply r;
    enum cli_exit rc;

    if (!cli_option_u32(c, "replicas", 1, 5, &q.replicas) ||
        !cli_option_u32(c, "min-replicas", 1, 5, &q.min_replicas) || !limits_options(c, &limits))
        return CLI_USAGE;
    if (c->n_options == 0)
        return cli_usage_error(c, "nothing is to be set");
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.name = (char *)c->args[0];
    q.failure_domain = (char *)(domain ? domain : "");
    q.limits = &limits.msg;
    rc = cli_meta_call(c, META_POOL_SET, &q.base, &r);
    if (rc)
        return rc;
    rc = cli_print_object(c, pool_json((const Zbs__Meta__Pool *)r.msg), show_columns);
    rpc_reply_free(&r);
    return rc;
}

static enum cli_exit pool_delete(struct cli *c)
{
    Zbs__Meta__PoolDeleteRequest q = ZBS__META__POOL_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;

    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.name = (char *)c->args[0];
    return cli_done(c, cli_meta_call(c, META_POOL_DELETE, &q.base, &r), &r);
}

const struct cli_command cli_pool_commands[] = {
    {"pool",
     "create",
     "POOL",
     1,
     1,
     "creates a pool",
     {{"replicas", "N", "copies of every byte, 1 to 5 (default 3)"},
      {"min-replicas", "N", "fewest copies that a write is acknowledged with (default N - 1)"},
      {"failure-domain", "WHAT", "host (default), rack or zone: never two copies in one"}},
     pool_create},
    {"pool", "list", "", 0, 0, "lists pools", {{0}}, pool_list},
    {"pool", "show", "POOL", 1, 1, "shows one pool", {{0}}, pool_show},
    {"pool",
     "set",
     "POOL",
     1,
     1,
     "changes a pool's policy, and that of its volumes that have no other",
     {{"replicas", "N", "copies of every byte, 1 to 5"},
      {"min-replicas", "N", "fewest copies that a write is acknowledged with"},
      {"failure-domain", "WHAT", "host, rack or zone, for what is placed from now on"},
      LIMIT_OPTIONS},
     pool_set},
    {"pool", "delete", "POOL", 1, 1, "deletes an empty pool", {{0}}, pool_delete},
    {0},
};
