/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli cluster | meta | chunk | access. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/access.pb-c.h"
#include "tools/cli/cli.h"

static json_t *meta_json(const Zbs__Meta__MetaView *m)
{
    return json_pack("{s:s,s:s,s:b,s:b,s:I}", "name", m->name, "address", m->addr, "leader",
                     m->leader, "alive", m->alive, "applied", (json_int_t)m->applied);
}

static json_t *chunk_json(const Zbs__Meta__ChunkStatus *s)
{
    uint64_t size = 0, used = 0;

    for (size_t i = 0; i < s->n_disks; i++) {
        size += s->disks[i]->size_bytes;
        used += s->disks[i]->used_bytes;
    }
    return json_pack("{s:i,s:s,s:s,s:s,s:s,s:b,s:i,s:i,s:i,s:I,s:I,s:I}", "id",
                     (int)s->view->chunk_id, "host", s->view->host, "rack", s->rack, "zone",
                     s->zone, "address", s->view->addr, "alive", s->view->alive, "workers",
                     (int)s->view->workers, "disks", (int)s->n_disks, "replicas", (int)s->replicas,
                     "size_bytes", (json_int_t)size, "used_bytes", (json_int_t)used, "last_seen_ms",
                     (json_int_t)s->last_seen_ms);
}

static json_t *access_json(const Zbs__Meta__AccessView *a)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:I}", "name", a->name, "host", a->host, "address", a->addr,
                     "iscsi", a->iscsi_portal, "session", (json_int_t)a->session_id);
}

static json_t *status_json(const Zbs__Meta__ClusterStatusReply *s)
{
    json_t *metas = json_array(), *chunks = json_array(), *accesses = json_array();

    for (size_t i = 0; i < s->n_metas; i++)
        json_array_append_new(metas, meta_json(s->metas[i]));
    for (size_t i = 0; i < s->n_chunks; i++)
        json_array_append_new(chunks, chunk_json(s->chunks[i]));
    for (size_t i = 0; i < s->n_accesses; i++)
        json_array_append_new(accesses, access_json(s->accesses[i]));
    cli_sort(metas, "name");
    cli_sort(accesses, "name");
    return json_pack("{s:s,s:I,s:o,s:o,s:o,s:I,s:I,s:i,s:i,s:i,s:i,s:i}", "cluster_id",
                     s->cluster_id, "term", (json_int_t)s->term, "metas", metas, "chunks", chunks,
                     "accesses", accesses, "size_bytes", (json_int_t)s->size_bytes, "used_bytes",
                     (json_int_t)s->used_bytes, "pools", (int)s->pools, "volumes", (int)s->volumes,
                     "extents", (int)s->extents, "extents_degraded", (int)s->extents_degraded,
                     "extents_at_risk", (int)s->extents_at_risk);
}

static const struct cli_column meta_columns[] = {
    {"name", "META", CLI_TEXT},   {"address", "ADDRESS", CLI_TEXT}, {"leader", "LEADER", CLI_BOOL},
    {"alive", "ALIVE", CLI_BOOL}, {"applied", "APPLIED", CLI_TEXT}, {0},
};
static const struct cli_column chunk_columns[] = {
    {"id", "CHUNK", CLI_TEXT},
    {"host", "HOST", CLI_TEXT},
    {"address", "ADDRESS", CLI_TEXT},
    {"alive", "ALIVE", CLI_BOOL},
    {"disks", "DISKS", CLI_TEXT},
    {"replicas", "REPLICAS", CLI_TEXT},
    {"used_bytes", "USED", CLI_SIZE},
    {"size_bytes", "SIZE", CLI_SIZE},
    {0},
};
static const struct cli_column access_columns[] = {
    {"name", "ACCESS", CLI_TEXT},
    {"host", "HOST", CLI_TEXT},
    {"address", "ADDRESS", CLI_TEXT},
    {"iscsi", "ISCSI", CLI_TEXT},
    {0},
};
static const struct cli_column status_columns[] = {
    {"cluster_id", "cluster", CLI_TEXT},
    {"term", "leader's term", CLI_TEXT},
    {"pools", "pools", CLI_TEXT},
    {"volumes", "volumes", CLI_TEXT},
    {"extents", "extents", CLI_TEXT},
    {"extents_degraded", "  with a replica missing", CLI_TEXT},
    {"extents_at_risk", "  with one replica left", CLI_TEXT},
    {"used_bytes", "used", CLI_SIZE},
    {"size_bytes", "of", CLI_SIZE},
    {0},
};

