/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli iscsi and target: what initiators see. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/mem.h"
#include "tools/cli/volume.h"

#define IQN_PREFIX "iqn.2026-11.io.zbs:"
#define IQN_ROOM   224 /* RFC 7143: 223 bytes at most */

static const struct cli_column target_columns[] = {
    {"iqn", "TARGET", CLI_TEXT},
    {"lun", "LUN", CLI_TEXT},
    {"volume", "VOLUME", CLI_TEXT},
    {"chap_user", "CHAP USER", CLI_TEXT},
    {"initiators", "INITIATORS", CLI_LIST},
    {0},
};
static const struct cli_column url_columns[] = {
    {"access", "ACCESS", CLI_TEXT},
    {"portal", "PORTAL", CLI_TEXT},
    {"url", "URL", CLI_TEXT},
    {0},
};

/* A name of its own for each volume: iSCSI names have letters, digits, '-', '.' and ':' only (RFC
 * 3722). Where that or the point between pool and volume could make two volumes alike, the
 * volume's id makes the difference. */
static void default_iqn(const Zbs__Meta__Volume *v, char dst[IQN_ROOM])
{
    int len = snprintf(dst, IQN_ROOM, IQN_PREFIX "%s.%s", v->pool, v->name);
    bool plain = len < IQN_ROOM && !strchr(v->pool, '.');
    char id[32];

    for (size_t n = strlen(IQN_PREFIX); dst[n]; n++) {
        unsigned char ch = (unsigned char)dst[n];

        if (ch < 0x80 && (islower(ch) || isdigit(ch) || ch == '-' || ch == '.' || ch == ':'))
            continue;
        plain = false;
        dst[n] = ch < 0x80 && isupper(ch) ? (char)tolower(ch) : '-';
    }
    if (plain)
        return;
    snprintf(id, sizeof(id), ".%" PRIu64, v->id);
    snprintf(dst + MIN((size_t)len, IQN_ROOM - 1 - strlen(id)), strlen(id) + 1, "%s", id);
}

static enum cli_exit get_exports(struct cli *c, struct rpc_reply *r)
{
    Zbs__Meta__ExportsGetRequest q = ZBS__META__EXPORTS_GET_REQUEST__INIT;

    return cli_meta_call(c, META_EXPORTS_GET, &q.base, r);
}

static const Zbs__Meta__Target *find_target(const Zbs__Meta__ExportsGetReply *e, const char *iqn)
{
    for (size_t i = 0; i < e->n_targets; i++)
        if (!strcmp(e->targets[i]->iqn, iqn))
            return e->targets[i];
    return NULL;
}

static json_t *initiators_json(const Zbs__Meta__Target *t)
{
    json_t *list = json_array();

    for (size_t i = 0; i < t->n_initiators; i++)
        json_array_append_new(list, json_string(t->initiators[i]));
    return list;
}

/* {"iqn","lun","volume","portals":[{access,portal,url}]}: what an initiator needs. */
static json_t *export_json(const Zbs__Meta__ExportsGetReply *e, const Zbs__Meta__Target *t,
                           const Zbs__Meta__Lun *lun)
{
    json_t *portals = json_array(), *urls = json_array();
    char url[512], volume[2 * CLI_NAME_ROOM];
    json_t *portal;
    size_t n;

    for (size_t i = 0; i < e->n_accesses; i++) {
        const Zbs__Meta__AccessView *a = e->accesses[i];

        if (!a->iscsi_portal[0])
            continue;
        snprintf(url, sizeof(url), "iscsi://%s/%s/%u", a->iscsi_portal, t->iqn, lun->lun);
        json_array_append_new(portals, json_pack("{s:s,s:s,s:s,s:s}", "access", a->name, "host",
                                                 a->host, "portal", a->iscsi_portal, "url", url));
    }
    cli_sort(portals, "access");
    json_array_foreach(portals, n, portal)
    {
        json_array_append(urls, json_object_get(portal, "url"));
    }
    snprintf(volume, sizeof(volume), "%s/%s", lun->pool, lun->volume);
    return json_pack("{s:s,s:i,s:s,s:o,s:o,s:s,s:o}", "iqn", t->iqn, "lun", (int)lun->lun, "volume",
                     volume, "portals", portals, "urls", urls, "chap_user", t->chap_user,
                     "initiators", initiators_json(t));
}

