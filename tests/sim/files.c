/* SPDX-License-Identifier: Apache-2.0
 *
 * The lives of the clients of the share: see files.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/env/env.h"
#include "tests/sim/files_int.h"

#define MUTATIONS   0xf11e0000u         /* clients of these requests */
#define SILENCE     (12 * NSEC_PER_SEC) /* then another access server is asked */
#define ATTEMPT_MAX 8                   /* seconds of one */
#define THINK_MS    80

/* ---- requests to meta ---- */

void files_mutation(const struct fclient *cl, Zbs__Meta__Mutation *ret)
{
    zbs__meta__mutation__init(ret);
    ret->client = MUTATIONS + cl->number;
    ret->number = cl->rq.number;
}

int files_meta(struct fnode *n, enum meta_method method, const ProtobufCMessage *rq,
               struct rpc_reply *r)
{
    rpc_reply_init(r);
    return meta_call(n->meta, method, rq, true, r);
}

/* ---- requests ---- */

static enum request_kind draw_kind(struct files *fs)
{
    uint64_t k = files_draw(fs, 30);

    return k < 6    ? REQUEST_CREATE + (uint32_t)k
           : k < 10 ? REQUEST_TRUNCATE
           : k < 20 ? REQUEST_READ
                    : REQUEST_WRITE;
}

static bool about_names(enum request_kind kind)
{
    return kind <= REQUEST_LIST;
}

static void request_begin(struct fclient *cl)
{
    cl->rq = (struct request){.kind = cl->dir == 0 ? REQUEST_SETUP : draw_kind(cl->fs),
                              .number = ++cl->requests};
    if (about_names(cl->rq.kind))
        names_prepare(cl, &cl->rq);
    else
        data_prepare(cl, &cl->rq);
    cl->pending = true;
}

static bool file_gone(const struct request *rq, int rc)
{
    return rc == ERR_STALE && rq->file != NULL && rq->file->going;
}

/* Else its outcome is not known, or it has to wait: it is repeated. */
static bool is_answer(int rc)
{
    static const int answers[] = {ERR_EXISTS, ERR_NOTFOUND,  ERR_STALE, ERR_ACCESS,
                                  ERR_PERM,   ERR_NOT_EMPTY, ERR_INVAL, ERR_IS_DIR};

    for (uint32_t i = 0; i < ARRAY_SIZE(answers); i++)
        if (rc == answers[i])
            return true;
    return rc == 0;
}

static void request_end(struct fclient *cl, int rc, const struct answer *a)
{
    const struct request *rq = &cl->rq;

    cl->pending = false;
    if (rc == rq->expected && about_names(rq->kind))
        names_done(cl, rq, a);
    else if (rc == rq->expected)
        data_done(cl, rq, a);
    else if (!file_gone(rq, rc))
        cluster_fail(cl->fs->c, "client-%u: request %" PRIu64 " of kind %d was answered: %s",
                     cl->number, rq->number, rq->kind, rc < 0 ? err_text(rc) : "done");
}

/* What is heard of a former attempt does not count. */
static void attempt(struct fnode *n, struct fclient *cl)
{
    struct files *fs = cl->fs;
    nsec_t former =
        co_deadline_push(co_now() + (nsec_t)(1 + files_draw(fs, ATTEMPT_MAX)) * NSEC_PER_SEC);
    uint32_t turn = cl->turn;
    struct request rq = cl->rq;
    struct answer a = {0};
    int rc = about_names(rq.kind) ? names_attempt(n, cl, &rq, &a) : data_attempt(n, cl, &rq, &a);

    co_deadline_restore(former);
    if (cl->turn != turn)
        return;
    cl->taken = false;
    if (is_answer(rc))
        request_end(cl, rc, &a);
    else
        fs->stats.repeats++;
}

/* ---- whose turn it is ---- */

static bool is_free(const struct fclient *cl)
{
    const struct cluster *c = cl->fs->c;

    return !cl->taken || !sim_proc_running(c->nodes[cl->node].procs[ROLE_ACCESS]) ||
           !cl->fs->nodes[cl->node].started || sim_now(c->sim) - cl->taken_at > SILENCE;
}

