/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying records: see apply.h. Here: the frame, the cluster, chunk servers, sessions, pools. */
#include "meta/apply.h"

#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "meta/codec.h"
#include "meta/reservations.h"
#include "meta/settings.h"

uint32_t record_width(const Zbs__Metalog__Record *r)
{
    if (r->kind_case == ZBS__METALOG__RECORD__KIND_LEASE_GRANT)
        return MAX((uint32_t)r->lease_grant->n_items, 1u);
    if (r->kind_case == ZBS__METALOG__RECORD__KIND_VOLUMES_SNAPSHOT)
        return MAX((uint32_t)r->volumes_snapshot->n_items, 1u);
    return 1;
}

int apply_misfit(const struct apply *a, const char *why)
{
    return err_set(ERR_CORRUPT, "log record %" PRIu64 " (kind %d) does not fit the state: %s",
                   a->number, (int)a->record->kind_case, why);
}

static int apply_cluster_init(struct apply *a)
{
    const Zbs__Metalog__ClusterInit *m = a->record->cluster_init;

    if (a->st->cluster_id[0] != 0 || m->cluster_id[0] == 0 ||
        strlen(m->cluster_id) >= sizeof(a->st->cluster_id))
        return apply_misfit(a, "cluster id");
    strcpy(a->st->cluster_id, m->cluster_id);
    return 0;
}

static int apply_term_start(struct apply *a)
{
    if (a->record->term_start->term <= a->st->term)
        return apply_misfit(a, "term does not rise");
    a->st->term = a->record->term_start->term;
    return 0;
}

static int apply_chunk_set(struct apply *a)
{
    const Zbs__Metalog__ChunkSet *m = a->record->chunk_set;
    struct state *st = a->st;
    struct chunk *c = state_chunk(st, m->chunk_id);

    if (m->uuid.len != 16 || m->workers == 0)
        return apply_misfit(a, "chunk server");
    if (m->chunk_id == 0) {
        if (state_chunk_by_uuid(st, m->uuid.data) != NULL)
            return apply_misfit(a, "chunk server twice");
        c = state_chunk_add(st, st->next_chunk_id++);
        memcpy(c->uuid, m->uuid.data, 16);
    } else if (c == NULL) {
        return apply_misfit(a, "unknown chunk server");
    }
    str_set(&c->addr, m->addr);
    str_set(&c->addr_unix, m->addr_unix);
    str_set(&c->host, m->host);
    str_set(&c->rack, m->rack);
    str_set(&c->zone, m->zone);
    c->workers = m->workers;
    codec_put_chunk(a->to, c);
    return 0;
}

static int apply_chunk_mark(struct apply *a)
{
    const Zbs__Metalog__ChunkMark *m = a->record->chunk_mark;
    struct chunk *c = state_chunk(a->st, m->chunk_id);

    if (c == NULL)
        return apply_misfit(a, "mark of an unknown chunk server");
    c->maintenance = m->maintenance;
    c->removing = m->removing;
    c->marked_at = a->number;
    codec_put_chunk(a->to, c);
    return 0;
}

static int apply_chunk_remove(struct apply *a)
{
    const Zbs__Metalog__ChunkRemove *m = a->record->chunk_remove;
    struct chunk *c = state_chunk(a->st, m->chunk_id);

    if (c == NULL || !c->removing || c->replicas > 0)
        return apply_misfit(a, "removal of a chunk server that is unknown or in use");
    for (size_t i = 0; i < m->n_garbage; i++) {
        if (chunk_garbage_del(c, m->garbage[i]))
            codec_del_garbage(a->to, c->id, m->garbage[i]);
    }
    if (c->garbage.count > 0)
        return 0;
    codec_del_chunk(a->to, c->id);
    state_chunk_remove(a->st, c);
    return 0;
}

static void session_end(struct apply *a, struct session *s)
{
    codec_del_session(a->to, s->id);
    state_session_remove(a->st, s);
}

static int apply_session_start(struct apply *a)
{
    const Zbs__Metalog__SessionStart *m = a->record->session_start;
    struct session *former = state_session_by_name(a->st, m->name);
    struct session *s;

    if ((former != NULL ? former->id : 0) != m->replaces)
        return apply_misfit(a, "the session that it replaces");
    if (former != NULL)
        session_end(a, former);
    s = state_session_add(a->st, a->number);
    str_set(&s->name, m->name);
    s->incarnation = m->incarnation;
    str_set(&s->addr, m->addr);
    str_set(&s->host, m->host);
    str_set(&s->rack, m->rack);
    str_set(&s->zone, m->zone);
    str_set(&s->iscsi_portal, m->iscsi_portal);
    codec_put_session(a->to, s);
    return 0;
}