static enum cli_exit print_export(struct cli *c, const char *iqn, const char *pool,
                                  const char *volume)
{
    const Zbs__Meta__ExportsGetReply *e;
    const Zbs__Meta__Target *t;
    struct rpc_reply r;
    json_t *one = NULL;
    enum cli_exit rc = get_exports(c, &r);

    if (rc)
        return rc;
    e = (const Zbs__Meta__ExportsGetReply *)r.msg;
    t = find_target(e, iqn);
    for (size_t i = 0; t && i < t->n_luns; i++)
        if (!strcmp(t->luns[i]->pool, pool) && !strcmp(t->luns[i]->volume, volume))
            one = export_json(e, t, t->luns[i]);
    rpc_reply_free(&r);
    if (!one) {
        fprintf(stderr, "zbs-cli: %s/%s is no longer exported as %s\n", pool, volume, iqn);
        return CLI_FAILED;
    }
    if (json_array_size(json_object_get(one, "portals")) == 0)
        fprintf(stderr, "zbs-cli: warning: no access server with a portal is up: 'zbs-cli access "
                        "list' shows them; initiators get there once one is\n");
    if (c->json)
        return cli_print_json(one);
    cli_print_table(c, json_incref(json_object_get(one, "portals")), url_columns);
    json_decref(one);
    return CLI_OK;
}

