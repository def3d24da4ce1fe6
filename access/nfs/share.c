/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares and who may use them, as meta told last. Each call is judged by this, so what an
 * administrator takes away is gone within a second, mounted or not; while meta can't be reached the
 * last answer holds, as volumes are served on, too. */
#include "access/nfs/nfs_int.h"

#define AGE_MAX  NSEC_PER_SEC
#define WAIT_MAX (2 * NSEC_PER_SEC)

/* ---- the list ---- */

static void share_free(struct nfs_share *share)
{
    for (size_t i = 0; i < share->client_count; i++)
        mem_free(share->clients[i].text);
    mem_free(share->clients);
    mem_free(share->name);
    mem_free(share->pool);
}

static void list_free(struct nfs_shares *shares)
{
    for (size_t i = 0; i < shares->count; i++)
        share_free(&shares->list[i]);
    mem_free(shares->list);
    shares->list = NULL;
    shares->count = 0;
}

/* An entry that can't be understood lets nobody in. */
static void clients_take(struct nfs_share *share, const Zbs__Meta__Share *m)
{
    share->clients = MEM_NEW_ARRAY(struct nfs_permit, m->n_clients);
    for (size_t i = 0; i < m->n_clients; i++) {
        struct nfs_permit *c = &share->clients[share->client_count];

        if (network_parse(m->clients[i]->network, &c->network) < 0) {
            log_warn("nfs.share", "share=%s why=\"%s\"", m->name, err_text(ERR_INVAL));
            continue;
        }
        c->text = mem_strdup(m->clients[i]->network);
        c->read_only = m->clients[i]->read_only;
        c->squash = m->clients[i]->squash;
        share->client_count++;
    }
}

static void list_take(struct nfs_shares *shares, const Zbs__Meta__ShareListReply *m)
{
    list_free(shares);
    shares->list = MEM_NEW_ARRAY(struct nfs_share, m->n_shares);
    shares->count = m->n_shares;
    for (size_t i = 0; i < m->n_shares; i++) {
        struct nfs_share *share = &shares->list[i];

        share->id = m->shares[i]->id;
        share->root = m->shares[i]->root;
        share->name = mem_strdup(m->shares[i]->name);
        share->pool = mem_strdup(m->shares[i]->pool);
        share->anonymous_uid = m->shares[i]->anonymous_uid;
        share->anonymous_gid = m->shares[i]->anonymous_gid;
        clients_take(share, m->shares[i]);
    }
}

void nfs_shares_init(struct nfs_shares *shares)
{
    *shares = (struct nfs_shares){0};
    co_cond_init(&shares->read);
    co_group_init(&shares->group);
}

co_fn void nfs_shares_fini(struct nfs_shares *shares)
{
    co_group_close(&shares->group);
    list_free(shares);
}

/* ---- reading ---- */

static co_fn int read_main(void *arg)
{
    struct nfs_server *s = arg;
    struct nfs_shares *shares = &s->shares;
    Zbs__Meta__ShareListRequest rq = ZBS__META__SHARE_LIST_REQUEST__INIT;
    struct rpc_reply r;
    int rc = nfs_meta_call(s, META_SHARE_LIST, &rq.base, &r);

    if (rc == 0) {
        list_take(shares, (const Zbs__Meta__ShareListReply *)r.msg);
        shares->known = true;
    }
    rpc_reply_free(&r);
    if (rc < 0 && !shares->failing)
        log_warn("nfs.shares", "why=\"%s\"", err_text(rc));
    shares->failing = rc < 0;
    shares->reading = false;
    co_cond_broadcast(&shares->read);
    return 0;
}

static void read_begin(struct nfs_server *s)
{
    struct nfs_shares *shares = &s->shares;

    if (shares->reading)
        return;
    shares->reading = true;
    shares->tried_at = co_now();
    co_spawn_detached_deadline(&shares->group, "nfs-shares", read_main, s);
}

static co_fn void read_wait(struct nfs_shares *shares)
{
    nsec_t former = co_deadline_push(co_now() + WAIT_MAX);
    int rc = 0;

    while (shares->reading && rc == 0)
        rc = co_cond_wait(&shares->read);
    co_deadline_restore(former);
    if (rc == ERR_TIMEOUT)
        shares->failing = true;
}

static int known(const struct nfs_shares *shares)
{
    return shares->known ? 0 : err_set(ERR_AGAIN, "meta has not told the shares yet");
}

co_fn int nfs_shares_refresh(struct nfs_server *s)
{
    struct nfs_shares *shares = &s->shares;

    if (!shares->known || co_now() - shares->tried_at >= AGE_MAX)
        read_begin(s);
    if (shares->reading && !(shares->known && shares->failing))
        read_wait(shares);
    return known(shares);
}

co_fn int nfs_shares_reread(struct nfs_server *s)
{
    struct nfs_shares *shares = &s->shares;

    if (shares->reading) /* since before: its answer may be older than what we are asked for */
        read_wait(shares);
    read_begin(s);
    read_wait(shares);
    return known(shares);
}

/* ---- looking ---- */

const struct nfs_share *nfs_share_by_id(const struct nfs_server *s, uint64_t id)
{
    for (size_t i = 0; i < s->shares.count; i++) {
        if (s->shares.list[i].id == id)
            return &s->shares.list[i];
    }
    return NULL;
}

const struct nfs_share *nfs_share_by_name(const struct nfs_server *s, const char *name, size_t len)
{
    for (size_t i = 0; i < s->shares.count; i++) {
        const struct nfs_share *share = &s->shares.list[i];

        if (strlen(share->name) == len && memcmp(share->name, name, len) == 0)
            return share;
    }
    return NULL;
}

const struct nfs_permit *nfs_share_permit(const struct nfs_share *share, const struct addr *addr)
{
    for (size_t i = 0; i < share->client_count; i++) {
        if (network_contains(&share->clients[i].network, addr))
            return &share->clients[i];
    }
    return NULL;
}