static int apply_session_end(struct apply *a)
{
    struct session *s = state_session(a->st, a->record->session_end->session_id);

    if (s == NULL)
        return apply_misfit(a, "unknown session");
    session_end(a, s);
    return 0;
}

static int apply_pool_add(struct apply *a)
{
    const Zbs__Metalog__PoolAdd *m = a->record->pool_add;
    Zbs__Meta__Pool view;
    struct pool *p;

    if (state_pool(a->st, m->name) != NULL)
        return apply_misfit(a, "pool twice");
    p = state_pool_add(a->st, a->st->next_pool_id++, m->name);
    p->replicas = m->replicas;
    p->min_replicas = m->min_replicas;
    str_set(&p->failure_domain, m->failure_domain);
    codec_put_pool(a->to, p);
    view_pool(&view, p);
    a->reply = view_pack(&view.base, a->pad);
    return 0;
}

static int apply_pool_remove(struct apply *a)
{
    struct pool *p = state_pool_by_id(a->st, a->record->pool_remove->pool_id);

    if (p == NULL || p->volumes.count > 0 || tree_pool_share(&a->st->tree, p->id) != NULL)
        return apply_misfit(a, "pool is unknown or not empty");
    codec_del_pool(a->to, p->id);
    state_pool_remove(a->st, p);
    return 0;
}

static int apply_garbage_done(struct apply *a)
{
    const Zbs__Metalog__GarbageDone *m = a->record->garbage_done;
    struct chunk *c = state_chunk(a->st, m->chunk_id);

    if (c == NULL)
        return apply_misfit(a, "unknown chunk server");
    for (size_t i = 0; i < m->n_extent_ids; i++) {
        if (chunk_garbage_del(c, m->extent_ids[i]))
            codec_del_garbage(a->to, c->id, m->extent_ids[i]);
    }
    return 0;
}

static int apply_garbage_add(struct apply *a)
{
    const Zbs__Metalog__GarbageAdd *m = a->record->garbage_add;
    struct chunk *c = state_chunk(a->st, m->chunk_id);

    if (c == NULL || m->n_epochs != m->n_extent_ids || m->n_families != m->n_extent_ids)
        return apply_misfit(a, "garbage");
    for (size_t i = 0; i < m->n_extent_ids; i++) {
        const struct extent *e = state_extent(a->st, m->extent_ids[i]);

        if (e != NULL && (extent_has_member(e, c->id) || extent_has_absent(e, c->id)))
            return apply_misfit(a, "garbage that is a replica");
        chunk_garbage_add(c, m->extent_ids[i], m->epochs[i], m->families[i]);
        codec_put_garbage(a->to, c->id, m->extent_ids[i], chunk_garbage(c, m->extent_ids[i]));
    }
    return 0;
}