/* Reads a secret from a file ("-": standard input), so that it is in no process argument. */
static char *read_secret(const char *path)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "r") : stdin;
    char line[300] = "";

    if (!f) {
        fprintf(stderr, "zbs-cli: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    if (!fgets(line, sizeof(line), f))
        line[0] = 0;
    if (f != stdin)
        fclose(f);
    line[strcspn(line, "\r\n")] = 0;
    if (strlen(line) < 12 || strlen(line) > 255) {
        fprintf(stderr, "zbs-cli: %s: a CHAP secret has 12 to 255 characters\n", path);
        return NULL;
    }
    return mem_strdup(line);
}

/* Fills t from the options. false: a message was printed. */
static bool target_options(struct cli *c, Zbs__Meta__Target *t, const char *iqn, char **ret_secret)
{
    const char *user = cli_option(c, "chap-user"), *file = cli_option(c, "chap-secret-file");
    uint32_t n = 0;

    *ret_secret = NULL;
    t->iqn = (char *)iqn;
    if (!user != !file) {
        (void)cli_usage_error(c, "--chap-user and --chap-secret-file go together");
        return false;
    }
    if (user) {
        *ret_secret = read_secret(file);
        if (!*ret_secret)
            return false;
        t->chap_user = (char *)user;
        t->chap_secret = *ret_secret;
    }
    t->initiators = MEM_NEW_ARRAY(char *, CLI_OPTIONS_MAX);
    for (uint32_t i = 0; i < c->n_options; i++)
        if (!strcmp(c->option_names[i], "initiator"))
            t->initiators[n++] = (char *)c->option_values[i];
    t->n_initiators = n;
    return true;
}

static void target_options_free(Zbs__Meta__Target *t, char *secret)
{
    mem_free(secret);
    mem_free(t->initiators);
}

static enum cli_exit target_create_call(struct cli *c, const char *iqn)
{
    Zbs__Meta__TargetCreateRequest q = ZBS__META__TARGET_CREATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    Zbs__Meta__Target t = ZBS__META__TARGET__INIT;
    struct rpc_reply r;
    enum cli_exit rc;
    char *secret;

    if (!target_options(c, &t, iqn, &secret))
        return CLI_USAGE;
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.target = &t;
    rc = cli_meta_call(c, META_TARGET_CREATE, &q.base, &r);
    if (rc == CLI_OK)
        rpc_reply_free(&r);
    target_options_free(&t, secret);
    return rc;
}

static const Zbs__Meta__Lun *find_lun(const Zbs__Meta__Target *t, const char *pool,
                                      const char *volume)
{
    for (size_t i = 0; t && i < t->n_luns; i++)
        if (!strcmp(t->luns[i]->pool, pool) && !strcmp(t->luns[i]->volume, volume))
            return t->luns[i];
    return NULL;
}

/* Is there a target of this name, does it serve the volume already? What is asked for and what is
 * there must agree: a target that lets everybody in is not what --chap-user meant. */
static enum cli_exit export_look(struct cli *c, const char *iqn, const char *pool,
                                 const char *volume, bool *ret_target, bool *ret_done)
{
    const Zbs__Meta__Target *t;
    const Zbs__Meta__Lun *lun;
    struct rpc_reply r;
    enum cli_exit rc = get_exports(c, &r);
    uint32_t number = 0;

    if (rc)
        return rc;
    t = find_target((const Zbs__Meta__ExportsGetReply *)r.msg, iqn);
    lun = find_lun(t, pool, volume);
    *ret_target = t != NULL;
    *ret_done = lun != NULL;
    if (t && (cli_option(c, "chap-user") || cli_option(c, "initiator"))) {
        fprintf(stderr,
                "zbs-cli: target %s exists: 'zbs-cli target set %s' changes who may log in\n", iqn,
                iqn);
        rc = CLI_FAILED;
    } else if (lun && cli_option(c, "lun") && cli_option_u32(c, "lun", 0, 255, &number) &&
               number != lun->lun) {
        fprintf(stderr,
                "zbs-cli: %s/%s is LUN %u of %s already: 'zbs-cli iscsi unexport' ends that\n",
                pool, volume, lun->lun, iqn);
        rc = CLI_FAILED;
    }
    rpc_reply_free(&r);
    return rc;
}

static enum cli_exit lun_add(struct cli *c, const char *iqn, const char *pool, const char *volume)
{
    Zbs__Meta__LunAddRequest q = ZBS__META__LUN_ADD_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;

    if (!cli_option_u32(c, "lun", 0, 255, &q.lun))
        return CLI_USAGE;
    q.any_lun = cli_option(c, "lun") == NULL;
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.iqn = (char *)iqn;
    q.pool = (char *)pool;
    q.volume = (char *)volume;
    rc = cli_meta_call(c, META_LUN_ADD, &q.base, &r);
    if (rc == CLI_OK)
        rpc_reply_free(&r);
    return rc;
}

/* Again for a volume that is exported so already: prints the same. */
static enum cli_exit iscsi_export(struct cli *c)
{
    const char *target = cli_option(c, "target");
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM], iqn[IQN_ROOM];
    struct rpc_reply r;
    uint32_t lun = 0;
    enum cli_exit rc;
    bool exists, done;

    if (!cli_parse_volume(c->args[0], pool, volume) || !cli_option_u32(c, "lun", 0, 255, &lun))
        return CLI_USAGE;
    if (target && strlen(target) >= sizeof(iqn))
        return cli_usage_error(c, "a target's name has %d bytes at most", IQN_ROOM - 1);
    rc = volume_get(c, c->args[0], &r);
    if (rc)
        return rc;
    default_iqn((const Zbs__Meta__Volume *)r.msg, iqn);
    rpc_reply_free(&r);
    if (target)
        snprintf(iqn, sizeof(iqn), "%s", target);
    rc = export_look(c, iqn, pool, volume, &exists, &done);
    if (rc == CLI_OK && !exists)
        rc = target_create_call(c, iqn);
    if (rc == CLI_OK && !done)
        rc = lun_add(c, iqn, pool, volume);
    return rc ? rc : print_export(c, iqn, pool, volume);
}

