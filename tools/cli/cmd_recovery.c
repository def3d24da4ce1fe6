/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli recovery status: which extents lack replicas, how far recovery is, when it will be done;
 * zbs-cli chunk maintenance and chunk remove, which decide what is recovered. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/env/env.h"
#include "tools/cli/cli.h"

#define BAR_CELLS 40u
#define POLL      NSEC_PER_SEC
#define ETA_NEVER (99 * 3600u)

static const struct cli_column columns[] = {
    {"extents_1_in_sync", "extents with 1 in-sync replica", CLI_TEXT},
    {"extents_2_in_sync", "extents with 2, more wanted", CLI_TEXT},
    {"extents_more_in_sync", "extents with 3 or more, more wanted", CLI_TEXT},
    {"moving", "extents being moved", CLI_TEXT},
    {"copying", "extents being copied now", CLI_TEXT},
    {"left_bytes", "left to copy", CLI_SIZE},
    {"copied_bytes", "copied so far", CLI_SIZE},
    {"rate_bytes_s", "copied in a second", CLI_SIZE},
    {"done_percent", "done, %", CLI_TEXT},
    {"left_text", "time left, about", CLI_TEXT},
    {0},
};

static const struct cli_column chunk_columns[] = {
    {"chunk", "CHUNK", CLI_TEXT},
    {"host", "HOST", CLI_TEXT},
    {"replicas", "REPLICAS", CLI_TEXT},
    {"state", "STATE", CLI_TEXT},
    {0},
};

static void span_text(uint64_t s, char dst[32])
{
    if (s >= 3600)
        snprintf(dst, 32, "%" PRIu64 " h %02" PRIu64 " min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(dst, 32, "%" PRIu64 " min %02" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(dst, 32, "%" PRIu64 " s", s);
}

static json_t *chunk_json(const Zbs__Meta__RecoveryChunk *m)
{
    const char *what = m->alive ? "without a healthy disk" : "away";
    char text[128] = "", left[32], away[32];

    span_text(m->grace_s, left);
    span_text(m->away_s, away);
    if (m->removing)
        snprintf(text, sizeof(text), "being removed for good");
    else if (m->maintenance)
        snprintf(text, sizeof(text), "in maintenance");
    else if (m->grace_s > 0)
        snprintf(text, sizeof(text), "%s for %s, replaced in %s", what, away, left);
    else
        snprintf(text, sizeof(text), "%s for %s, being replaced", what, away);
    return json_pack("{s:i,s:s,s:i,s:b,s:b,s:b,s:I,s:I,s:s}", "chunk", (int)m->chunk_id, "host",
                     m->host, "replicas", (int)m->replicas, "maintenance", (int)m->maintenance,
                     "removing", (int)m->removing, "alive", (int)m->alive, "away_s",
                     (json_int_t)m->away_s, "grace_s", (json_int_t)m->grace_s, "state", text);
}

static json_t *status_json(const Zbs__Meta__RecoveryStatusReply *m)
{
    uint64_t more = 0, all = m->copied_bytes + m->left_bytes, eta, degraded = 0;
    char left[32] = "-";
    json_t *chunks = json_array();

    for (size_t i = 0; i < m->n_extents_by_in_sync; i++) {
        degraded += m->extents_by_in_sync[i];
        more += i >= 2 ? m->extents_by_in_sync[i] : 0;
    }
    eta = m->left_bytes == 0 ? 0 : m->rate == 0 ? ETA_NEVER : m->left_bytes / m->rate + 1;
    if (eta > 0 && eta < ETA_NEVER)
        span_text(eta, left);
    for (size_t i = 0; i < m->n_chunks; i++)
        json_array_append_new(chunks, chunk_json(m->chunks[i]));
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:i,s:I,s:I,s:I,s:I,s:s,s:I,s:b,s:o}", "extents_degraded",
        (json_int_t)degraded, "extents_1_in_sync",
        (json_int_t)(m->n_extents_by_in_sync > 0 ? m->extents_by_in_sync[0] : 0),
        "extents_2_in_sync",
        (json_int_t)(m->n_extents_by_in_sync > 1 ? m->extents_by_in_sync[1] : 0),
        "extents_more_in_sync", (json_int_t)more, "moving", (json_int_t)m->moving, "copying",
        (int)m->copying, "left_bytes", (json_int_t)m->left_bytes, "copied_bytes",
        (json_int_t)m->copied_bytes, "rate_bytes_s", (json_int_t)m->rate, "done_percent",
        (json_int_t)(degraded + m->moving == 0 ? 100
                     : all == 0                ? 0
                                               : m->copied_bytes * 100 / all),
        "left_text", left, "left_s", (json_int_t)(eta < ETA_NEVER ? (json_int_t)eta : -1),
        "balancing", (int)m->balancing, "chunks", chunks);
}

