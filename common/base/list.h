/* SPDX-License-Identifier: Apache-2.0
 *
 * Doubly linked list with the links inside the elements. A head and an unlinked element both
 * point to themselves. */
#ifndef ZBS_BASE_LIST_H
#define ZBS_BASE_LIST_H

#include <stdbool.h>
#include "common/base/attr.h"

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Is this element on a list? It must have been initialised. */
static inline bool list_linked(const struct list *l)
{
    return l->next != l;
}

static inline void list_add_after(struct list *pos, struct list *elem)
{
    elem->prev = pos;
    elem->next = pos->next;
    pos->next->prev = elem;
    pos->next = elem;
}

static inline void list_push_back(struct list *head, struct list *elem)
{
    list_add_after(head->prev, elem);
}

static inline void list_push_front(struct list *head, struct list *elem)
{
    list_add_after(head, elem);
}

/* Unlinks; safe on an unlinked, initialised element. */
static inline void list_del(struct list *elem)
{
    elem->prev->next = elem->next;
    elem->next->prev = elem->prev;
    list_init(elem);
}

static inline struct list *list_pop_front(struct list *head)
{
    struct list *e = head->next;

    if (e == head)
        return NULL;
    list_del(e);
    return e;
}

/* Moves all elements of from to the end of to. */
static inline void list_splice_back(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define LIST_ENTRY(ptr, type, m)  CONTAINER_OF(ptr, type, m)
#define LIST_FIRST(head, type, m) (list_empty(head) ? NULL : CONTAINER_OF((head)->next, type, m))
#define LIST_FOREACH(var, head, type, m)                                                           \
    for (type *var = CONTAINER_OF((head)->next, type, m); &var->m != (head);                       \
         var = CONTAINER_OF(var->m.next, type, m))
/* The body may unlink and free var. */
#define LIST_FOREACH_SAFE(var, head, type, m)                                                      \
    for (type *var = CONTAINER_OF((head)->next, type, m),                                          \
              *var##_next = CONTAINER_OF(var->m.next, type, m);                                    \
         &var->m != (head);                                                                        \
         var = var##_next, var##_next = CONTAINER_OF(var##_next->m.next, type, m))

#endif
