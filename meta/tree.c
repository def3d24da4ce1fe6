/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares in the state: see tree.h. */
#include "meta/tree.h"

#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "meta/locks.h"
#include "meta/state_compare.h"

#define ENTRY_BYTES 32u /* that one adds to the size of its directory */

static int compare_share(const void *item, const void *key)
{
    return strcmp(((const struct share *)item)->name, key);
}

static int compare_entry(const void *item, const void *key)
{
    return compare_u64(((const struct dir_entry *)item)->cookie, *(const uint64_t *)key);
}

void tree_init(struct tree *t)
{
    *t = (struct tree){.next_share_id = 1};
    list_init(&t->lock_holders);
}

/* ---- shares ---- */

struct share *tree_share(const struct tree *t, const char *name)
{
    return sorted_find(&t->shares, compare_share, name);
}

struct share *tree_share_by_id(const struct tree *t, uint32_t id)
{
    for (uint32_t i = 0; i < t->shares.count; i++) {
        struct share *s = t->shares.items[i];

        if (s->id == id)
            return s;
    }
    return NULL;
}

struct share *tree_pool_share(const struct tree *t, uint32_t pool_id)
{
    for (uint32_t i = 0; i < t->shares.count; i++) {
        struct share *s = t->shares.items[i];

        if (s->pool_id == pool_id)
            return s;
    }
    return NULL;
}

struct share *tree_share_add(struct tree *t, uint32_t id, const char *name)
{
    struct share *s = MEM_NEW(struct share);

    s->id = id;
    s->name = mem_strdup(name);
    sorted_insert(&t->shares, compare_share, name, s);
    return s;
}

static void share_drop_clients(struct share *s)
{
    for (uint32_t i = 0; i < s->n_clients; i++)
        mem_free(s->clients[i].network);
    mem_free(s->clients);
}

void share_set_clients(struct share *s, Zbs__Metalog__KvShareClient *const *clients, size_t n)
{
    share_drop_clients(s);
    s->clients = MEM_NEW_ARRAY(struct share_client, MAX(n, (size_t)1));
    s->n_clients = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        s->clients[i] = (struct share_client){.network = mem_strdup(clients[i]->network),
                                              .read_only = clients[i]->read_only,
                                              .squash = clients[i]->squash};
}

static void share_free(struct share *s)
{
    share_drop_clients(s);
    mem_free(s->name);
    mem_free(s);
}

void tree_share_remove(struct tree *t, struct share *s)
{
    ASSERT(s->inodes == 0);
    sorted_remove(&t->shares, compare_share, s->name);
    share_free(s);
}

/* ---- inodes ---- */

struct inode *tree_inode(const struct tree *t, uint64_t id)
{
    return idmap_get_ptr(&t->inodes, id);
}

struct inode *tree_inode_add(struct tree *t, struct share *s, uint64_t id,
                             Zbs__Meta__InodeType type)
{
    struct inode *i = MEM_NEW(struct inode);

    i->id = id;
    i->share = s;
    i->type = type;
    list_init(&i->locks);
    if (inode_is_dir(i))
        i->nlink = 2;
    s->inodes++;
    idmap_put_ptr(&t->inodes, id, i);
    return i;
}

static void inode_free(struct inode *i)
{
    sorted_fini(&i->entries);
    mem_free(i->data);
    mem_free(i->writers);
    mem_free(i);
}

void tree_inode_remove(struct tree *t, struct inode *i)
{
    ASSERT(list_empty(&i->locks) && i->entries.count == 0 && (inode_is_dir(i) || i->nlink == 0));
    i->share->inodes--;
    idmap_del(&t->inodes, i->id);
    inode_free(i);
}

void inode_writer_add(struct inode *i, uint64_t session, uint64_t lease)
{
    struct writers *w = i->writers;

    if (w == NULL)
        w = i->writers = MEM_NEW(struct writers);
    ASSERT(w->count < FILE_WRITERS_MAX);
    w->sessions[w->count] = session;
    w->leases[w->count++] = lease;
}

void inode_writer_remove(struct inode *i, uint32_t index)
{
    struct writers *w = i->writers;

    w->count--;
    for (uint32_t k = index; k < w->count; k++) {
        w->sessions[k] = w->sessions[k + 1];
        w->leases[k] = w->leases[k + 1];
    }
    if (w->count > 0)
        return;
    mem_free(w);
    i->writers = NULL;
}

