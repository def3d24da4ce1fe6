/* SPDX-License-Identifier: Apache-2.0
 *
 * Meta servers among themselves: how far each has applied. Snapshots are in snapshot.c. */
#include <stdio.h>
#include <string.h>
#include "common/base/log.h"
#include "common/base/mem.h"
#include "meta/codec.h"
#include "meta/lead.h"
#include "meta/server.h"

enum { PEER_STATE, PEER_SNAPSHOT };

/* ---- asking ---- */

static int peer_add(struct metad *m, const char *addr)
{
    struct rpc_client_conf conf = {.addr = addr,
                                   .self = m->conf.name,
                                   .cluster_id = "",
                                   .connect_timeout = 300 * NSEC_PER_MSEC};
    struct peer *p;

    if (m->n_peers == PEERS_MAX)
        return err_set(ERR_INVAL, "peers: more than %u addresses", PEERS_MAX);
    p = &m->peers[m->n_peers++];
    p->m = m;
    p->addr = mem_strdup(addr);
    p->client = rpc_client_new(&conf);
    return 0;
}

int peers_init(struct metad *m)
{
    char *list = mem_strdup(m->conf.peers), *save = NULL;
    bool ours = false;
    int rc = 0;

    for (char *a = strtok_r(list, ", \t", &save); a != NULL && rc == 0;
         a = strtok_r(NULL, ", \t", &save)) {
        if (strlen(a) > ADDR_BYTES_MAX)
            rc = err_set(ERR_INVAL, "peers: address '%.40s…' is too long", a);
        else if (strcmp(a, m->conf.listen) == 0)
            ours = true;
        else
            rc = peer_add(m, a);
    }
    if (rc == 0 && m->n_peers > 0 && !ours)
        rc = err_set(ERR_INVAL, "peers '%s' must contain this server's own address %s",
                     m->conf.peers, m->conf.listen);
    mem_free(list);
    return rc;
}

co_fn void peers_close(struct metad *m)
{
    for (uint32_t i = 0; i < m->n_peers; i++) {
        rpc_client_close(m->peers[i].client);
        mem_free(m->peers[i].addr);
    }
    m->n_peers = 0;
}

static co_fn int ask_main(void *arg)
{
    struct peer *p = arg;
    Zbs__Meta__StateRequest rq = ZBS__META__STATE_REQUEST__INIT;
    struct rpc_reply r;
    int rc;

    rpc_reply_init(&r);
    rc = rpc_call(p->client, &zbs__meta__meta_peer__descriptor, PEER_STATE, &rq.base, NULL, &r);
    p->alive = rc == 0;
    if (rc == 0) {
        const Zbs__Meta__StateReply *m = (const void *)r.msg;

        snprintf(p->name, sizeof(p->name), "%s", m->name);
        p->applied = m->applied;
        p->synced = m->synced;
    }
    rpc_reply_free(&r);
    return 0;
}

co_fn uint32_t peers_ask(struct metad *m, nsec_t patience)
{
    nsec_t former = co_deadline_push(co_now() + patience);
    struct co_group group;
    uint32_t answered = 0;

    co_group_init(&group);
    for (uint32_t i = 0; i < m->n_peers; i++)
        co_spawn(&group, "peer", ask_main, &m->peers[i]);
    (void)co_group_join(&group);
    co_deadline_restore(former);
    for (uint32_t i = 0; i < m->n_peers; i++)
        answered += m->peers[i].alive;
    return answered;
}

/* ---- answering ---- */

int peer_state(struct rpc_request *q)
{
    struct metad *m = q->ctx;
    const Zbs__Meta__StateRequest *rq = (const void *)q->msg;
    Zbs__Meta__StateReply *reply = (void *)q->reply;
    uint64_t applied = m->applied;

    if (m->synced < applied) {
        struct kv_batch *b = kv_batch_new();
        int rc = kv_write(m->kv, b, true);

        kv_batch_free(b);
        if (rc < 0)
            return rc;
        m->synced = MAX(m->synced, applied);
    }
    reply->name = rpc_strdup(q, m->conf.name);
    reply->applied = m->applied;
    reply->synced = m->synced;
    reply->term = m->term;
    if (rq->digest && !m->st_moving && (m->lead == NULL || lead_is_idle(m->lead))) {
        uint64_t digest = codec_digest(&m->st);

        reply->digest.len = sizeof(digest);
        reply->digest.data = rpc_alloc(q, sizeof(digest));
        memcpy(reply->digest.data, &digest, sizeof(digest));
    }
    return 0;
}
