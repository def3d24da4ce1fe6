/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-cli snapshot export, import: a snapshot to standard output, and from standard input
 * (tools/stream). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/env/env.h"
#include "tools/cli/cli.h"
#include "tools/cli/volume.h"
#include "tools/stream/stream.h"

#define PROGRESS_PAUSE (NSEC_PER_SEC / 5)

/* ---- the stream's way in and out ---- */

struct pipe_io {
    bool terminal; /* standard error is one */
    bool shown;
    nsec_t next; /* when the next line of progress is due */
};

/* Both block: not on the loop that answers the cluster. */
static int pipe_read(void *arg, void *dst, size_t len, size_t *ret_got)
{
    struct co_loop *home = co_enter(env_pool());
    bool bad;

    (void)arg;
    *ret_got = fread(dst, 1, len, stdin);
    bad = *ret_got < len && ferror(stdin);
    co_enter(home);
    return bad ? err_set(ERR_IO, "reading standard input failed") : 0;
}

static int pipe_write(void *arg, const void *src, size_t len)
{
    struct co_loop *home = co_enter(env_pool());
    bool good = fwrite(src, 1, len, stdout) == len;
    int error = errno;

    (void)arg;
    co_enter(home);
    return good ? 0 : err_set(ERR_IO, "writing to standard output failed: %s", strerror(error));
}

static void pipe_progress(void *arg, const struct stream *s, uint64_t position)
{
    struct pipe_io *p = arg;
    char done[32], size[32], data[32];

    if (!p->terminal || co_now() < p->next)
        return;
    p->next = co_now() + PROGRESS_PAUSE;
    p->shown = true;
    cli_format_size(position, done);
    cli_format_size(s->header.size_bytes, size);
    cli_format_size(s->data_bytes, data);
    fprintf(stderr, "\r%s of %s, %s of data  ", done, size, data);
}

static void progress_end(const struct pipe_io *p)
{
    if (p->shown)
        fputc('\n', stderr);
}

static void id_text(const uint8_t id[STREAM_ID_BYTES], char dst[2 * STREAM_ID_BYTES + 1])
{
    for (uint32_t i = 0; i < STREAM_ID_BYTES; i++)
        snprintf(dst + 2 * (size_t)i, 3, "%02x", id[i]);
}

static json_t *stream_json(const struct stream *s)
{
    char content[2 * STREAM_ID_BYTES + 1], base[2 * STREAM_ID_BYTES + 1] = "";

    id_text(s->header.content, content);
    if (s->header.incremental)
        id_text(s->header.base, base);
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I}", "content", content, "base", base, "size_bytes",
                     (json_int_t)s->header.size_bytes, "data_bytes", (json_int_t)s->data_bytes,
                     "zero_bytes", (json_int_t)s->zero_bytes, "records", (json_int_t)s->records);
}

/* Prints what is wrong, with the exit code for it. */
static enum cli_exit stream_report(int rc)
{
    return cli_report(rc, "the access servers");
}

/* ---- export ---- */

/* Standard output carries the stream, so the result goes to standard error. */
static enum cli_exit export_print(const struct cli *c, const struct stream *s)
{
    json_t *o = stream_json(s);
    char data[32];

    cli_format_size(s->data_bytes, data);
    if (c->json)
        json_dumpf(o, stderr, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    else
        fprintf(stderr, "%s@%s: %s of data", s->header.volume, s->header.snapshot, data);
    fputc('\n', stderr);
    json_decref(o);
    return CLI_OK;
}

static enum cli_exit snapshot_export(struct cli *c)
{
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM], snapshot[CLI_NAME_ROOM];
    char since_pool[CLI_NAME_ROOM], since_volume[CLI_NAME_ROOM], since_snapshot[CLI_NAME_ROOM];
    const char *since = cli_option(c, "since");
    struct stream_name name = {pool, volume, snapshot};
    struct stream_name older = {since_pool, since_volume, since_snapshot};
    struct pipe_io p = {.terminal = isatty(STDERR_FILENO)};
    struct stream_io io = {.arg = &p, .write = pipe_write, .progress = pipe_progress};
    struct stream_cluster cluster;
    struct stream s = {0};
    int rc;