void inode_set_data(struct inode *i, const uint8_t *data, size_t len)
{
    uint8_t *copy;

    while (len > 0 && data[len - 1] == 0)
        len--;
    copy = len > 0 ? mem_alloc(len) : NULL;
    if (len > 0)
        memcpy(copy, data, len);
    mem_free(i->data);
    i->data = copy;
    i->data_len = (uint32_t)len;
}

uint64_t inode_size(const struct inode *i)
{
    return inode_is_dir(i) ? (uint64_t)ENTRY_BYTES * i->entries.count : i->size;
}

bool inode_is_below(const struct inode *dir, const struct inode *top)
{
    while (dir != top && dir->parent != dir)
        dir = dir->parent;
    return dir == top;
}

static char *inode_path_below(const struct inode *i)
{
    char *dir, *path;

    if (i->parent == i)
        return mem_printf("/%s", i->share->name);
    dir = inode_path_below(i->name->dir);
    path = mem_printf("%s/%s", dir, i->name->name);
    mem_free(dir);
    return path;
}

char *inode_path(const struct inode *i)
{
    if (i->name == NULL && i->parent != i)
        return mem_printf("inode %" PRIu64 " of /%s", i->id, i->share->name);
    return inode_path_below(i);
}

/* ---- entries ---- */

static uint64_t entry_hash(const struct inode *dir, const char *name)
{
    uint64_t h = prng_mix(dir->id);

    for (const char *c = name; *c != 0; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3u;
    return prng_mix(h) | 1;
}

struct dir_entry *tree_entry(const struct tree *t, const struct inode *dir, const char *name)
{
    struct dir_entry *e = idmap_get_ptr(&t->entries, entry_hash(dir, name));

    while (e != NULL && (e->dir != dir || strcmp(e->name, name) != 0))
        e = e->next;
    return e;
}

uint32_t inode_entries_after(const struct inode *dir, uint64_t cookie)
{
    bool found;
    uint32_t at = sorted_lower(&dir->entries, compare_entry, &cookie, &found);

    return found ? at + 1 : at;
}

struct dir_entry *tree_entry_add(struct tree *t, struct inode *dir, const char *name,
                                 struct inode *i, uint64_t cookie)
{
    size_t len = strlen(name);
    uint64_t hash = entry_hash(dir, name);
    struct dir_entry *e = mem_alloc(sizeof(*e) + len + 1);

    *e = (struct dir_entry){
        .cookie = cookie, .dir = dir, .inode = i, .next = idmap_get_ptr(&t->entries, hash)};
    memcpy(e->name, name, len + 1);
    idmap_put_ptr(&t->entries, hash, e);
    sorted_insert(&dir->entries, compare_entry, &cookie, e);
    i->name = e;
    if (inode_is_dir(i)) {
        i->parent = dir;
        dir->nlink++;
    } else {
        i->nlink++;
    }
    return e;
}

void tree_entry_remove(struct tree *t, struct dir_entry *e)
{
    uint64_t hash = entry_hash(e->dir, e->name);
    struct dir_entry *head = idmap_get_ptr(&t->entries, hash);

    if (head == e && e->next == NULL) {
        idmap_del(&t->entries, hash);
    } else if (head == e) {
        idmap_put_ptr(&t->entries, hash, e->next);
    } else {
        while (head->next != e)
            head = head->next;
        head->next = e->next;
    }
    sorted_remove(&e->dir->entries, compare_entry, &e->cookie);
    if (e->inode->name == e)
        e->inode->name = NULL;
    if (inode_is_dir(e->inode))
        e->dir->nlink--;
    else
        e->inode->nlink--;
    mem_free(e);
}

void tree_fini(struct tree *t)
{
    while (!list_empty(&t->lock_holders))
        tree_holder_remove(t, LIST_FIRST(&t->lock_holders, struct lock_holder, link));
    for (uint64_t i = 0; i < t->inodes.cap; i++) {
        struct inode *inode = (struct inode *)(uintptr_t)t->inodes.entries[i].value;

        if (inode == NULL)
            continue;
        for (uint32_t k = 0; k < inode->entries.count; k++)
            mem_free(inode->entries.items[k]);
        inode_free(inode);
    }
    for (uint32_t i = 0; i < t->shares.count; i++)
        share_free(t->shares.items[i]);
    sorted_fini(&t->shares);
    idmap_fini(&t->inodes);
    idmap_fini(&t->entries);
}
