/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares, inodes and entries from the key-value store: see codec.h. */
#include <string.h>
#include "meta/load_kind.h"
#include "meta/locks.h"

int load_share(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvShare *m = (const void *)msg;
    struct tree *t = &l->st->tree;
    uint32_t id = key_get_u32(key + 1);
    struct share *s;

    (void)key_len;
    if (id == 0 || id >= t->next_share_id || tree_share(t, m->name) != NULL ||
        state_pool_by_id(l->st, m->pool_id) == NULL || m->n_clients > SHARE_CLIENTS_MAX)
        return load_damaged("bad share");
    s = tree_share_add(t, id, m->name);
    s->pool_id = m->pool_id;
    s->root = m->root;
    share_set_clients(s, m->clients, m->n_clients);
    s->anonymous_uid = m->anonymous_uid;
    s->anonymous_gid = m->anonymous_gid;
    s->version = m->version;
    return 0;
}

int load_inode(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvInode *m = (const void *)msg;
    struct share *s = tree_share_by_id(&l->st->tree, m->share_id);
    uint64_t id = key_get_u64(key + 1);
    struct inode *i;

    (void)key_len;
    if (id == 0 || s == NULL || m->type <= ZBS__META__INODE_TYPE__INODE_NONE ||
        m->type > ZBS__META__INODE_TYPE__INODE_FIFO || m->data.len > FILE_INLINE_BYTES ||
        (m->verifier.len != 0 && m->verifier.len != sizeof(i->verifier)) ||
        m->n_writer_sessions > FILE_WRITERS_MAX || m->n_writer_leases != m->n_writer_sessions)
        return load_damaged("bad inode");
    i = tree_inode_add(&l->st->tree, s, id, (Zbs__Meta__InodeType)m->type);
    i->mode = m->mode;
    i->uid = m->uid;
    i->gid = m->gid;
    i->size = m->size;
    i->atime_ns = m->atime_ns;
    i->mtime_ns = m->mtime_ns;
    i->ctime_ns = m->ctime_ns;
    i->change = m->change;
    i->rdev = m->rdev;
    i->volume_id = m->volume_id;
    i->candidate = m->candidate;
    i->dirty_end = m->dirty_end;
    i->cut = m->cut;
    i->zeroer = m->zeroer;
    for (size_t k = 0; k < m->n_writer_leases; k++)
        inode_writer_add(i, m->writer_sessions[k], m->writer_leases[k]);
    inode_set_data(i, m->data.data, m->data.len);
    i->exclusive = m->verifier.len > 0;
    if (i->exclusive)
        memcpy(i->verifier, m->verifier.data, sizeof(i->verifier));
    if (s->root == id)
        i->parent = i;
    return 0;
}

int load_entry(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvEntry *m = (const void *)msg;
    struct tree *t = &l->st->tree;
    struct inode *dir = tree_inode(t, key_get_u64(key + 1)), *i = tree_inode(t, m->inode_id);

    (void)key_len;
    if (dir == NULL || i == NULL || !inode_is_dir(dir) || dir->share != i->share ||
        (inode_is_dir(i) && i->parent != NULL) || m->name[0] == 0 ||
        tree_entry(t, dir, m->name) != NULL)
        return load_damaged("bad directory entry");
    tree_entry_add(t, dir, m->name, i, key_get_u64(key + 9));
    return 0;
}

int load_locks(struct loader *l, const uint8_t *key, size_t key_len, const ProtobufCMessage *msg)
{
    const Zbs__Metalog__KvLocks *m = (const void *)msg;
    struct inode *i = tree_inode(&l->st->tree, key_get_u64(key + 1));
    struct lock_holder *h;

    (void)key_len;
    if (i == NULL || m->n_ranges == 0 ||
        inode_lock_holder(i, m->client, &m->owner, m->svid) != NULL)
        return load_damaged("bad locks");
    h = tree_holder_add(&l->st->tree, i, key_get_u64(key + 9), m->client, &m->owner, m->svid);
    for (size_t k = 0; k < m->n_ranges; k++) {
        const struct lock_range r = {.start = m->ranges[k]->start,
                                     .end = m->ranges[k]->end,
                                     .exclusive = m->ranges[k]->exclusive};

        if (r.start >= r.end)
            return load_damaged("bad locks");
        holder_change(h, &r, true);
    }
    return 0;
}

/* A volume of a file, and the file that it is of, name each other. */
static bool volume_is_of(const struct state *st, uint64_t volume_id, const struct inode *i)
{
    const struct volume *v = state_volume(st, volume_id);

    return volume_id == 0 || (v != NULL && !v->removed && v->inode_id == i->id);
}

static int check_volumes(const struct state *st)
{
    for (uint64_t i = 0; i < st->volumes.cap; i++) {
        const struct volume *v = (const void *)(uintptr_t)st->volumes.entries[i].value;
        const struct inode *file;

        if (v == NULL || v->removed || v->inode_id == 0)
            continue;
        file = tree_inode(&st->tree, v->inode_id);
        if (file == NULL || (file->volume_id != v->id && file->candidate != v->id))
            return load_damaged("a volume of a file that does not have it");
    }
    return 0;
}

int load_check_tree(const struct state *st)
{
    const struct tree *t = &st->tree;

    for (uint32_t i = 0; i < t->shares.count; i++) {
        const struct share *s = t->shares.items[i];
        const struct inode *root = tree_inode(t, s->root);

        if (root == NULL || !inode_is_dir(root) || root->share != s)
            return load_damaged("a share without its root");
    }
    for (uint64_t i = 0; i < t->inodes.cap; i++) {
        const struct inode *inode = (const void *)(uintptr_t)t->inodes.entries[i].value;

        if (inode != NULL && (!volume_is_of(st, inode->volume_id, inode) ||
                              !volume_is_of(st, inode->candidate, inode)))
            return load_damaged("a file without its volume");
        if (inode != NULL && (inode_is_dir(inode) ? inode->parent == NULL : inode->nlink == 0))
            return load_damaged("an inode without a name");
    }
    return check_volumes(st);
}
