/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli volume: create, list, show, set, move, resize, rename, delete, map. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/cluster/layout.h"
#include "tools/cli/cli.h"
#include "tools/cli/limits.h"
#include "tools/cli/volume.h"

#define VOLUME_ROUND 4096u /* sizes are rounded up to whole pages */

static const struct cli_column columns[] = {
    {"pool", "POOL", CLI_TEXT},
    {"name", "VOLUME", CLI_TEXT},
    {"size_bytes", "SIZE", CLI_SIZE},
    {"replicas", "REPLICAS", CLI_TEXT},
    {"extents", "EXTENTS", CLI_TEXT},
    {"extents_degraded", "DEGRADED", CLI_TEXT},
    {"provisioning", "PROVISIONING", CLI_TEXT},
    {0},
};
static const struct cli_column show_columns[] = {
    {"pool", "pool", CLI_TEXT},
    {"name", "volume", CLI_TEXT},
    {"id", "id", CLI_TEXT},
    {"uuid", "uuid", CLI_TEXT},
    {"size_bytes", "size", CLI_SIZE},
    {"replicas", "replicas", CLI_TEXT},
    {"min_replicas", "min replicas", CLI_TEXT},
    {"stripe_count", "stripes", CLI_TEXT},
    {"stripe_bytes", "stripe size", CLI_SIZE},
    {"preferred_host", "preferred host", CLI_TEXT},
    {"extents", "extents", CLI_TEXT},
    {"extents_degraded", "extents degraded", CLI_TEXT},
    {"snapshot", "snapshot", CLI_BOOL},
    {"importing", "being imported", CLI_BOOL},
    {"flattening", "being flattened", CLI_BOOL},
    {"provisioning", "provisioning", CLI_TEXT},
    {"provisioning_progress", "of that done", CLI_TEXT},
    {"origin_id", "origin id", CLI_TEXT},
    {"inode_id", "file's inode", CLI_TEXT},
    {"created", "created", CLI_TEXT},
    LIMIT_COLUMNS,
    {0},
};
static const struct cli_column map_columns[] = {
    {"slot", "SLOT", CLI_TEXT},       {"extent", "EXTENT", CLI_TEXT},
    {"epoch", "EPOCH", CLI_TEXT},     {"set_number", "SET", CLI_TEXT},
    {"in_sync", "IN-SYNC", CLI_LIST}, {"absent", "ABSENT", CLI_LIST},
    {"owner", "OWNER", CLI_TEXT},     {0},
};

/* An older leader says nothing of it. */
static void provisioning_json(json_t *o, const Zbs__Meta__Volume *v)
{
    static const Zbs__Meta__Provisioning none = ZBS__META__PROVISIONING__INIT;
    const Zbs__Meta__Provisioning *p = v->provisioning ? v->provisioning : &none;
    struct layout l = {v->stripe_count, v->stripe_bytes};
    uint32_t slots = v->stripe_count > 0 ? layout_slots(&l, v->size_bytes) : 0;
    uint32_t done = p->pass != 0 ? MIN(p->next_slot, slots) : slots;

    json_object_set_new(o, "provisioning", json_string(p->thick ? "thick" : "thin"));
    json_object_set_new(o, "provisioned", json_boolean(p->pass == 0));
    json_object_set_new(o, "provisioned_slots", json_integer(done));
    json_object_set_new(o, "slots", json_integer(slots));
    json_object_set_new(o, "no_space", json_boolean(p->no_space));
    if (p->pass != 0)
        json_object_set_new(o, "provisioning_progress",
                            json_sprintf("%u of %u extents%s", done, slots,
                                         p->no_space ? "; no disk has room for the next" : ""));
}

json_t *volume_json(const Zbs__Meta__Volume *v)
{
    time_t created = (time_t)(v->created_ns / NSEC_PER_SEC);
    char uuid[33] = "", when[32] = "";
    struct tm tm;
    json_t *o;

    for (size_t i = 0; i < v->uuid.len && i < 16; i++)
        snprintf(uuid + 2 * i, 3, "%02x", v->uuid.data[i]);
    o = json_pack("{s:s,s:s,s:I,s:s,s:I,s:i,s:i,s:i,s:i,s:s,s:i,s:i}", "pool", v->pool, "name",
                  v->name, "id", (json_int_t)v->id, "uuid", uuid, "size_bytes",
                  (json_int_t)v->size_bytes, "replicas", (int)v->replicas, "min_replicas",
                  (int)v->min_replicas, "stripe_count", (int)v->stripe_count, "stripe_bytes",
                  (int)v->stripe_bytes, "preferred_host", v->preferred_host, "extents",
                  (int)v->extents, "extents_degraded", (int)v->extents_degraded);
    if (v->created_ns != 0 && gmtime_r(&created, &tm) != NULL)
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_object_set_new(o, "created", json_string(when));
    json_object_set_new(o, "snapshot", json_boolean(v->snapshot));
    json_object_set_new(o, "flattening", json_boolean(v->flattening));
    provisioning_json(o, v);
    json_object_set_new(o, "importing", json_boolean(v->importing != 0));
    json_object_set_new(o, "origin_id", json_integer((json_int_t)v->origin_id));
    if (v->inode_id != 0)
        json_object_set_new(o, "inode_id", json_integer((json_int_t)v->inode_id));
    limits_json(o, v->limits);
    return o;
}