static int apply_kind(struct apply *a)
{
    switch (a->record->kind_case) {
    case ZBS__METALOG__RECORD__KIND_CLUSTER_INIT:
        return apply_cluster_init(a);
    case ZBS__METALOG__RECORD__KIND_TERM_START:
        return apply_term_start(a);
    case ZBS__METALOG__RECORD__KIND_CHUNK_SET:
        return apply_chunk_set(a);
    case ZBS__METALOG__RECORD__KIND_SESSION_START:
        return apply_session_start(a);
    case ZBS__METALOG__RECORD__KIND_SESSION_END:
        return apply_session_end(a);
    case ZBS__METALOG__RECORD__KIND_LEASE_GRANT:
        return apply_lease_grant(a);
    case ZBS__METALOG__RECORD__KIND_LEASE_RETURN:
        return apply_lease_return(a);
    case ZBS__METALOG__RECORD__KIND_EXTENTS_CREATED:
        return apply_extents_created(a);
    case ZBS__METALOG__RECORD__KIND_REPLICA_SET:
        return apply_replica_set(a);
    case ZBS__METALOG__RECORD__KIND_POOL_ADD:
        return apply_pool_add(a);
    case ZBS__METALOG__RECORD__KIND_POOL_REMOVE:
        return apply_pool_remove(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_ADD:
        return apply_volume_add(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_SET:
        return apply_volume_set(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_REMOVE:
        return apply_volume_remove(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_SWEEP:
        return apply_volume_sweep(a);
    case ZBS__METALOG__RECORD__KIND_VOLUMES_SNAPSHOT:
        return apply_volumes_snapshot(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_CLONE:
        return apply_volume_clone(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_ROLLBACK:
        return apply_volume_rollback(a);
    case ZBS__METALOG__RECORD__KIND_GARBAGE_DONE:
        return apply_garbage_done(a);
    case ZBS__METALOG__RECORD__KIND_TARGET_SET:
        return apply_target_set(a);
    case ZBS__METALOG__RECORD__KIND_TARGET_REMOVE:
        return apply_target_remove(a);
    case ZBS__METALOG__RECORD__KIND_LUN_SET:
        return apply_lun_set(a);
    case ZBS__METALOG__RECORD__KIND_LUN_UNSET:
        return apply_lun_unset(a);
    case ZBS__METALOG__RECORD__KIND_CHUNK_MARK:
        return apply_chunk_mark(a);
    case ZBS__METALOG__RECORD__KIND_CHUNK_REMOVE:
        return apply_chunk_remove(a);
    case ZBS__METALOG__RECORD__KIND_GARBAGE_ADD:
        return apply_garbage_add(a);
    case ZBS__METALOG__RECORD__KIND_SETTING_SET:
        return apply_setting_set(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_POLICY:
        return apply_volume_policy(a);
    case ZBS__METALOG__RECORD__KIND_POOL_POLICY:
        return apply_pool_policy(a);
    case ZBS__METALOG__RECORD__KIND_POLICY_SWEEP:
        return apply_policy_sweep(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_SHRINK:
        return apply_volume_shrink(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_FLATTEN:
        return apply_volume_flatten(a);
    case ZBS__METALOG__RECORD__KIND_VOLUME_PASS:
        return apply_volume_pass(a);
    case ZBS__METALOG__RECORD__KIND_RESERVATION_SET:
        return apply_reservation_set(a);
    case ZBS__METALOG__RECORD__KIND_SHARE_SET:
        return apply_share_set(a);
    case ZBS__METALOG__RECORD__KIND_SHARE_REMOVE:
        return apply_share_remove(a);
    case ZBS__METALOG__RECORD__KIND_INODE_ADD:
        return apply_inode_add(a);
    case ZBS__METALOG__RECORD__KIND_INODE_SET:
        return apply_inode_set(a);
    case ZBS__METALOG__RECORD__KIND_ENTRY_ADD:
        return apply_entry_add(a);
    case ZBS__METALOG__RECORD__KIND_ENTRY_REMOVE:
        return apply_entry_remove(a);
    case ZBS__METALOG__RECORD__KIND_ENTRY_MOVE:
        return apply_entry_move(a);
    case ZBS__METALOG__RECORD__KIND_FILE_DATA:
        return apply_file_data(a);
    case ZBS__METALOG__RECORD__KIND_FILE_VOLUME:
        return apply_file_volume(a);
    case ZBS__METALOG__RECORD__KIND_FILE_ATTACH:
        return apply_file_attach(a);
    case ZBS__METALOG__RECORD__KIND_FILE_GROW:
        return apply_file_grow(a);
    case ZBS__METALOG__RECORD__KIND_FILE_WRITTEN:
        return apply_file_written(a);
    case ZBS__METALOG__RECORD__KIND_FILE_ZEROED:
        return apply_file_zeroed(a);
    case ZBS__METALOG__RECORD__KIND_FILE_ZERO:
        return apply_file_zero(a);
    case ZBS__METALOG__RECORD__KIND_FILE_LEASE:
        return apply_file_lease(a);
    case ZBS__METALOG__RECORD__KIND_FILE_RETURN:
        return apply_file_return(a);
    case ZBS__METALOG__RECORD__KIND_LOCK_SET:
        return apply_lock_set(a);
    case ZBS__METALOG__RECORD__KIND_LOCK_FORGET:
        return apply_lock_forget(a);
    case ZBS__METALOG__RECORD__KIND__NOT_SET:
    default:
        return err_set(ERR_UNSUPPORTED,
                       "log record %" PRIu64 " is of a kind that this program does not know: "
                       "upgrade this server",
                       a->number);
    }
}

/* Grants keep no result: a retry is answered from the state, with the same epoch. */
static void keep_result(struct apply *a)
{
    struct state *st = a->st;

    if (a->record->client == 0 || a->record->kind_case == ZBS__METALOG__RECORD__KIND_LEASE_GRANT)
        return;
    if (st->n_results >= RESULTS_MAX) {
        codec_del_result(a->to, state_result_oldest(st)->mutation);
        state_result_drop_oldest(st);
    }
    state_result_add(st, a->number, a->record->client, a->record->number, a->reply.bytes,
                     a->reply.len);
    codec_put_result(a->to, CONTAINER_OF(st->results.prev, struct result, link));
}

int apply_record(struct state *st, const Zbs__Metalog__Record *r, struct kv_batch *batch,
                 struct pad *pad, struct packed *ret_reply)
{
    struct codec_sink to = {.batch = batch};
    struct apply a = {.st = st, .record = r, .number = st->next_mutation, .to = &to, .pad = pad};
    int rc;

    if (r->client != 0 && state_result(st, r->client, r->number) != NULL)
        return apply_misfit(&a, "a mutation twice");
    rc = apply_kind(&a);
    if (rc < 0)
        return rc;
    keep_result(&a);
    st->next_mutation += record_width(r);
    *ret_reply = a.reply;
    return 0;
}