static enum cli_exit cluster_status(struct cli *c)
{
    struct rpc_reply r;
    enum cli_exit rc = cli_cluster_status(c, &r);
    json_t *all;

    if (rc)
        return rc;
    all = status_json((const Zbs__Meta__ClusterStatusReply *)r.msg);
    rpc_reply_free(&r);
    if (c->json)
        return cli_print_json(all);
    cli_print_table(c, json_incref(json_object_get(all, "metas")), meta_columns);
    putchar('\n');
    cli_print_table(c, json_incref(json_object_get(all, "chunks")), chunk_columns);
    putchar('\n');
    cli_print_table(c, json_incref(json_object_get(all, "accesses")), access_columns);
    putchar('\n');
    return cli_print_object(c, all, status_columns);
}

/* One of the lists of the status. */
static enum cli_exit print_part(struct cli *c, const char *key, const struct cli_column *columns)
{
    struct rpc_reply r;
    enum cli_exit rc = cli_cluster_status(c, &r);
    json_t *all, *part;

    if (rc)
        return rc;
    all = status_json((const Zbs__Meta__ClusterStatusReply *)r.msg);
    rpc_reply_free(&r);
    part = json_incref(json_object_get(all, key));
    json_decref(all);
    return cli_print_table(c, part, columns);
}

static enum cli_exit meta_list(struct cli *c)
{
    return print_part(c, "metas", meta_columns);
}

static enum cli_exit chunk_list(struct cli *c)
{
    return print_part(c, "chunks", chunk_columns);
}

static enum cli_exit access_list(struct cli *c)
{
    return print_part(c, "accesses", access_columns);
}

/* ---- what a policy asks for and the cluster does not have ---- */

static const char *domain_of(const Zbs__Meta__ChunkStatus *s, const char *domain)
{
    if (!strcmp(domain, "rack"))
        return s->rack;
    return !strcmp(domain, "zone") ? s->zone : s->view->host;
}

static uint32_t domains_alive(const Zbs__Meta__ClusterStatusReply *s, const char *domain)
{
    uint32_t count = 0;

    for (size_t i = 0; i < s->n_chunks; i++) {
        bool again = false;

        for (size_t k = 0; k < i; k++)
            again |= s->chunks[k]->view->alive &&
                     !strcmp(domain_of(s->chunks[i], domain), domain_of(s->chunks[k], domain));
        count += s->chunks[i]->view->alive && !again;
    }
    return count;
}

void cli_warn_placement(struct cli *c, uint32_t replicas, const char *domain, const char *host)
{
    const Zbs__Meta__ClusterStatusReply *s;
    struct rpc_reply r;
    uint32_t there;
    bool known = false;

    if (cli_cluster_status(c, &r))
        return;
    s = (const Zbs__Meta__ClusterStatusReply *)r.msg;
    there = domains_alive(s, domain);
    if (there < replicas)
        fprintf(stderr,
                "zbs-cli: warning: %u replicas need %u %ss with a chunk server, %u %s up: "
                "'zbs-cli chunk list' shows them\n",
                replicas, replicas, domain, there, there == 1 ? "is" : "are");
    for (size_t i = 0; host && i < s->n_chunks; i++)
        known |= !strcmp(s->chunks[i]->view->host, host);
    if (host && host[0] && !known)
        fprintf(stderr,
                "zbs-cli: warning: no chunk server is on host '%s': 'zbs-cli chunk list' shows "
                "the hosts\n",
                host);
    rpc_reply_free(&r);
}

const struct cli_command cli_cluster_commands[] = {
    {"cluster",
     "status",
     "",
     0,
     0,
     "shows servers, space and what is at risk",
     {{0}},
     cluster_status},
    {"meta", "list", "", 0, 0, "lists meta servers", {{0}}, meta_list},
    {"chunk", "list", "", 0, 0, "lists chunk servers", {{0}}, chunk_list},
    {"access", "list", "", 0, 0, "lists access servers and their portals", {{0}}, access_list},
    {0},
};