enum cli_exit volume_get(struct cli *c, const char *name, struct rpc_reply *r)
{
    Zbs__Meta__VolumeGetRequest q = ZBS__META__VOLUME_GET_REQUEST__INIT;
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM];

    if (!cli_parse_volume(name, pool, volume))
        return CLI_USAGE;
    q.pool = pool;
    q.name = volume;
    return cli_meta_call(c, META_VOLUME_GET, &q.base, r);
}

enum cli_exit volume_map_page(struct cli *c, const Zbs__Meta__Volume *v, uint32_t first_slot,
                              struct rpc_reply *r)
{
    Zbs__Meta__VolumeMapRequest q = ZBS__META__VOLUME_MAP_REQUEST__INIT;

    q.pool = v->pool;
    q.name = v->name;
    q.first_slot = first_slot;
    q.max = 256;
    return cli_meta_call(c, META_VOLUME_MAP, &q.base, r);
}

/* The reply of a mutation is the volume as it is now. */
enum cli_exit volume_print(struct cli *c, enum cli_exit rc, struct rpc_reply *r)
{
    if (rc)
        return rc;
    rc = cli_print_object(c, volume_json((const Zbs__Meta__Volume *)r->msg), show_columns);
    rpc_reply_free(r);
    return rc;
}

bool volume_change_begin(struct cli *c, struct volume_change *ret)
{
    meta_client_mutation(c->meta, &ret->mutation);
    return cli_parse_volume(c->args[0], ret->pool, ret->name);
}

static bool size_argument(struct cli *c, const char *text, uint64_t *ret)
{
    if (!text) {
        (void)cli_usage_error(c, "--size is needed");
        return false;
    }
    if (!cli_parse_size(text, ret))
        return false;
    *ret = ROUND_UP(*ret, VOLUME_ROUND);
    return true;
}

static enum cli_exit volume_create(struct cli *c)
{
    Zbs__Meta__VolumeCreateRequest q = ZBS__META__VOLUME_CREATE_REQUEST__INIT;
    const char *host = cli_option(c, "host"), *stripe = cli_option(c, "stripe-size");
    struct volume_change v;
    uint64_t stripe_bytes = 0;
    struct rpc_reply r;
    enum cli_exit rc;

    if (!volume_change_begin(c, &v) || !size_argument(c, cli_option(c, "size"), &q.size_bytes) ||
        !cli_option_u32(c, "replicas", 1, 5, &q.replicas) ||
        !cli_option_u32(c, "stripes", 1, 64, &q.stripe_count) ||
        (stripe && !cli_parse_size(stripe, &stripe_bytes)))
        return CLI_USAGE;
    if (stripe_bytes > UINT32_MAX)
        return cli_usage_error(c, "--stripe-size is too large");
    VOLUME_CHANGE(&q, &v);
    q.stripe_bytes = (uint32_t)stripe_bytes;
    q.preferred_host = (char *)(host ? host : "");
    q.thick = cli_option(c, "thick") != NULL;
    rc = cli_meta_call(c, META_VOLUME_CREATE, &q.base, &r);
    if (rc == CLI_OK)
        cli_warn_placement(c, q.replicas, "host", host);
    return volume_print(c, rc, &r);
}

enum cli_exit volumes_each(struct cli *c, const char *pool,
                           void (*fn)(void *arg, const Zbs__Meta__Volume *v), void *arg)
{
    char after_pool[CLI_NAME_ROOM] = "", after_name[CLI_NAME_ROOM] = "";
    Zbs__Meta__VolumeListRequest q = ZBS__META__VOLUME_LIST_REQUEST__INIT;
    bool more = true;

    q.pool = (char *)pool;
    q.after_pool = after_pool;
    q.after_name = after_name;
    while (more) {
        const Zbs__Meta__VolumeListReply *page;
        struct rpc_reply r;
        enum cli_exit rc = cli_meta_call(c, META_VOLUME_LIST, &q.base, &r);

        if (rc)
            return rc;
        page = (const Zbs__Meta__VolumeListReply *)r.msg;
        for (size_t i = 0; i < page->n_volumes; i++)
            fn(arg, page->volumes[i]);
        more = page->more && page->n_volumes > 0;
        if (more) {
            const Zbs__Meta__Volume *last = page->volumes[page->n_volumes - 1];

            snprintf(after_pool, sizeof(after_pool), "%s", last->pool);
            snprintf(after_name, sizeof(after_name), "%s", last->name);
        }
        rpc_reply_free(&r);
    }
    return CLI_OK;
}