    if (!snapshot_parse(c->args[0], pool, volume, snapshot) ||
        (since && !snapshot_parse(since, since_pool, since_volume, since_snapshot)))
        return CLI_USAGE;
    if (isatty(STDOUT_FILENO))
        return cli_usage_error(c, "the stream goes to standard output: send it to a file or pipe");
    rc = stream_cluster_init(&cluster, c->meta);
    if (rc == 0)
        rc = stream_send(&cluster, &name, since ? &older : NULL, &io, &s);
    stream_cluster_fini(&cluster);
    if (rc == 0 && fflush(stdout) != 0)
        rc = err_set(ERR_IO, "writing to standard output failed: %s", strerror(errno));
    progress_end(&p);
    return rc < 0 ? stream_report(rc) : export_print(c, &s);
}

/* ---- import ---- */

static enum cli_exit import_print(struct cli *c, const struct stream *s, const struct rpc_reply *r)
{
    static const struct cli_column columns[] = {
        {"pool", "pool", CLI_TEXT},       {"name", "snapshot", CLI_TEXT},
        {"size_bytes", "size", CLI_SIZE}, {"data_bytes", "imported", CLI_SIZE},
        {"content", "content", CLI_TEXT}, {0},
    };
    const Zbs__Meta__VolumeSnapshotReply *m = (const Zbs__Meta__VolumeSnapshotReply *)r->msg;
    json_t *o;

    if (!m || m->n_snapshots != 1)
        return stream_report(err_set(ERR_PROTO, "meta does not name the new snapshot"));
    o = stream_json(s);
    json_object_set_new(o, "pool", json_string(m->snapshots[0]->pool));
    json_object_set_new(o, "name", json_string(m->snapshots[0]->name));
    return cli_print_object(c, o, columns);
}

static enum cli_exit snapshot_import(struct cli *c)
{
    char pool[CLI_NAME_ROOM], volume[CLI_NAME_ROOM];
    struct stream_name name = {pool, volume, NULL};
    struct pipe_io p = {.terminal = isatty(STDERR_FILENO)};
    struct stream_io io = {.arg = &p, .read = pipe_read, .progress = pipe_progress};
    struct stream_cluster cluster;
    struct rpc_reply r = {0};
    struct stream s = {0};
    enum cli_exit exit;
    char *at;
    int rc;

    if (!cli_parse_volume(c->args[0], pool, volume))
        return CLI_USAGE;
    at = strchr(volume, '@');
    if (at) {
        *at = 0;
        name.snapshot = at + 1;
    }
    if (isatty(STDIN_FILENO))
        return cli_usage_error(c, "the stream comes from standard input: give a file or pipe");
    rc = stream_cluster_init(&cluster, c->meta);
    if (rc == 0)
        rc = stream_receive(&cluster, &name, &io, &s, &r);
    stream_cluster_fini(&cluster);
    progress_end(&p);
    if (rc < 0)
        return stream_report(rc);
    exit = import_print(c, &s, &r);
    rpc_reply_free(&r);
    return exit;
}

const struct cli_command cli_stream_commands[] = {
    {"snapshot",
     "export",
     "POOL/VOLUME@SNAPSHOT",
     1,
     1,
     "writes a snapshot to standard output, to be imported elsewhere",
     {{"since", "POOL/VOLUME@OLDER", "only what changed after this older snapshot"}},
     snapshot_export},
    {"snapshot",
     "import",
     "POOL/VOLUME[@SNAPSHOT]",
     1,
     1,
     "makes a volume and its snapshot from standard input, or continues one",
     {{0}},
     snapshot_import},
    {0},
};
