/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions and answers about shares. */
#include <inttypes.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/name.h"
#include "meta/decide_tree.h"
#include "meta/view_tree.h"

#define NETWORK_BYTES_MAX 64u

static int decide_share(const struct decide *d, const char *name, struct share **ret)
{
    *ret = tree_share(&d->st->tree, name);
    if (*ret == NULL)
        return err_set(ERR_NOTFOUND, "share '%s' does not exist", name);
    return 0;
}

static int check_client(const Zbs__Meta__ShareClient *c)
{
    size_t len = strlen(c->network);

    if (len == 0 || len > NETWORK_BYTES_MAX)
        return err_set(ERR_INVAL, "a client of a share is a network like 10.0.0.0/24, or *");
    for (size_t i = 0; i < len; i++) {
        if (c->network[i] <= ' ' || c->network[i] > '~')
            return err_set(ERR_INVAL, "'%s' is not a network like 10.0.0.0/24, or *", c->network);
    }
    if (c->squash > ZBS__META__SHARE_CLIENT__SQUASH__ALL)
        return err_set(ERR_INVAL, "squash %d is none of root, none, all", (int)c->squash);
    return 0;
}

static int share_set(const struct decide *d, const Zbs__Meta__Share *rq, Zbs__Metalog__ShareSet *m,
                     Zbs__Metalog__Record **ret)
{
    int rc = 0;

    if (rq->n_clients > SHARE_CLIENTS_MAX)
        return err_set(ERR_TOO_LARGE, "%zu clients of a share: at most %u", rq->n_clients,
                       SHARE_CLIENTS_MAX);
    m->clients = PAD_NEW_ARRAY(d->pad, Zbs__Metalog__KvShareClient *, rq->n_clients);
    m->n_clients = rq->n_clients;
    for (size_t i = 0; i < rq->n_clients && rc == 0; i++) {
        Zbs__Metalog__KvShareClient *c = m->clients[i] =
            PAD_NEW(d->pad, Zbs__Metalog__KvShareClient);

        rc = check_client(rq->clients[i]);
        zbs__metalog__kv_share_client__init(c);
        c->network = rq->clients[i]->network;
        c->read_only = rq->clients[i]->read_only;
        c->squash = rq->clients[i]->squash;
    }
    m->anonymous_uid = rq->anonymous_uid;
    m->anonymous_gid = rq->anonymous_gid;
    m->time_ns = (uint64_t)d->w->wall_ns;
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_SHARE_SET);
    (*ret)->share_set = m;
    return rc;
}

int decide_share_create(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__Share *rq = ((const Zbs__Meta__ShareCreateRequest *)d->rq)->share;
    Zbs__Metalog__ShareSet *m = PAD_NEW(d->pad, Zbs__Metalog__ShareSet);
    struct pool *p;
    int rc;

    if (rq == NULL)
        return err_set(ERR_INVAL, "no share given");
    rc = name_check("share name", rq->name, NAME_BYTES_MAX);
    if (rc == 0)
        rc = decide_pool(d, rq->pool, &p);
    if (rc != 0)
        return rc;
    if (tree_share(&d->st->tree, rq->name) != NULL)
        return err_set(ERR_EXISTS, "share '%s' exists already", rq->name);
    if (d->st->tree.shares.count >= SHARES_MAX)
        return err_set(ERR_TOO_LARGE, "the cluster has %u shares, the most allowed", SHARES_MAX);
    zbs__metalog__share_set__init(m);
    m->name = rq->name;
    m->pool_id = p->id;
    return share_set(d, rq, m, ret);
}

int decide_share_set(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__Share *rq = ((const Zbs__Meta__ShareSetRequest *)d->rq)->share;
    Zbs__Metalog__ShareSet *m = PAD_NEW(d->pad, Zbs__Metalog__ShareSet);
    struct share *s;
    int rc;

    if (rq == NULL)
        return err_set(ERR_INVAL, "no share given");
    rc = decide_share(d, rq->name, &s);
    if (rc < 0)
        return rc;
    zbs__metalog__share_set__init(m);
    m->share_id = s->id;
    return share_set(d, rq, m, ret);
}

int decide_share_delete(const struct decide *d, Zbs__Metalog__Record **ret)
{
    const Zbs__Meta__ShareDeleteRequest *rq = (const void *)d->rq;
    struct share *s;
    int rc = decide_share(d, rq->name, &s);

    if (rc < 0)
        return rc;
    if (s->inodes > 1)
        return err_set(ERR_NOT_EMPTY,
                       "share '%s' has %" PRIu64 " files and directories: remove them first",
                       s->name, s->inodes - 1);
    *ret = record_new(d->pad, ZBS__METALOG__RECORD__KIND_SHARE_REMOVE);
    (*ret)->share_remove = PAD_NEW(d->pad, Zbs__Metalog__ShareRemove);
    zbs__metalog__share_remove__init((*ret)->share_remove);
    (*ret)->share_remove->share_id = s->id;
    return 0;
}

int answer_share_list(const struct decide *d, ProtobufCMessage *reply)
{
    const struct tree *t = &d->st->tree;
    Zbs__Meta__ShareListReply *m = (void *)reply;

    m->version = t->shares_version;
    m->shares = PAD_NEW_ARRAY(d->pad, Zbs__Meta__Share *, t->shares.count);
    m->n_shares = t->shares.count;
    for (uint32_t i = 0; i < t->shares.count; i++) {
        m->shares[i] = PAD_NEW(d->pad, Zbs__Meta__Share);
        view_share(m->shares[i], d->st, t->shares.items[i], d->pad);
    }
    return 0;
}