static void list_row(void *arg, const Zbs__Meta__Volume *v)
{
    json_array_append_new(arg, volume_json(v));
}

static enum cli_exit volume_list(struct cli *c)
{
    json_t *rows = json_array();
    enum cli_exit rc = volumes_each(c, c->n_args ? c->args[0] : "", list_row, rows);

    if (rc == CLI_OK)
        return cli_print_table(c, rows, columns);
    json_decref(rows);
    return rc;
}

static enum cli_exit volume_show(struct cli *c)
{
    struct rpc_reply r;

    return volume_print(c, volume_get(c, c->args[0], &r), &r);
}

static enum cli_exit volume_resize(struct cli *c)
{
    Zbs__Meta__VolumeResizeRequest q = ZBS__META__VOLUME_RESIZE_REQUEST__INIT;
    struct volume_change v;
    struct rpc_reply r;

    if (!volume_change_begin(c, &v) || !size_argument(c, cli_option(c, "size"), &q.size_bytes))
        return CLI_USAGE;
    VOLUME_CHANGE(&q, &v);
    q.discard = cli_option(c, "yes") != NULL;
    return volume_print(c, cli_meta_call(c, META_VOLUME_RESIZE, &q.base, &r), &r);
}

static bool thickness_option(struct cli *c, Zbs__Meta__Thickness *ret)
{
    const char *text = cli_option(c, "provisioning");

    if (!text)
        return true;
    if (!strcmp(text, "thick"))
        *ret = ZBS__META__THICKNESS__THICKNESS_THICK;
    else if (!strcmp(text, "thin"))
        *ret = ZBS__META__THICKNESS__THICKNESS_THIN;
    else
        (void)cli_usage_error(c, "--provisioning is thick or thin, not '%s'", text);
    return *ret != ZBS__META__THICKNESS__THICKNESS_SAME;
}

static enum cli_exit volume_set(struct cli *c)
{
    Zbs__Meta__VolumeSetRequest q = ZBS__META__VOLUME_SET_REQUEST__INIT;
    struct volume_change v;
    struct limits_change limits;
    struct rpc_reply r;

    if (!volume_change_begin(c, &v) || !cli_option_u32(c, "replicas", 1, 5, &q.replicas) ||
        !cli_option_u32(c, "min-replicas", 1, 5, &q.min_replicas) || !limits_options(c, &limits) ||
        !thickness_option(c, &q.thickness))
        return CLI_USAGE;
    if (c->n_options == 0)
        return cli_usage_error(c, "nothing is to be set");
    VOLUME_CHANGE(&q, &v);
    q.limits = &limits.msg;
    return volume_print(c, cli_meta_call(c, META_VOLUME_SET, &q.base, &r), &r);
}

static enum cli_exit volume_move(struct cli *c)
{
    Zbs__Meta__VolumeMoveRequest q = ZBS__META__VOLUME_MOVE_REQUEST__INIT;
    struct volume_change v;
    struct rpc_reply r;

    if (!volume_change_begin(c, &v))
        return CLI_USAGE;
    VOLUME_CHANGE(&q, &v);
    q.to_pool = (char *)c->args[1];
    return volume_print(c, cli_meta_call(c, META_VOLUME_MOVE, &q.base, &r), &r);
}

static enum cli_exit volume_rename(struct cli *c)
{
    Zbs__Meta__VolumeRenameRequest q = ZBS__META__VOLUME_RENAME_REQUEST__INIT;
    struct volume_change v;
    struct rpc_reply r;

    if (!volume_change_begin(c, &v))
        return CLI_USAGE;
    VOLUME_CHANGE(&q, &v);
    q.new_name = (char *)c->args[1];
    return volume_print(c, cli_meta_call(c, META_VOLUME_RENAME, &q.base, &r), &r);
}

static enum cli_exit volume_delete(struct cli *c)
{
    Zbs__Meta__VolumeDeleteRequest q = ZBS__META__VOLUME_DELETE_REQUEST__INIT;
    struct volume_change v;
    struct rpc_reply r;

