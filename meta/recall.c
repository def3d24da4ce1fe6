/* SPDX-License-Identifier: Apache-2.0
 *
 * Recalling write leases: see recall.h. */
#include "meta/recall.h"

#include "meta/decide_tree.h"
#include "meta/lead.h"

#define RECALL_TIME (2 * NSEC_PER_SEC)

static struct recall *recall_find(struct recalls *r, uint64_t inode_id)
{
    for (uint32_t i = 0; i < RECALLS_MAX; i++) {
        if (r->ring[i].inode_id == inode_id)
            return &r->ring[i];
    }
    return &r->ring[r->next++ % RECALLS_MAX];
}

void recall_note(struct lead *l, uint64_t inode_id)
{
    *recall_find(&l->recalls, inode_id) = (struct recall){inode_id, co_now() + RECALL_TIME};
    co_cond_broadcast(&l->m->changed);
}

static void fill_inode(const struct inode *i, uint64_t session_id, Zbs__Meta__HoldReply *m)
{
    for (uint32_t k = 0; i->writers != NULL && k < i->writers->count; k++) {
        if (i->writers->sessions[k] != session_id)
            continue;
        m->recalled_inodes[m->n_recalled_inodes++] = i->id;
        m->recalled_leases[m->n_recalled_leases++] = i->writers->leases[k];
    }
}

bool recall_fill(const struct lead *l, uint64_t session_id, struct pad *pad,
                 Zbs__Meta__HoldReply *m)
{
    m->recalled_inodes = PAD_NEW_ARRAY(pad, uint64_t, RECALLS_MAX);
    m->recalled_leases = PAD_NEW_ARRAY(pad, uint64_t, RECALLS_MAX);
    for (uint32_t i = 0; i < RECALLS_MAX; i++) {
        const struct recall *r = &l->recalls.ring[i];
        const struct inode *inode =
            co_now() < r->until ? tree_inode(&l->m->st.tree, r->inode_id) : NULL;

        if (inode != NULL)
            fill_inode(inode, session_id, m);
    }
    return m->n_recalled_inodes > 0;
}

int status_file_recall(struct lead *l, const struct decide *d, ProtobufCMessage *reply)
{
    const Zbs__Meta__FileRecallRequest *rq = (const void *)d->rq;
    Zbs__Meta__FileRecallReply *m = (void *)reply;
    struct inode *i;
    int rc = decide_file(d, rq->inode_id, &i);

    if (rc < 0)
        return rc;
    m->writers = file_leases(d->st, i);
    if (m->writers > 0)
        recall_note(l, i->id);
    return 0;
}