static enum cli_exit status_get(struct cli *c, json_t **ret)
{
    Zbs__Meta__RecoveryStatusRequest q = ZBS__META__RECOVERY_STATUS_REQUEST__INIT;
    struct rpc_reply r;
    enum cli_exit rc = cli_meta_call(c, META_RECOVERY_STATUS, &q.base, &r);

    if (rc)
        return rc;
    *ret = status_json((const Zbs__Meta__RecoveryStatusReply *)r.msg);
    rpc_reply_free(&r);
    return CLI_OK;
}

static int64_t number(const json_t *j, const char *key)
{
    return json_integer_value(json_object_get(j, key));
}

static bool is_clear(const json_t *j)
{
    return number(j, "extents_degraded") == 0 && number(j, "moving") == 0;
}

/* "[######----]  61%  3.1 GiB left, 420.0 MiB/s, 8 s"; on a terminal over the former line. */
static void bar_print(const json_t *j)
{
    char bar[BAR_CELLS + 1], left[32], rate[32];
    uint64_t percent = (uint64_t)number(j, "done_percent");

    for (uint32_t i = 0; i < BAR_CELLS; i++)
        bar[i] = i * 100 < percent * BAR_CELLS ? '#' : '-';
    bar[BAR_CELLS] = 0;
    cli_format_size((uint64_t)number(j, "left_bytes"), left);
    cli_format_size((uint64_t)number(j, "rate_bytes_s"), rate);
    printf("%s[%s] %3" PRIu64 "%%  %" PRId64 " extents, %s left, %s/s, %s%s",
           isatty(STDOUT_FILENO) ? "\r\033[K" : "", bar, percent,
           number(j, "extents_degraded") + number(j, "moving"), left, rate,
           json_string_value(json_object_get(j, "left_text")),
           isatty(STDOUT_FILENO) && !is_clear(j) ? "" : "\n");
    fflush(stdout);
}

static enum cli_exit watch(struct cli *c)
{
    bool clear = false;

    while (!clear) {
        json_t *j;
        enum cli_exit rc = status_get(c, &j);

        if (rc)
            return rc;
        clear = is_clear(j);
        if (c->json && json_dumpf(j, stdout, JSON_COMPACT) == 0)
            printf("\n");
        else if (c->json)
            return CLI_FAILED;
        else
            bar_print(j);
        fflush(stdout);
        json_decref(j);
        if (!clear && co_sleep(POLL) < 0)
            break;
    }
    return CLI_OK;
}

static enum cli_exit status(struct cli *c)
{
    json_t *j, *chunks;
    enum cli_exit rc;

    if (cli_option(c, "watch"))
        return watch(c);
    rc = status_get(c, &j);
    if (rc || c->json)
        return rc ? rc : cli_print_object(c, j, columns);
    if (!is_clear(j))
        bar_print(j);
    chunks = json_incref(json_object_get(j, "chunks"));
    rc = cli_print_object(c, j, columns);
    if (rc || json_array_size(chunks) == 0) {
        json_decref(chunks);
        return rc;
    }
    printf("\n");
    return cli_print_table(c, chunks, chunk_columns);
}

/* ---- chunk servers that go away ---- */

static enum cli_exit chunk_mark(struct cli *c, uint32_t id, bool maintenance, bool removing,
                                uint32_t *ret_replicas)
{
    Zbs__Meta__ChunkMarkRequest q = ZBS__META__CHUNK_MARK_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    struct rpc_reply r;
    enum cli_exit rc;

    meta_client_mutation(c->meta, &m);
    q.mutation = &m;
    q.chunk_id = id;
    q.maintenance = maintenance;
    q.removing = removing;
    q.force = cli_option(c, "force") != NULL;
    rc = cli_meta_call(c, META_CHUNK_MARK, &q.base, &r);
    if (rc)
        return rc;
    *ret_replicas = ((const Zbs__Meta__ChunkMarkReply *)r.msg)->replicas;
    rpc_reply_free(&r);
    return CLI_OK;
}