/* NULL: nobody has, or is to have, a request. */
static struct fclient *some_client(struct fnode *n)
{
    struct files *fs = n->n->cluster->files;
    uint32_t first = (uint32_t)files_draw(fs, FILES_CLIENTS);

    for (uint32_t i = 0; i < FILES_CLIENTS; i++) {
        struct fclient *cl = &fs->clients[(first + i) % FILES_CLIENTS];

        if (!is_free(cl) || (!cl->pending && !fs->running))
            continue;
        cl->taken = true;
        cl->taken_at = sim_now(fs->c->sim);
        cl->node = n->n->index;
        cl->turn++;
        return cl;
    }
    return NULL;
}

static void final_check(struct fnode *n)
{
    struct files *fs = n->n->cluster->files;

    for (uint32_t i = 0; i < fs->n_files; i++)
        if (fs->files[i].links > 0)
            data_final(n, &fs->files[i]);
    for (uint32_t i = 0; i < fs->n_snapshots; i++)
        data_final_snapshot(n, &fs->snapshots[i]);
    for (uint32_t i = 0; i < FILES_CLIENTS; i++) {
        struct fclient *cl = &fs->clients[i];

        if (cl->dir == 0)
            continue;
        cl->rq = (struct request){.kind = REQUEST_LIST};
        cl->pending = true;
        while (cl->pending && !fs->c->failure[0])
            attempt(n, cl);
    }
    names_remove_all(n);
    fs->done = true;
}

static int runner(void *arg)
{
    struct fnode *n = arg;
    struct files *fs = n->n->cluster->files;

    while (co_sleep((nsec_t)files_draw(fs, THINK_MS) * NSEC_PER_MSEC) == 0) {
        struct fclient *cl = NULL;

        if (fs->finals && !fs->done && fs->final_node == n->n->index) {
            fs->finals = false;
            final_check(n);
        }
        if (fs->c->volume_id != 0) /* there is a pool */
            cl = some_client(n);
        if (cl != NULL && !cl->pending)
            request_begin(cl);
        if (cl != NULL)
            attempt(n, cl);
    }
    return 0;
}

/* ---- in an access server ---- */

void files_ready(void *arg, struct nfs_files *files, struct meta_client *meta)
{
    struct node *node = arg;
    struct files *fs = node->cluster->files;
    struct fnode *n = &fs->nodes[node->index];

    n->files = files;
    n->meta = meta;
    n->started = true;
    for (uint32_t i = 0; i < FILES_CLIENTS; i++)
        if (fs->clients[i].node == node->index)
            fs->clients[i].taken = false; /* by the former process */
    co_group_init(&n->group);
    for (uint32_t i = 0; i < FILES_RUNNERS; i++)
        co_spawn(&n->group, "files", runner, n);
}

void files_stopping(struct node *node)
{
    struct files *fs = node->cluster->files;
    struct fnode *n = fs != NULL ? &fs->nodes[node->index] : NULL;

    if (fs == NULL || !n->started)
        return;
    n->started = false;
    (void)co_group_close(&n->group);
}

/* ---- from outside ---- */

void files_start(struct cluster *c)
{
    struct files *fs = calloc(1, sizeof(*fs));

    ASSERT(fs);
    fs->c = c;
    fs->running = true;
    for (uint32_t i = 0; i < HOSTS; i++)
        fs->nodes[i].n = &c->nodes[i];
    for (uint32_t i = 0; i < FILES_CLIENTS; i++) {
        fs->clients[i].fs = fs;
        fs->clients[i].number = i;
    }
    c->files = fs;
}

void files_free(struct cluster *c)
{
    free(c->files);
    c->files = NULL;
}

const struct files_stats *files_stats(const struct cluster *c)
{
    static const struct files_stats none;

    return c->files != NULL ? &c->files->stats : &none;
}

void files_stop(struct cluster *c)
{
    if (c->files != NULL)
        c->files->running = false;
}

uint32_t files_active(const struct cluster *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; c->files != NULL && i < FILES_CLIENTS; i++)
        n += c->files->clients[i].pending;
    return n;
}

void files_final(struct cluster *c, uint32_t node)
{
    if (c->files == NULL)
        return;
    c->files->final_node = node;
    c->files->finals = true;
}

bool files_done(const struct cluster *c)
{
    return c->files == NULL || c->files->done;
}
