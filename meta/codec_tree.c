/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares, inodes and entries to pairs of the key-value store: see codec.h. */
#include "meta/codec.h"
#include "meta/codec_key.h"
#include "meta/locks.h"
#include "meta/pad.h"
#include "proto/metalog.pb-c.h"

void codec_put_share(const struct codec_sink *to, const struct share *s)
{
    struct key k = key_of_u32(KEY_SHARE, s->id);
    Zbs__Metalog__KvShare m = ZBS__METALOG__KV_SHARE__INIT;
    struct pad pad;

    pad_init(&pad);
    m.name = s->name;
    m.pool_id = s->pool_id;
    m.root = s->root;
    m.anonymous_uid = s->anonymous_uid;
    m.anonymous_gid = s->anonymous_gid;
    m.version = s->version;
    m.clients = PAD_NEW_ARRAY(&pad, Zbs__Metalog__KvShareClient *, s->n_clients);
    m.n_clients = s->n_clients;
    for (uint32_t i = 0; i < s->n_clients; i++) {
        Zbs__Metalog__KvShareClient *c = m.clients[i] = PAD_NEW(&pad, Zbs__Metalog__KvShareClient);

        zbs__metalog__kv_share_client__init(c);
        c->network = s->clients[i].network;
        c->read_only = s->clients[i].read_only;
        c->squash = s->clients[i].squash;
    }
    codec_sink_put(to, &k, &m.base);
    pad_fini(&pad);
}

void codec_put_inode(const struct codec_sink *to, const struct inode *i)
{
    struct key k = key_of_u64(KEY_INODE, i->id);
    Zbs__Metalog__KvInode m = ZBS__METALOG__KV_INODE__INIT;

    m.share_id = i->share->id;
    m.type = i->type;
    m.mode = i->mode;
    m.uid = i->uid;
    m.gid = i->gid;
    m.size = i->size;
    m.atime_ns = i->atime_ns;
    m.mtime_ns = i->mtime_ns;
    m.ctime_ns = i->ctime_ns;
    m.change = i->change;
    m.rdev = i->rdev;
    m.volume_id = i->volume_id;
    m.candidate = i->candidate;
    m.dirty_end = i->dirty_end;
    m.cut = i->cut;
    m.zeroer = i->zeroer;
    if (i->writers != NULL) {
        m.writer_sessions = i->writers->sessions;
        m.writer_leases = i->writers->leases;
        m.n_writer_sessions = m.n_writer_leases = i->writers->count;
    }
    m.data = (ProtobufCBinaryData){.data = i->data, .len = i->data_len};
    if (i->exclusive)
        m.verifier =
            (ProtobufCBinaryData){.data = (uint8_t *)i->verifier, .len = sizeof(i->verifier)};
    codec_sink_put(to, &k, &m.base);
}

void codec_put_entry(const struct codec_sink *to, const struct dir_entry *e)
{
    struct key k = key_entry(e->dir->id, e->cookie);
    Zbs__Metalog__KvEntry m = ZBS__METALOG__KV_ENTRY__INIT;

    m.name = (char *)e->name;
    m.inode_id = e->inode->id;
    codec_sink_put(to, &k, &m.base);
}

void codec_put_holder(const struct codec_sink *to, const struct lock_holder *h)
{
    struct key k = key_locks(h->inode->id, h->id);
    Zbs__Metalog__KvLocks m = ZBS__METALOG__KV_LOCKS__INIT;
    struct pad pad;

    pad_init(&pad);
    m.client = h->client;
    m.owner = (ProtobufCBinaryData){.data = h->owner, .len = h->owner_len};
    m.svid = h->svid;
    m.ranges = PAD_NEW_ARRAY(&pad, Zbs__Metalog__KvLockRange *, h->n_ranges);
    m.n_ranges = h->n_ranges;
    for (uint32_t i = 0; i < h->n_ranges; i++) {
        Zbs__Metalog__KvLockRange *r = m.ranges[i] = PAD_NEW(&pad, Zbs__Metalog__KvLockRange);

        zbs__metalog__kv_lock_range__init(r);
        r->start = h->ranges[i].start;
        r->end = h->ranges[i].end;
        r->exclusive = h->ranges[i].exclusive;
    }
    codec_sink_put(to, &k, &m.base);
    pad_fini(&pad);
}

void codec_del_share(const struct codec_sink *to, uint32_t id)
{
    codec_sink_del(to, key_of_u32(KEY_SHARE, id));
}

void codec_del_inode(const struct codec_sink *to, uint64_t id)
{
    codec_sink_del(to, key_of_u64(KEY_INODE, id));
}

void codec_del_entry(const struct codec_sink *to, const struct dir_entry *e)
{
    codec_sink_del(to, key_entry(e->dir->id, e->cookie));
}

void codec_del_holder(const struct codec_sink *to, const struct lock_holder *h)
{
    codec_sink_del(to, key_locks(h->inode->id, h->id));
}

void codec_put_tree(const struct codec_sink *to, const struct tree *t)
{
    for (uint32_t i = 0; i < t->shares.count; i++)
        codec_put_share(to, t->shares.items[i]);
    LIST_FOREACH (h, &t->lock_holders, struct lock_holder, link)
        codec_put_holder(to, h);
    for (uint64_t i = 0; i < t->inodes.cap; i++) {
        const struct inode *inode = (const void *)(uintptr_t)t->inodes.entries[i].value;

        if (inode == NULL)
            continue;
        codec_put_inode(to, inode);
        for (uint32_t k = 0; k < inode->entries.count; k++)
            codec_put_entry(to, inode->entries.items[k]);
    }
}
