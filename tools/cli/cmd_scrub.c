/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli chunk scrub: reading and checking what a chunk server stores. */
#include <inttypes.h>
#include <stdio.h>

#include "proto/chunk.pb-c.h"
#include "tools/cli/cli.h"

#define SCRUB_SECONDS 15

enum { ACTION_NONE, ACTION_START, ACTION_STOP };

static const struct cli_column columns[] = {
    {"chunk", "chunk", CLI_TEXT},
    {"running", "running", CLI_BOOL},
    {"progress", "progress", CLI_TEXT},
    {"bytes", "read", CLI_SIZE},
    {"rounds", "rounds completed", CLI_TEXT},
    {"errors", "blocks not readable", CLI_TEXT},
    {"corrupt", "bad pages found", CLI_TEXT},
    {"unrepaired", "not repaired yet", CLI_TEXT},
    {0},
};

static json_t *scrub_json(uint32_t chunk, const Zbs__Chunk__ScrubReply *r)
{
    json_t *pages = json_array();
    char progress[64];

    for (size_t i = 0; i < r->n_corrupt; i++)
        json_array_append_new(pages,
                              json_pack("{s:I,s:i}", "extent", (json_int_t)r->corrupt[i]->extent_id,
                                        "page", (int)r->corrupt[i]->page));
    snprintf(progress, sizeof(progress), "%" PRIu64 " of %" PRIu64 " extents", r->extents,
             r->extents_total);
    return json_pack("{s:i,s:b,s:s,s:I,s:I,s:I,s:I,s:I,s:i,s:o}", "chunk", (int)chunk, "running",
                     r->running, "progress", progress, "bytes", (json_int_t)r->bytes, "extents",
                     (json_int_t)r->extents, "rounds", (json_int_t)r->rounds, "errors",
                     (json_int_t)r->errors, "corrupt", (json_int_t)r->corrupt_count, "unrepaired",
                     (int)r->n_corrupt, "pages", pages);
}

static enum cli_exit scrub(struct cli *c)
{
    Zbs__Chunk__ScrubRequest q = ZBS__CHUNK__SCRUB_REQUEST__INIT;
    const char *rate = cli_option(c, "rate");
    struct rpc_reply reply;
    enum cli_exit rc;
    uint32_t id;

    if (cli_option(c, "start"))
        q.action = ACTION_START;
    if (cli_option(c, "stop"))
        q.action = q.action == ACTION_NONE ? ACTION_STOP : UINT32_MAX;
    if (q.action == UINT32_MAX || (rate && q.action != ACTION_START))
        return cli_usage_error(c, "give --start, with a --rate if you like, or --stop, or neither");
    if (rate && !cli_parse_size(rate, &q.bytes_per_s))
        return CLI_USAGE;
    rc = cli_chunk_call(c, c->args[0], "Scrub", &q.base, SCRUB_SECONDS, &id, &reply);
    if (rc)
        return rc;
    rc = cli_print_object(c, scrub_json(id, (const Zbs__Chunk__ScrubReply *)reply.msg), columns);
    rpc_reply_free(&reply);
    return rc;
}

const struct cli_command cli_scrub_commands[] = {
    {"chunk",
     "scrub",
     "CHUNK|HOST",
     1,
     1,
     "shows or changes the reading and checking of everything that a chunk server stores",
     {{"start", NULL, "begins a round, or gives the running one another rate"},
      {"rate", "SIZE", "bytes a second"},
      {"stop", NULL, "ends the round"}},
     scrub},
    {0},
};