enum cli_exit cli_chunk_maintenance(struct cli *c)
{
    bool on = strcmp(c->args[1], "on") == 0;
    struct cli_chunk chunk;
    uint32_t replicas = 0;
    enum cli_exit rc;

    if (!on && strcmp(c->args[1], "off") != 0)
        return cli_usage_error(c, "'%s' is neither 'on' nor 'off'", c->args[1]);
    rc = cli_chunk_find(c, c->args[0], &chunk);
    if (rc == CLI_OK)
        rc = chunk_mark(c, chunk.id, on, false, &replicas);
    if (rc)
        return rc;
    if (c->json)
        return cli_print_json(json_pack("{s:i,s:b,s:i}", "chunk", (int)chunk.id, "maintenance",
                                        (int)on, "replicas", (int)replicas));
    printf("chunk server %u on %s is %s; it has %u replicas\n", chunk.id, chunk.host,
           on ? "in maintenance: nothing is recovered when it is away" : "no longer in maintenance",
           replicas);
    return CLI_OK;
}

/* *ret: replicas that are still there; -1: the server is gone from the cluster. */
static enum cli_exit replicas_left(struct cli *c, uint32_t id, int64_t *ret)
{
    json_t *j, *chunk;
    size_t i;
    enum cli_exit rc = status_get(c, &j);

    if (rc)
        return rc;
    *ret = -1;
    json_array_foreach(json_object_get(j, "chunks"), i,
                       chunk) if (number(chunk, "chunk") == (int64_t)id) *ret =
        number(chunk, "replicas");
    json_decref(j);
    return CLI_OK;
}

static enum cli_exit removal_watch(struct cli *c, uint32_t id, uint32_t all)
{
    int64_t left = all, said = -2;

    while (left >= 0) {
        enum cli_exit rc = replicas_left(c, id, &left);

        if (rc)
            return rc;
        if (left != said && left >= 0 && !c->json) {
            printf("%s%" PRId64 " of %u replicas left%s", isatty(STDOUT_FILENO) ? "\r\033[K" : "",
                   left, all, isatty(STDOUT_FILENO) ? "" : "\n");
            fflush(stdout);
        }
        said = left;
        if (left >= 0 && co_sleep(POLL) < 0)
            return CLI_FAILED;
    }
    if (!c->json)
        printf("%schunk server %u is removed\n", isatty(STDOUT_FILENO) ? "\r\033[K" : "", id);
    return CLI_OK;
}

enum cli_exit cli_chunk_remove(struct cli *c)
{
    struct cli_chunk chunk;
    uint32_t replicas = 0;
    bool cancel = cli_option(c, "cancel") != NULL;
    enum cli_exit rc = cli_chunk_find(c, c->args[0], &chunk);

    if (rc)
        return rc;
    if (!cancel && !cli_option(c, "yes")) {
        fprintf(stderr,
                "zbs-cli: all replicas of chunk server %u on %s would be moved away, and it could "
                "not come back without being formatted: confirm with --yes\n",
                chunk.id, chunk.host);
        return CLI_USAGE;
    }
    rc = chunk_mark(c, chunk.id, false, !cancel, &replicas);
    if (rc == CLI_OK && cli_option(c, "wait") && !cancel)
        rc = removal_watch(c, chunk.id, replicas);
    if (rc)
        return rc;
    if (c->json)
        return cli_print_json(json_pack("{s:i,s:b,s:i}", "chunk", (int)chunk.id, "removing",
                                        (int)!cancel, "replicas", (int)replicas));
    if (!cli_option(c, "wait"))
        printf("chunk server %u on %s is %s; it has %u replicas\n", chunk.id, chunk.host,
               cancel ? "no longer being removed"
                      : "being removed: 'zbs-cli recovery status' shows how far",
               replicas);
    return CLI_OK;
}

const struct cli_command cli_recovery_commands[] = {
    {"recovery",
     "status",
     "",
     0,
     0,
     "shows which extents lack replicas, and how far their recovery is",
     {{"watch", NULL, "goes on until all is well"}},
     status},
    {0},
};