static enum cli_exit iscsi_show(struct cli *c)
{
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM], iqn[IQN_ROOM] = "";
    const Zbs__Meta__ExportsGetReply *e;
    struct rpc_reply r;
    enum cli_exit rc;

    if (!cli_parse_volume(c->args[0], pool, volume))
        return CLI_USAGE;
    rc = get_exports(c, &r);
    if (rc)
        return rc;
    e = (const Zbs__Meta__ExportsGetReply *)r.msg;
    for (size_t i = 0; i < e->n_targets; i++)
        for (size_t k = 0; k < e->targets[i]->n_luns; k++)
            if (!strcmp(e->targets[i]->luns[k]->pool, pool) &&
                !strcmp(e->targets[i]->luns[k]->volume, volume))
                snprintf(iqn, sizeof(iqn), "%s", e->targets[i]->iqn);
    rpc_reply_free(&r);
    if (!iqn[0]) {
        fprintf(stderr, "zbs-cli: %s is not exported: 'zbs-cli iscsi export %s' does that\n",
                c->args[0], c->args[0]);
        return CLI_NOT_FOUND;
    }
    return print_export(c, iqn, pool, volume);
}

static enum cli_exit lun_remove(struct cli *c, const char *iqn, uint32_t lun)
{
    Zbs__Meta__LunRemoveRequest q = ZBS__META__LUN_REMOVE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;

    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.iqn = (char *)iqn;
    q.lun = lun;
    rc = cli_meta_call(c, META_LUN_REMOVE, &q.base, &r);
    if (rc == CLI_OK)
        rpc_reply_free(&r);
    return rc;
}

static enum cli_exit target_remove(struct cli *c, const char *iqn)
{
    Zbs__Meta__TargetDeleteRequest q = ZBS__META__TARGET_DELETE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;

    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.iqn = (char *)iqn;
    rc = cli_meta_call(c, META_TARGET_DELETE, &q.base, &r);
    if (rc == CLI_OK)
        rpc_reply_free(&r);
    return rc;
}

/* Takes the volume's LUNs from one target. One that is then empty goes, too, if it was made for
 * this volume alone. */
static enum cli_exit target_unexport(struct cli *c, const Zbs__Meta__Target *t,
                                     const Zbs__Meta__Volume *v, uint32_t *removed)
{
    uint32_t left = (uint32_t)t->n_luns;
    enum cli_exit rc = CLI_OK;
    char iqn[IQN_ROOM];

    for (size_t k = 0; k < t->n_luns && rc == CLI_OK; k++) {
        if (strcmp(t->luns[k]->pool, v->pool) || strcmp(t->luns[k]->volume, v->name))
            continue;
        rc = lun_remove(c, t->iqn, t->luns[k]->lun);
        ++*removed;
        left--;
    }
    if (rc || left > 0 || t->n_luns == 0)
        return rc;
    default_iqn(v, iqn);
    if (!strcmp(t->iqn, iqn))
        return target_remove(c, t->iqn);
    fprintf(stderr, "zbs-cli: target %s is empty now: 'zbs-cli target delete %s' removes it\n",
            t->iqn, t->iqn);
    return CLI_OK;
}

static enum cli_exit iscsi_unexport(struct cli *c)
{
    const Zbs__Meta__ExportsGetReply *e;
    struct rpc_reply r, vr;
    uint32_t removed = 0;
    enum cli_exit rc = volume_get(c, c->args[0], &vr);

    if (rc)
        return rc;
    rc = get_exports(c, &r);
    if (rc) {
        rpc_reply_free(&vr);
        return rc;
    }
    e = (const Zbs__Meta__ExportsGetReply *)r.msg;
    for (size_t i = 0; i < e->n_targets && rc == CLI_OK; i++)
        rc = target_unexport(c, e->targets[i], (const Zbs__Meta__Volume *)vr.msg, &removed);
    rpc_reply_free(&r);
    rpc_reply_free(&vr);
    if (rc == CLI_OK && removed == 0) {
        fprintf(stderr, "zbs-cli: %s is not exported\n", c->args[0]);
        return CLI_NOT_FOUND;
    }
    return cli_done(c, rc, NULL);
}

static enum cli_exit target_list(struct cli *c)
{
    const Zbs__Meta__ExportsGetReply *e;
    struct rpc_reply r;
    json_t *rows;
    enum cli_exit rc = get_exports(c, &r);