    if (!volume_change_begin(c, &v))
        return CLI_USAGE;
    if (!cli_option(c, "yes"))
        return cli_usage_error(c, "deleting %s destroys its data: say --yes", c->args[0]);
    VOLUME_CHANGE(&q, &v);
    return cli_done(c, cli_meta_call(c, META_VOLUME_DELETE, &q.base, &r), &r);
}

static json_t *ids_json(const uint32_t *ids, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static enum cli_exit volume_map(struct cli *c)
{
    struct rpc_reply vr, r;
    enum cli_exit rc = volume_get(c, c->args[0], &vr);
    const Zbs__Meta__VolumeMapReply *map;
    json_t *rows;
    uint32_t slot = 0;
    bool more = true;

    if (rc)
        return rc;
    rows = json_array();
    while (more) {
        rc = volume_map_page(c, (const Zbs__Meta__Volume *)vr.msg, slot, &r);
        if (rc)
            break;
        map = (const Zbs__Meta__VolumeMapReply *)r.msg;
        for (size_t i = 0; i < map->n_extents; i++) {
            const Zbs__Meta__ExtentView *e = map->extents[i];

            json_array_append_new(rows, json_pack("{s:i,s:I,s:I,s:I,s:o,s:o,s:s,s:b}", "slot",
                                                  (int)e->slot, "extent", (json_int_t)e->extent_id,
                                                  "epoch", (json_int_t)e->epoch, "set_number",
                                                  (json_int_t)e->set_number, "in_sync",
                                                  ids_json(e->members, e->n_members), "absent",
                                                  ids_json(e->absent, e->n_absent), "owner",
                                                  e->owner, "created", e->created));
        }
        more = map->more && map->next_slot > slot;
        slot = map->next_slot;
        rpc_reply_free(&r);
    }
    rpc_reply_free(&vr);
    if (rc) {
        json_decref(rows);
        return rc;
    }
    return cli_print_table(c, rows, map_columns);
}

const struct cli_command cli_volume_commands[] = {
    {"volume",
     "create",
     "POOL/VOLUME",
     1,
     1,
     "creates a volume",
     {{"size", "SIZE", "for example 4G; at most 64T"},
      {"replicas", "N", "copies (default: the pool's)"},
      {"thick", NULL, "all its space is promised: writes never lack any (default: thin)"},
      {"host", "HOST", "where most of its I/O will come from"},
      {"stripes", "N", "extents that one stream is spread over (default 4)"},
      {"stripe-size", "SIZE", "default 256K"}},
     volume_create},
    {"volume",
     "clone",
     "POOL/VOLUME@SNAPSHOT POOL/NEW",
     2,
     2,
     "makes a volume that begins as a snapshot",
     {{0}},
     volume_clone},
    {"volume",
     "flatten",
     "POOL/VOLUME",
     1,
     1,
     "gives it blocks of its own, in the background: it shares none with snapshots, clones, its "
     "origin",
     {{"watch", NULL, "shows how far it is, until it is done"},
      {"cancel", NULL, "ends that; what was done stays"}},
     volume_flatten},
    {"volume", "list", "[POOL]", 0, 1, "lists volumes", {{0}}, volume_list},
    {"volume", "show", "POOL/VOLUME", 1, 1, "shows one volume", {{0}}, volume_show},
    {"volume",
     "resize",
     "POOL/VOLUME",
     1,
     1,
     "makes a volume larger or smaller",
     {{"size", "SIZE", "the new size"},
      {"yes", NULL, "what lies beyond a smaller size may be lost"}},
     volume_resize},
    {"volume",
     "set",
     "POOL/VOLUME",
     1,
     1,
     "changes a volume's policy while it is used",
     {{"replicas", "N", "copies, 1 to 5: added and removed in the background"},
      {"min-replicas", "N", "fewest copies that a write is acknowledged with"},
      {"provisioning", "thick|thin", "is all its space promised? done in the background"},
      LIMIT_OPTIONS},
     volume_set},
    {"volume",
     "move",
     "POOL/VOLUME POOL",
     2,
     2,
     "moves a volume to another pool",
     {{0}},
     volume_move},
    {"volume", "rename", "POOL/VOLUME NEW-NAME", 2, 2, "renames a volume", {{0}}, volume_rename},
    {"volume",
     "delete",
     "POOL/VOLUME",
     1,
     1,
     "deletes a volume and its data",
     {{"yes", NULL, "really"}},
     volume_delete},
    {"volume", "map", "POOL/VOLUME", 1, 1, "shows where its extents live", {{0}}, volume_map},
    {"volume",
     "verify",
     "POOL/VOLUME",
     1,
     1,
     "compares all in-sync replicas, page by page",
     {{0}},
     volume_verify},
    {0},
};
