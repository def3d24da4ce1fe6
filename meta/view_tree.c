/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares and inodes as messages: see view_tree.h. */
#include "meta/view_tree.h"

void view_share(Zbs__Meta__Share *m, const struct state *st, const struct share *s, struct pad *pad)
{
    zbs__meta__share__init(m);
    m->id = s->id;
    m->name = s->name;
    m->pool = state_pool_by_id(st, s->pool_id)->name;
    m->root = s->root;
    m->anonymous_uid = s->anonymous_uid;
    m->anonymous_gid = s->anonymous_gid;
    m->inodes = s->inodes;
    m->version = s->version;
    m->clients = PAD_NEW_ARRAY(pad, Zbs__Meta__ShareClient *, s->n_clients);
    m->n_clients = s->n_clients;
    for (uint32_t i = 0; i < s->n_clients; i++) {
        Zbs__Meta__ShareClient *c = m->clients[i] = PAD_NEW(pad, Zbs__Meta__ShareClient);

        zbs__meta__share_client__init(c);
        c->network = s->clients[i].network;
        c->read_only = s->clients[i].read_only;
        c->squash = (Zbs__Meta__ShareClient__Squash)s->clients[i].squash;
    }
}

void view_inode(Zbs__Meta__Inode *m, const struct state *st, const struct inode *i)
{
    const struct volume *v = i->volume_id != 0 ? state_volume(st, i->volume_id) : NULL;

    zbs__meta__inode__init(m);
    m->id = i->id;
    m->share_id = i->share->id;
    m->type = i->type;
    m->mode = i->mode;
    m->uid = i->uid;
    m->gid = i->gid;
    m->nlink = i->nlink;
    m->size = inode_size(i);
    m->atime_ns = i->atime_ns;
    m->mtime_ns = i->mtime_ns;
    m->ctime_ns = i->ctime_ns;
    m->change = i->change;
    m->rdev = i->rdev;
    m->parent = i->parent != NULL ? i->parent->id : 0;
    m->volume_id = i->volume_id;
    m->volume_bytes = v != NULL ? v->size_bytes : 0;
    m->candidate = i->candidate;
    m->dirty_end = i->dirty_end;
    m->cut = i->cut;
    m->zeroer = i->zeroer;
    m->data = (ProtobufCBinaryData){.data = i->data, .len = i->data_len};
    if (i->exclusive)
        m->verifier =
            (ProtobufCBinaryData){.data = (uint8_t *)i->verifier, .len = sizeof(i->verifier)};
}

Zbs__Meta__Inode *view_inode_new(const struct state *st, const struct inode *i, struct pad *pad)
{
    Zbs__Meta__Inode *m = PAD_NEW(pad, Zbs__Meta__Inode);

    view_inode(m, st, i);
    return m;
}

Zbs__Meta__InodeWcc *view_wcc_before(const struct inode *i, struct pad *pad)
{
    Zbs__Meta__InodeWcc *m = PAD_NEW(pad, Zbs__Meta__InodeWcc);

    zbs__meta__inode_wcc__init(m);
    m->size = inode_size(i);
    m->mtime_ns = i->mtime_ns;
    m->ctime_ns = i->ctime_ns;
    return m;
}