    if (rc)
        return rc;
    e = (const Zbs__Meta__ExportsGetReply *)r.msg;
    rows = json_array();
    for (size_t i = 0; i < e->n_targets; i++) {
        const Zbs__Meta__Target *t = e->targets[i];

        for (size_t k = 0; k < t->n_luns; k++)
            json_array_append_new(rows, export_json(e, t, t->luns[k]));
        if (t->n_luns == 0)
            json_array_append_new(rows, json_pack("{s:s,s:s,s:o}", "iqn", t->iqn, "chap_user",
                                                  t->chap_user, "initiators", initiators_json(t)));
    }
    rpc_reply_free(&r);
    return cli_print_table(c, rows, target_columns);
}

static enum cli_exit target_create(struct cli *c)
{
    return cli_done(c, target_create_call(c, c->args[0]), NULL);
}

static enum cli_exit target_set(struct cli *c)
{
    Zbs__Meta__TargetUpdateRequest q = ZBS__META__TARGET_UPDATE_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    Zbs__Meta__Target t = ZBS__META__TARGET__INIT;
    struct rpc_reply r;
    enum cli_exit rc;
    char *secret;

    if (!target_options(c, &t, c->args[0], &secret))
        return CLI_USAGE;
    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.target = &t;
    rc = cli_meta_call(c, META_TARGET_UPDATE, &q.base, &r);
    target_options_free(&t, secret);
    return cli_done(c, rc, &r);
}

static enum cli_exit target_delete(struct cli *c)
{
    const Zbs__Meta__Target *t;
    struct rpc_reply r;
    enum cli_exit rc = get_exports(c, &r);
    size_t luns;

    if (rc)
        return rc;
    t = find_target((const Zbs__Meta__ExportsGetReply *)r.msg, c->args[0]);
    luns = t ? t->n_luns : 0;
    rpc_reply_free(&r);
    if (luns > 0 && !cli_option(c, "yes"))
        return cli_usage_error(c, "initiators lose %zu LUN%s with %s: say --yes", luns,
                               luns == 1 ? "" : "s", c->args[0]);
    rc = target_remove(c, c->args[0]);
    return cli_done(c, rc, NULL);
}

#define TARGET_OPTIONS                                                                             \
    {"chap-user", "NAME", "initiators log in with CHAP"},                                          \
        {"chap-secret-file", "FILE", "where the secret is; - for standard input"},                 \
    {                                                                                              \
        "initiator", "IQN...", "only this initiator may log in; can be given several times"        \
    }

const struct cli_command cli_iscsi_commands[] = {
    {"iscsi",
     "export",
     "POOL/VOLUME",
     1,
     1,
     "makes a volume reachable and prints its URLs, one per access server",
     {{"target", "IQN", "default: a target of its own, named after the volume"},
      {"lun", "N", "default: the lowest free one"},
      TARGET_OPTIONS},
     iscsi_export},
    {"iscsi", "show", "POOL/VOLUME", 1, 1, "prints an exported volume's URLs", {{0}}, iscsi_show},
    {"iscsi",
     "unexport",
     "POOL/VOLUME",
     1,
     1,
     "takes it away from initiators",
     {{0}},
     iscsi_unexport},
    {"iscsi",
     "sessions",
     "",
     0,
     0,
     "lists who is logged in from where, through which access server, and how much I/O it did",
     {{0}},
     cli_iscsi_sessions},
    {"target", "list", "", 0, 0, "lists targets and their LUNs", {{0}}, target_list},
    {"target", "create", "IQN", 1, 1, "creates an empty target", {TARGET_OPTIONS}, target_create},
    {"target",
     "set",
     "IQN",
     1,
     1,
     "replaces a target's CHAP user and allowed initiators by those given",
     {TARGET_OPTIONS},
     target_set},
    {"target",
     "delete",
     "IQN",
     1,
     1,
     "deletes a target; its volumes stay",
     {{"yes", NULL, "also if it has LUNs"}},
     target_delete},
    {0},
};
