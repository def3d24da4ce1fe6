/* SPDX-License-Identifier: Apache-2.0
 *
 * The tree of nodes that a server of the coordination service holds. */
#include <stdio.h>
#include <string.h>
#include "common/env/sim/sim_coordd.h"

void coord_tree_init(struct coord_tree *t)
{
    memset(t, 0, sizeof(*t));
    list_init(&t->watches);
}

static void node_free(struct coord_node *n)
{
    for (uint32_t i = 0; i < n->kid_count; i++) {
        node_free(n->kids[i]);
        sim_mem_free(n->kids[i]);
    }
    sim_mem_free(n->kids);
    sim_mem_free(n->data);
    sim_mem_free(n->name);
}

void coord_tree_fini(struct coord_tree *t)
{
    ASSERT(list_empty(&t->watches));
    node_free(&t->root);
}

/* Where the name is, or would be. */
static uint32_t kid_pos(const struct coord_node *n, const char *name, size_t len, bool *ret_found)
{
    uint32_t lo = 0, hi = n->kid_count;

    *ret_found = false;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int c = strncmp(n->kids[mid]->name, name, len);

        if (c == 0 && n->kids[mid]->name[len] != 0)
            c = 1;
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct coord_node *find_part(struct coord_node *root, const char *path, size_t path_len)
{
    struct coord_node *n = root;
    const char *end = path + path_len;

    while (n && path < end && path[1]) {
        size_t len = strcspn(path + 1, "/");
        bool found;
        uint32_t pos = kid_pos(n, path + 1, len, &found);

        n = found ? n->kids[pos] : NULL;
        path += 1 + len;
    }
    return n;
}

struct coord_node *coord_tree_find(struct coord_tree *t, const char *path)
{
    return find_part(&t->root, path, strlen(path));
}

void coord_node_stat(const struct coord_node *n, struct coord_stat *ret)
{
    *ret = (struct coord_stat){
        .version = n->version,
        .czxid = n->czxid,
        .mzxid = n->mzxid,
        .children = (int32_t)n->kid_count,
        .ephemeral = n->owner != 0,
        .data_len = (uint32_t)n->len,
    };
}

static void kid_link(struct coord_node *parent, struct coord_node *kid)
{
    bool found;
    uint32_t pos = kid_pos(parent, kid->name, strlen(kid->name), &found);

    ASSERT(!found);
    if (parent->kid_count == parent->kid_cap) {
        parent->kid_cap = MAX(8u, parent->kid_cap * 2);
        parent->kids = mem_raw_realloc(parent->kids, parent->kid_cap * sizeof(*parent->kids));
    }
    memmove(parent->kids + pos + 1, parent->kids + pos,
            (parent->kid_count - pos) * sizeof(*parent->kids));
    parent->kids[pos] = kid;
    parent->kid_count++;
    kid->parent = parent;
}

static void kid_unlink(struct coord_node *kid)
{
    struct coord_node *parent = kid->parent;
    bool found;
    uint32_t pos = kid_pos(parent, kid->name, strlen(kid->name), &found);

    ASSERT(found);
    parent->kid_count--;
    memmove(parent->kids + pos, parent->kids + pos + 1,
            (parent->kid_count - pos) * sizeof(*parent->kids));
    kid->parent = NULL;
}

static int change_create(struct coord_tree *t, const struct coord_op *op, uint64_t owner,
                         int64_t zxid, struct coord_undo *undo, char **ret_path)
{
    const char *slash = strrchr(op->path, '/');
    struct coord_node *parent = find_part(&t->root, op->path, (size_t)(slash - op->path));
    struct coord_node *n;
    char seq[16] = "";
    bool found;

    if (!parent)
        return ERR_NOTFOUND;
    if (parent->owner)
        return ERR_INVAL; /* ephemerals have no children */
    if (op->flags & COORD_SEQUENCE)
        snprintf(seq, sizeof(seq), "%010u", parent->next_seq);
    n = SIM_NEW(struct coord_node);
    n->name = sim_printf("%s%s", slash + 1, seq);
    (void)kid_pos(parent, n->name, strlen(n->name), &found);
    if (found) {
        node_free(n);
        sim_mem_free(n);
        return ERR_EXISTS;
    }
    n->data = sim_memdup(op->data, op->len);
    n->len = op->len;
    n->czxid = n->mzxid = zxid;
    n->owner = op->flags & COORD_EPHEMERAL ? owner : 0;
    kid_link(parent, n);
    parent->next_seq++;
    undo->node = n;
    undo->parent = parent;
    if (ret_path)
        *ret_path = sim_printf("%s%s", op->path, seq);
    return 0;
}

int coord_tree_change(struct coord_tree *t, const struct coord_op *op, uint64_t owner, int64_t zxid,
                      struct coord_undo *undo, char **ret_path)
{
    struct coord_node *n;

    *undo = (struct coord_undo){.kind = op->kind};
    if (op->kind == COORD_OP_CREATE)
        return change_create(t, op, owner, zxid, undo, ret_path);
    n = coord_tree_find(t, op->path);
    if (!n)
        return ERR_NOTFOUND;
    if (op->version >= 0 && op->version != n->version)
        return ERR_STALE;
    undo->node = n;
    undo->parent = n->parent;
    if (op->kind == COORD_OP_SET) {
        undo->data = n->data;
        undo->len = n->len;
        undo->version = n->version;
        undo->mzxid = n->mzxid;
        n->data = sim_memdup(op->data, op->len);
        n->len = op->len;
        n->version++;
        n->mzxid = zxid;
    } else if (op->kind == COORD_OP_DELETE) {
        if (n->kid_count > 0)
            return ERR_NOT_EMPTY;
        kid_unlink(n);
    }
    if (ret_path)
        *ret_path = sim_strdup(op->path);
    return 0;
}

void coord_tree_undo(struct coord_undo *u)
{
    switch (u->kind) {
    case COORD_OP_CREATE:
        kid_unlink(u->node);
        u->parent->next_seq--;
        node_free(u->node);
        sim_mem_free(u->node);
        break;
    case COORD_OP_SET:
        sim_mem_free(u->node->data);
        u->node->data = u->data;
        u->node->len = u->len;
        u->node->version = u->version;
        u->node->mzxid = u->mzxid;
        break;
    case COORD_OP_DELETE:
        kid_link(u->parent, u->node);
        break;
    case COORD_OP_CHECK:
        break;
    }
}

void coord_tree_forget(struct coord_undo *u)
{
    if (u->kind == COORD_OP_SET) {
        sim_mem_free(u->data);
    } else if (u->kind == COORD_OP_DELETE) {
        node_free(u->node);
        sim_mem_free(u->node);
    }
}

static void owned_below(struct coord_node *n, const char *path, uint64_t owner,
                        void (*fn)(void *arg, char *path), void *arg)
{
    for (uint32_t i = 0; i < n->kid_count; i++) {
        char *below = sim_printf("%s/%s", path, n->kids[i]->name);

        owned_below(n->kids[i], below, owner, fn, arg);
        if (n->kids[i]->owner == owner)
            fn(arg, below);
        sim_mem_free(below);
    }
}

void coord_tree_owned(struct coord_tree *t, uint64_t owner, void (*fn)(void *arg, char *path),
                      void *arg)
{
    owned_below(&t->root, "", owner, fn, arg);
}
