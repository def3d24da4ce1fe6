/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli volume verify: has each extent's owner compare its replicas page by page. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/access.pb-c.h"
#include "tools/cli/volume.h"

#define VERIFY_METHOD   2   /* position in proto/access.proto */
#define VERIFY_SECONDS  120 /* for one extent */
#define VERIFY_ATTEMPTS 10  /* ownership may move between looking and asking */
#define ACCESSES_MAX    64

struct verify {
    struct cli *c;
    uint64_t volume_id;
    struct rpc_client *clients[ACCESSES_MAX];
    char names[ACCESSES_MAX][64];
    uint32_t n_clients;
    uint64_t pages, replicas, mismatches;
    uint32_t extents, incomplete;
    json_t *places;
};

/* Connects (lazily) to every access server. */
static enum cli_exit find_accesses(struct verify *v)
{
    Zbs__Meta__ClusterStatusRequest q = ZBS__META__CLUSTER_STATUS_REQUEST__INIT;
    const Zbs__Meta__ClusterStatusReply *s;
    struct rpc_reply r;
    enum cli_exit rc = cli_meta_call(v->c, META_CLUSTER_STATUS, &q.base, &r);

    if (rc)
        return rc;
    s = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    for (size_t i = 0; i < s->n_accesses && v->n_clients < ACCESSES_MAX; i++) {
        snprintf(v->names[v->n_clients], sizeof(v->names[0]), "%s", s->accesses[i]->name);
        v->clients[v->n_clients++] = rpc_client_new(&(struct rpc_client_conf){
            .addr = s->accesses[i]->addr, .self = "zbs-cli", .cluster_id = ""});
    }
    rpc_reply_free(&r);
    if (v->n_clients == 0) {
        fprintf(stderr, "zbs-cli: no access server is up: start one to verify through it\n");
        return CLI_UNREACHABLE;
    }
    return CLI_OK;
}

static void add_result(struct verify *v, const Zbs__Access__VerifyReply *reply)
{
    v->pages += reply->pages;
    v->replicas += reply->replicas;
    v->extents += reply->extents;
    v->incomplete += reply->incomplete;
    v->mismatches += reply->mismatch_count;
    for (size_t i = 0; i < reply->n_mismatches; i++) {
        const Zbs__Access__VerifyMismatch *m = reply->mismatches[i];

        json_array_append_new(v->places, json_pack("{s:i,s:I,s:i}", "slot", (int)m->slot, "extent",
                                                   (json_int_t)m->extent_id, "page", (int)m->page));
    }
}

/* Asks the owner first, then the others in turn. */
static enum cli_exit verify_slot(struct verify *v, uint32_t slot, const char *owner)
{
    Zbs__Access__VerifyRequest q = ZBS__ACCESS__VERIFY_REQUEST__INIT;
    uint32_t at = 0;
    int err = ERR_UNREACHABLE;

    for (uint32_t i = 0; i < v->n_clients; i++)
        if (!strcmp(v->names[i], owner))
            at = i;
    q.volume_id = v->volume_id;
    q.first_slot = slot;
    q.count = 1;
    for (uint32_t i = 0; i < VERIFY_ATTEMPTS && v->n_clients > 0;
         i++, at = (at + 1) % v->n_clients) {
        nsec_t former = co_deadline_push(co_now() + VERIFY_SECONDS * NSEC_PER_SEC);
        struct rpc_reply r;

        rpc_reply_init(&r);
        err = rpc_call(v->clients[at], &zbs__access__access__descriptor, VERIFY_METHOD, &q.base,
                       NULL, &r);
        co_deadline_restore(former);
        /* Who is not the owner (any more) has looked at nothing. */
        if (err == 0 && ((const Zbs__Access__VerifyReply *)r.msg)->extents == 0)
            err = err_set(ERR_NOT_OWNER, "extent slot %u moves from owner to owner", slot);
        if (err == 0)
            add_result(v, (const Zbs__Access__VerifyReply *)r.msg);
        rpc_reply_free(&r);
        if (err == 0)
            return CLI_OK;
        (void)co_sleep(100 * NSEC_PER_MSEC);
    }
    return cli_report(err, "the access servers");
}

static enum cli_exit verify_extents(struct verify *v, const Zbs__Meta__Volume *volume)
{
    const Zbs__Meta__VolumeMapReply *map;
    enum cli_exit rc = CLI_OK;
    uint32_t slot = 0;
    bool more = true;

    while (more && rc == CLI_OK) {
        struct rpc_reply r;

        rc = volume_map_page(v->c, volume, slot, &r);
        if (rc)
            return rc;
        map = (const Zbs__Meta__VolumeMapReply *)r.msg;
        /* One that was never created has never been written. */
        for (size_t i = 0; i < map->n_extents && rc == CLI_OK; i++)
            if (map->extents[i]->created)
                rc = verify_slot(v, map->extents[i]->slot, map->extents[i]->owner);
        more = map->more && map->next_slot > slot;
        slot = map->next_slot;
        rpc_reply_free(&r);
    }
    return rc;
}

enum cli_exit volume_verify(struct cli *c)
{
    static const struct cli_column columns[] = {
        {"extents", "extents", CLI_TEXT},
        {"incomplete", "  with a replica missing", CLI_TEXT},
        {"pages", "pages compared", CLI_TEXT},
        {"replicas", "replicas", CLI_TEXT},
        {"mismatches", "pages that differ", CLI_TEXT},
        {0},
    };
    struct verify v = {.c = c, .places = json_array()};
    struct rpc_reply r;
    enum cli_exit rc = volume_get(c, c->args[0], &r);

    if (rc) {
        json_decref(v.places);
        return rc;
    }
    v.volume_id = ((const Zbs__Meta__Volume *)r.msg)->id;
    rc = find_accesses(&v);
    if (rc == CLI_OK)
        rc = verify_extents(&v, (const Zbs__Meta__Volume *)r.msg);
    rpc_reply_free(&r);
    for (uint32_t i = 0; i < v.n_clients; i++)
        rpc_client_close(v.clients[i]);
    if (rc) {
        json_decref(v.places);
        return rc;
    }
    rc = cli_print_object(c,
                          json_pack("{s:i,s:i,s:I,s:I,s:I,s:o}", "extents", (int)v.extents,
                                    "incomplete", (int)v.incomplete, "pages", (json_int_t)v.pages,
                                    "replicas", (json_int_t)v.replicas, "mismatches",
                                    (json_int_t)v.mismatches, "places", v.places),
                          columns);
    return rc ? rc : v.mismatches ? CLI_DIFFERS : CLI_OK;
}
