/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli setting: settings of the whole cluster, changed while it runs. */
#include <stdio.h>

#include "common/cluster/setting.h"
#include "tools/cli/cli.h"

static const struct cli_column columns[] = {
    {"name", "SETTING", CLI_TEXT},
    {"text", "VALUE", CLI_TEXT},
    {"default", "DEFAULT", CLI_TEXT},
    {"from", "FROM", CLI_TEXT},
    {"to", "TO", CLI_TEXT},
    {"help", "WHAT", CLI_TEXT},
    {0},
};

/* NULL: a setting that this program does not know. */
static json_t *setting_json(const Zbs__Meta__Setting *m)
{
    char text[32], def[32], min[32], max[32];
    const struct setting_def *d;
    int s = setting_find(m->name);

    if (s < 0)
        return NULL;
    d = &setting_defs[s];
    setting_format(d, m->value, text);
    setting_format(d, d->def, def);
    setting_format(d, d->min, min);
    setting_format(d, d->max, max);
    return json_pack("{s:s,s:I,s:s,s:s,s:s,s:s,s:s}", "name", d->name, "value",
                     (json_int_t)m->value, "text", text, "default", def, "from", min, "to", max,
                     "help", d->help);
}

static enum cli_exit setting_list(struct cli *c)
{
    Zbs__Meta__SettingListRequest q = ZBS__META__SETTING_LIST_REQUEST__INIT;
    const Zbs__Meta__SettingListReply *list;
    json_t *rows = json_array();
    struct rpc_reply r;
    enum cli_exit rc = cli_meta_call(c, META_SETTING_LIST, &q.base, &r);

    if (rc) {
        json_decref(rows);
        return rc;
    }
    list = (const Zbs__Meta__SettingListReply *)r.msg;
    for (size_t i = 0; i < list->n_settings; i++) {
        json_t *row = setting_json(list->settings[i]);

        if (row)
            json_array_append_new(rows, row);
    }
    rpc_reply_free(&r);
    return cli_print_table(c, rows, columns);
}

static enum cli_exit setting_set(struct cli *c)
{
    Zbs__Meta__SettingSetRequest q = ZBS__META__SETTING_SET_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;
    int s = setting_find(c->args[0]);

    if (s < 0) {
        fprintf(stderr, "zbs-cli: there is no setting '%s': 'zbs-cli setting list' shows them\n",
                c->args[0]);
        return CLI_NOT_FOUND;
    }
    if (setting_parse(&setting_defs[s], c->args[1], &q.value) < 0)
        return cli_usage_error(c, "%s", err_text(ERR_INVAL));
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.name = (char *)c->args[0];
    rc = cli_meta_call(c, META_SETTING_SET, &q.base, &r);
    if (rc)
        return rc;
    rc = cli_print_object(c, setting_json((const Zbs__Meta__Setting *)r.msg), columns);
    rpc_reply_free(&r);
    return rc;
}

const struct cli_command cli_setting_commands[] = {
    {"setting", "list", "", 0, 0, "lists the cluster's settings", {{0}}, setting_list},
    {"setting",
     "set",
     "NAME VALUE",
     2,
     2,
     "changes a setting of the cluster at once; VALUE 'default' as it was at first",
     {{0}},
     setting_set},
    {0},
};
