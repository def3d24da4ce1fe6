/* SPDX-License-Identifier: Apache-2.0
 *
 * The leader's way to the log: records into entries, entries into ZooKeeper (several in flight, in
 * order), confirmed entries into the store. See lead.h. */
#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/env.h"
#include "meta/apply.h"
#include "meta/lead.h"

#define STORE_BACKLOG_MAX 64u

void entry_free(struct entry *e)
{
    kv_batch_free(e->batch);
    mem_free(e->bytes);
    mem_free(e);
}

/* ---- records into entries ---- */

static uint8_t *entry_room(struct entry *e, size_t len)
{
    if (e->cap - e->len < len) {
        e->cap = MAX(e->cap * 2, e->len + len + 512);
        e->bytes = mem_realloc(e->bytes, e->cap);
    }
    return e->bytes + e->len;
}

/* An encoded message is the concatenation of encodings of its parts: first a header without
 * records, then each record as an entry that has nothing else. */
static void entry_append(struct entry *e, const Zbs__Metalog__LogEntry *part)
{
    size_t len = zbs__metalog__log_entry__get_packed_size(part);
    size_t packed = zbs__metalog__log_entry__pack(part, entry_room(e, len));

    ASSERT(packed == len);
    e->len += len;
}

/* The open entry, or a new one if it is full. */
static struct entry *entry_open(struct lead *l, size_t record_bytes)
{
    struct entry *e = CONTAINER_OF(l->queue.prev, struct entry, link);
    Zbs__Metalog__LogEntry header = ZBS__METALOG__LOG_ENTRY__INIT;

    if (!list_empty(&l->queue) && !e->sealed && e->len + record_bytes <= ENTRY_BYTES_MAX)
        return e;
    e = MEM_NEW(struct entry);
    e->batch = kv_batch_new();
    e->first_mutation = l->m->st.next_mutation;
    header.term = l->term.term;
    header.first_mutation = e->first_mutation;
    entry_append(e, &header);
    list_push_back(&l->queue, &e->link);
    return e;
}

void lead_submit(struct metad *m, const Zbs__Metalog__Record *r, struct pad *pad,
                 struct packed *ret_reply)
{
    struct lead *l = m->lead;
    Zbs__Metalog__LogEntry part = ZBS__METALOG__LOG_ENTRY__INIT;
    Zbs__Metalog__Record *records[1] = {(Zbs__Metalog__Record *)r};
    struct entry *e;
    size_t before;
    int rc;

    part.records = records;
    part.n_records = 1;
    e = entry_open(l, zbs__metalog__log_entry__get_packed_size(&part));
    before = e->len;
    entry_append(e, &part);
    l->queue_bytes += e->len - before;
    rc = apply_record(&m->st, r, e->batch, pad, ret_reply);
    ASSERTF(rc == 0, "a decision does not fit the state that it was made from: %s", err_text(rc));
    codec_header_take(&e->header, &m->st);
    e->last_ticket = ++l->ticket;
    co_cond_broadcast(&l->m->changed);
}

/* ---- entries into the log ---- */

static void confirm_one(struct lead *l, struct entry *e)
{
    ASSERT(e->index == l->confirmed_index + 1);
    l->confirmed_index = e->index;
    l->confirmed_ticket = e->last_ticket;
    log_sizes_add(&l->m->log_sizes, e->index, e->len);
    list_del(&e->link);
    list_push_back(&l->confirmed, &e->link);
    l->store_backlog++;
}

void append_confirm(struct lead *l)
{
    while (!list_empty(&l->flight)) {
        struct entry *e = LIST_FIRST(&l->flight, struct entry, link);

        if (!e->done)
            break;
        confirm_one(l, e);
    }
    co_cond_broadcast(&l->m->changed);
}

void append_requeue(struct lead *l, uint64_t head, int32_t head_version)
{
    LIST_FOREACH (e, &l->flight, struct entry, link)
        e->done = e->index <= head;
    append_confirm(l);
    ASSERTF(l->confirmed_index == head, "confirmed %" PRIu64 ", head %" PRIu64, l->confirmed_index,
            head);
    while (!list_empty(&l->flight)) { /* from the back, so that the order stays */
        struct entry *e = CONTAINER_OF(l->flight.prev, struct entry, link);

        list_del(&e->link);
        list_push_front(&l->queue, &e->link);
        l->queue_bytes += e->len;
    }
    l->next_index = head + 1;
    l->head_version = head_version;
}

/* Sends the first queued entry. Nothing may suspend between taking it and zk_append: appends reach
 * ZooKeeper in the order in which they were submitted. */
static co_fn void append_one(struct lead *l)
{
    struct entry *e = LIST_FIRST(&l->queue, struct entry, link);
    int32_t version = l->head_version;
    nsec_t sent = co_now();
    int rc;

    list_del(&e->link);
    list_push_back(&l->flight, &e->link);
    l->queue_bytes -= MIN(l->queue_bytes, e->len);
    e->sealed = true;
    e->index = l->next_index++;
    /* The node's version wraps like this, too. */
    l->head_version = (int32_t)((uint32_t)version + 1);
    l->users++;
    rc = zk_append(l->m, l->term.version, version, e->index, e->bytes, e->len);
    l->users--;
    if (rc < 0) {
        lead_break(l, "append", rc);
        return;
    }
    e->done = true;
    lead_written(l, sent);
    append_confirm(l);
}

int append_main(void *arg)
{
    struct lead *l = arg;

    while (!l->ended) {
        if (l->broken || list_empty(&l->queue) || l->store_backlog >= STORE_BACKLOG_MAX) {
            if (co_cond_wait(&l->m->changed) < 0)
                break;
            continue;
        }
        append_one(l);
    }
    return 0;
}

/* ---- confirmed entries into the store ---- */

static co_fn void store_one(struct lead *l)
{
    struct entry *e = LIST_FIRST(&l->confirmed, struct entry, link);
    struct codec_sink to = {.batch = e->batch};
    int rc;

    list_del(&e->link);
    e->header.applied = e->index;
    codec_put_header(&to, &e->header);
    rc = kv_write(l->m->kv, e->batch, false);
    if (rc < 0)
        env_halt("%s: %s", l->m->conf.data_dir, err_text(rc));
    ASSERT(l->m->applied + 1 == e->index);
    l->m->applied = e->index;
    l->store_backlog--;
    entry_free(e);
    co_cond_broadcast(&l->m->changed);
}

co_fn void store_drain(struct lead *l)
{
    while (!list_empty(&l->confirmed))
        store_one(l);
}

int store_main(void *arg)
{
    struct lead *l = arg;

    while (!l->ended) {
        if (list_empty(&l->confirmed)) {
            if (co_cond_wait(&l->m->changed) < 0)
                break;
            continue;
        }
        store_one(l);
    }
    return 0;
}
