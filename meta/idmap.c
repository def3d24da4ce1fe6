/* SPDX-License-Identifier: Apache-2.0
 *
 * Hash map of ids: see idmap.h. */
#include "meta/idmap.h"

#include "common/base/assert.h"
#include "common/base/mem.h"

static uint64_t idmap_home(const struct idmap *m, uint64_t id)
{
    uint64_t h = id * 0x9e3779b97f4a7c15u;

    return (h ^ h >> 32) & (m->cap - 1);
}

void idmap_fini(struct idmap *m)
{
    mem_free(m->entries);
    *m = (struct idmap){0};
}

/* Where id is, or the free place where it would go. */
static struct idmap_entry *idmap_find(const struct idmap *m, uint64_t id)
{
    uint64_t i = idmap_home(m, id);

    while (m->entries[i].id != 0 && m->entries[i].id != id)
        i = (i + 1) & (m->cap - 1);
    return &m->entries[i];
}

uint64_t idmap_get(const struct idmap *m, uint64_t id)
{
    if (m->count == 0 || id == 0)
        return 0;
    return idmap_find(m, id)->value;
}

static void idmap_grow(struct idmap *m)
{
    struct idmap old = *m;

    m->cap = old.cap == 0 ? 16 : old.cap * 2;
    m->entries = MEM_NEW_ARRAY(struct idmap_entry, m->cap);
    for (uint64_t i = 0; i < old.cap; i++) {
        if (old.entries[i].id != 0)
            *idmap_find(m, old.entries[i].id) = old.entries[i];
    }
    mem_free(old.entries);
}

void idmap_put(struct idmap *m, uint64_t id, uint64_t value)
{
    struct idmap_entry *e;

    ASSERT(id != 0 && value != 0);
    if (m->count * 4 >= m->cap * 3)
        idmap_grow(m);
    e = idmap_find(m, id);
    if (e->id == 0)
        m->count++;
    *e = (struct idmap_entry){.id = id, .value = value};
}

bool idmap_del(struct idmap *m, uint64_t id)
{
    struct idmap_entry *hole;
    uint64_t i, mask = m->cap - 1;

    if (m->count == 0 || id == 0)
        return false;
    hole = idmap_find(m, id);
    if (hole->id == 0)
        return false;
    m->count--;
    /* Entries behind the hole move into it unless that would put them before their home. */
    i = (uint64_t)(hole - m->entries);
    for (uint64_t j = (i + 1) & mask; m->entries[j].id != 0; j = (j + 1) & mask) {
        uint64_t home = idmap_home(m, m->entries[j].id);

        if (((j - home) & mask) >= ((j - i) & mask)) {
            m->entries[i] = m->entries[j];
            i = j;
        }
    }
    m->entries[i] = (struct idmap_entry){0};
    return true;
}
