/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli chunk cache: what a chunk server's read cache is good for. */
#include <inttypes.h>
#include <stdio.h>

#include "proto/chunk.pb-c.h"
#include "tools/cli/cli.h"

#define INFO_SECONDS 15

static const struct cli_column columns[] = {
    {"chunk", "chunk", CLI_TEXT},
    {"bytes", "read cache", CLI_SIZE},
    {"hits", "pages found there", CLI_TEXT},
    {"misses", "pages read from disk", CLI_TEXT},
    {"hit_rate", "found, %", CLI_TEXT},
    {"ahead_read", "pages read ahead", CLI_TEXT},
    {"ahead_used", "of these needed", CLI_TEXT},
    {0},
};

static json_t *cache_json(uint32_t chunk, const Zbs__Chunk__Cache *m)
{
    uint64_t wanted = m->hits + m->misses;

    return json_pack("{s:i,s:I,s:I,s:I,s:I,s:I,s:I}", "chunk", (int)chunk, "bytes",
                     (json_int_t)m->bytes, "hits", (json_int_t)m->hits, "misses",
                     (json_int_t)m->misses, "hit_rate",
                     (json_int_t)(wanted != 0 ? m->hits * 100 / wanted : 0), "ahead_read",
                     (json_int_t)m->ahead_read, "ahead_used", (json_int_t)m->ahead_used);
}

static enum cli_exit cache(struct cli *c)
{
    static const Zbs__Chunk__Cache none = ZBS__CHUNK__CACHE__INIT; /* of an older server */
    Zbs__Chunk__InfoRequest q = ZBS__CHUNK__INFO_REQUEST__INIT;
    const Zbs__Chunk__InfoReply *m;
    struct rpc_reply reply;
    enum cli_exit rc;
    uint32_t id;

    rc = cli_chunk_call(c, c->args[0], "Info", &q.base, INFO_SECONDS, &id, &reply);
    if (rc)
        return rc;
    m = (const Zbs__Chunk__InfoReply *)reply.msg;
    rc = cli_print_object(c, cache_json(id, m->cache != NULL ? m->cache : &none), columns);
    rpc_reply_free(&reply);
    return rc;
}

const struct cli_command cli_chunk_commands[] = {
    {"chunk",
     "cache",
     "CHUNK|HOST",
     1,
     1,
     "shows how much a chunk server reads from memory instead of its disks",
     {{0}},
     cache},
    {"chunk",
     "maintenance",
     "CHUNK|HOST on|off",
     2,
     2,
     "announces that a chunk server will be away: nothing is recovered for it meanwhile",
     {{"force", NULL, "also if extents have no other in-sync replica"}},
     cli_chunk_maintenance},
    {"chunk",
     "remove",
     "CHUNK|HOST",
     1,
     1,
     "moves all replicas off a chunk server, then forgets it; also one that is lost",
     {{"yes", NULL, "confirms it"},
      {"wait", NULL, "until it is done, with progress"},
      {"cancel", NULL, "what is not moved yet stays"}},
     cli_chunk_remove},
    {0},
};
