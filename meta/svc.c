/* SPDX-License-Identifier: Apache-2.0
 *
 * The Meta service. Every request takes the same way: decide on the state, apply and queue the
 * record, make the answer from the state, wait until all of that is confirmed and the leader has
 * authority, and only then give the answer, errors included (PROTOCOL 6.3, 6.4). The answer is
 * packed before the wait, because nothing of the state may be touched after it. */
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/cluster/meta_client.h"
#include "meta/decide_tree.h"
#include "meta/lead.h"
#include "meta/reservations.h"
#include "meta/settings.h"
#include "meta/status.h"

struct svc_op {
    const ProtobufCMessageDescriptor *request;
    decide_fn decide;   /* NULL: a read */
    answer_fn answer;   /* NULL: empty, or what applying the record gave */
    status_fn status;   /* an answer that needs what only the leader knows */
    size_t mutation_at; /* offset of the request's Mutation; 0: none */
    bool with_chunks;
    bool always; /* also when the log is full: what keeps the cluster running */
    void (*knock)(struct lead *l, const ProtobufCMessage *rq);
    void (*after)(struct lead *l, const ProtobufCMessage *rq, const Zbs__Metalog__Record *r);
};

/* ---- what the leader notes beside the log ---- */

static void after_chunk_register(struct lead *l, const ProtobufCMessage *msg,
                                 const Zbs__Metalog__Record *r)
{
    const Zbs__Meta__ChunkRegisterRequest *rq = (const void *)msg;
    struct chunk *chunk = state_chunk_by_uuid(&l->m->st, rq->uuid.data);
    struct chunk_live *c = live_chunk(&l->live, chunk->id);

    live_chunk_heard(&l->live, c, rq->incarnation, rq->disks, rq->n_disks);
    if (r != NULL)
        live_view_changed(&l->live);
    log_info("chunk.register", "chunk=%u addr=%s host=%s disks=%zu", chunk->id, chunk->addr,
             chunk->host, rq->n_disks);
}

/* Access servers on a host that is in maintenance are left by their initiators. */
static void after_chunk_mark(struct lead *l, const ProtobufCMessage *msg,
                             const Zbs__Metalog__Record *r)
{
    (void)msg;
    if (r != NULL)
        live_view_changed(&l->live);
}

static void after_session_open(struct lead *l, const ProtobufCMessage *msg,
                               const Zbs__Metalog__Record *r)
{
    const Zbs__Meta__SessionOpenRequest *rq = (const void *)msg;
    struct session *s = state_session_by_name(&l->m->st, rq->name);

    live_session(&l->live, s->id)->seen = co_now();
    if (r == NULL)
        return;
    if (r->session_start->replaces != 0)
        live_session_drop(&l->live, r->session_start->replaces);
    live_view_changed(&l->live);
    log_info("session.open", "session=%llu name=%s addr=%s", (unsigned long long)s->id, s->name,
             s->addr);
}

static void after_session_close(struct lead *l, const ProtobufCMessage *msg,
                                const Zbs__Metalog__Record *r)
{
    if (r == NULL)
        return;
    live_session_drop(&l->live, ((const Zbs__Meta__SessionCloseRequest *)msg)->session_id);
    live_view_changed(&l->live);
}

static void after_lease_acquire(struct lead *l, const ProtobufCMessage *msg,
                                const Zbs__Metalog__Record *r)
{
    (void)msg;
    if (r != NULL)
        live_promise(&l->live, r->lease_grant);
}

static void after_replica_change(struct lead *l, const ProtobufCMessage *msg,
                                 const Zbs__Metalog__Record *r)
{
    const Zbs__Meta__ReplicaChangeRequest *rq = (const void *)msg;

    (void)l;
    if (r != NULL && (rq->n_remove > 0 || rq->n_add > 0))
        log_info("replica.change", "extent=%llu remove=%u/%zu add=%u/%zu why=\"%.100s\"",
                 (unsigned long long)rq->extent_id, rq->n_remove > 0 ? rq->remove[0] : 0,
                 rq->n_remove, rq->n_add > 0 ? rq->add[0] : 0, rq->n_add, rq->reason);
}

static void after_volume_change(struct lead *l, const ProtobufCMessage *msg,
                                const Zbs__Metalog__Record *r)
{
    (void)msg;
    if (r == NULL)
        return;
    switch (r->kind_case) {
    case ZBS__METALOG__RECORD__KIND_VOLUME_SET:
        live_volume_changed(&l->live, r->volume_set->volume_id);
        break;
    case ZBS__METALOG__RECORD__KIND_VOLUME_SHRINK:
        live_volume_changed(&l->live, r->volume_shrink->volume_id);
        break;
    case ZBS__METALOG__RECORD__KIND_VOLUME_POLICY:
        live_volume_changed(&l->live, r->volume_policy->volume_id);
        break;
    default:
        live_volume_changed(&l->live, r->volume_remove->volume_id);
        break;
    }
}

static void after_pool_policy(struct lead *l, const ProtobufCMessage *msg,
                              const Zbs__Metalog__Record *r)
{
    (void)msg;
    if (r != NULL)
        live_pool_changed(&l->live, state_pool_by_id(&l->m->st, r->pool_policy->pool_id));
}

static void volumes_changed(struct lead *l, const uint64_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        live_volume_changed(&l->live, ids[i]);
}

/* Volumes of files that have gone, or have another size. */
static void after_tree_change(struct lead *l, const ProtobufCMessage *msg,
                              const Zbs__Metalog__Record *r)
{
    (void)msg;
    if (r == NULL)
        return;
    switch (r->kind_case) {
    case ZBS__METALOG__RECORD__KIND_ENTRY_REMOVE:
        volumes_changed(l, r->entry_remove->volumes, r->entry_remove->n_volumes);
        break;
    case ZBS__METALOG__RECORD__KIND_ENTRY_MOVE:
        volumes_changed(l, r->entry_move->volumes, r->entry_move->n_volumes);
        break;
    case ZBS__METALOG__RECORD__KIND_FILE_VOLUME:
        volumes_changed(l, &r->file_volume->former, r->file_volume->former != 0 ? 1 : 0);
        break;
    default:
        volumes_changed(l, &tree_inode(&l->m->st.tree, r->file_grow->inode_id)->volume_id, 1);
        break;
    }
}

/* Nobody else is asked meanwhile. */
static void after_slot_provisioned(struct lead *l, const ProtobufCMessage *msg,
                                   const Zbs__Metalog__Record *r)
{
    const Zbs__Meta__SlotProvisionedRequest *rq = (const void *)msg;

    (void)r;
    if (pass_goes_on(&l->m->st, rq))
        state_volume(&l->m->st, rq->volume_id)->pass_task_ns = co_now();
}

/* ---- the table ---- */

#define MSG(name)      &zbs__meta__##name##__descriptor
#define MUTATION(type) offsetof(Zbs__Meta__##type, mutation)

static const struct svc_op svc_ops[] = {
    {.request = MSG(session_renew_request),
     .status = status_session_renew,
     .knock = knock_session_renew},
    {.request = MSG(chunk_heartbeat_request),
     .decide = decide_chunk_heartbeat,
     .status = status_chunk_heartbeat,
     .always = true,
     .knock = knock_chunk_heartbeat},
    {.request = MSG(lease_acquire_request),
     .decide = decide_lease_acquire,
     .answer = answer_lease_acquire,
     .with_chunks = true,
     .after = after_lease_acquire},
    {.request = MSG(lease_release_request), .decide = decide_lease_release, .always = true},
    {.request = MSG(extent_created_request), .decide = decide_extent_created, .always = true},
    {.request = MSG(replica_change_request),
     .decide = decide_replica_change,
     .answer = answer_replica_change,
     .mutation_at = MUTATION(ReplicaChangeRequest),
     .with_chunks = true,
     .always = true,
     .after = after_replica_change},
    {.request = MSG(chunk_register_request),
     .decide = decide_chunk_register,
     .answer = answer_chunk_register,
     .always = true,
     .after = after_chunk_register},
    {.request = MSG(session_open_request),
     .decide = decide_session_open,
     .answer = answer_session_open,
     .always = true,
     .after = after_session_open},
    {.request = MSG(session_close_request),
     .decide = decide_session_close,
     .always = true,
     .after = after_session_close},
    {.request = MSG(volume_get_request), .answer = answer_volume_get},
    {.request = MSG(exports_get_request), .answer = answer_exports_get},
    {.request = MSG(cluster_status_request), .status = status_cluster},
    {.request = MSG(pool_create_request),
     .decide = decide_pool_create,
     .mutation_at = MUTATION(PoolCreateRequest)},
    {.request = MSG(pool_list_request), .answer = answer_pool_list},
    {.request = MSG(pool_delete_request),
     .decide = decide_pool_delete,
     .mutation_at = MUTATION(PoolDeleteRequest)},
    {.request = MSG(volume_create_request),
     .decide = decide_volume_create,
     .mutation_at = MUTATION(VolumeCreateRequest)},
    {.request = MSG(volume_list_request), .answer = answer_volume_list},
    {.request = MSG(volume_resize_request),
     .decide = decide_volume_resize,
     .answer = answer_volume_resize,
     .mutation_at = MUTATION(VolumeResizeRequest),
     .after = after_volume_change},
    {.request = MSG(volume_rename_request),
     .decide = decide_volume_rename,
     .answer = answer_volume_rename,
     .mutation_at = MUTATION(VolumeRenameRequest),
     .after = after_volume_change},
    {.request = MSG(volume_delete_request),
     .decide = decide_volume_delete,
     .mutation_at = MUTATION(VolumeDeleteRequest),
     .after = after_volume_change},
    {.request = MSG(volume_map_request), .answer = answer_volume_map},
    {.request = MSG(target_create_request),
     .decide = decide_target_create,
     .mutation_at = MUTATION(TargetCreateRequest)},
    {.request = MSG(target_delete_request),
     .decide = decide_target_delete,
     .mutation_at = MUTATION(TargetDeleteRequest)},
    {.request = MSG(target_update_request),
     .decide = decide_target_update,
     .mutation_at = MUTATION(TargetUpdateRequest)},
    {.request = MSG(lun_add_request),
     .decide = decide_lun_add,
     .mutation_at = MUTATION(LunAddRequest)},
    {.request = MSG(lun_remove_request),
     .decide = decide_lun_remove,
     .mutation_at = MUTATION(LunRemoveRequest)},
    {.request = MSG(setting_list_request), .answer = answer_setting_list},
    {.request = MSG(setting_set_request),
     .decide = decide_setting_set,
     .answer = answer_setting_set,
     .mutation_at = MUTATION(SettingSetRequest)},
    {.request = MSG(volume_clone_request),
     .decide = decide_volume_clone,
     .mutation_at = MUTATION(VolumeCloneRequest)},
    {.request = MSG(pool_set_request),
     .decide = decide_pool_set,
     .answer = answer_pool_set,
     .mutation_at = MUTATION(PoolSetRequest),
     .with_chunks = true,
     .after = after_pool_policy},
    {.request = MSG(volume_set_request),
     .decide = decide_volume_set,
     .answer = answer_volume_set,
     .mutation_at = MUTATION(VolumeSetRequest),
     .with_chunks = true,
     .after = after_volume_change},
    {.request = MSG(volume_move_request),
     .decide = decide_volume_move,
     .answer = answer_volume_move,
     .mutation_at = MUTATION(VolumeMoveRequest),
     .after = after_volume_change},
    {.request = MSG(volume_flatten_request),
     .decide = decide_volume_flatten,
     .answer = answer_volume_flatten,
     .mutation_at = MUTATION(VolumeFlattenRequest)},
    {.request = MSG(slot_flattened_request),
     .decide = decide_slot_flattened,
     .mutation_at = MUTATION(SlotFlattenedRequest)},
    {.request = MSG(recovery_status_request), .status = status_recovery},
    {.request = MSG(chunk_mark_request),
     .decide = decide_chunk_mark,
     .answer = answer_chunk_mark,
     .mutation_at = MUTATION(ChunkMarkRequest),
     .with_chunks = true,
     .after = after_chunk_mark},
    {.request = MSG(reservation_get_request), .answer = answer_reservation_get},
    {.request = MSG(reservation_set_request),
     .decide = decide_reservation_set,
     .mutation_at = MUTATION(ReservationSetRequest)},
    {.request = MSG(share_create_request),
     .decide = decide_share_create,
     .mutation_at = MUTATION(ShareCreateRequest)},
    {.request = MSG(share_set_request),
     .decide = decide_share_set,
     .mutation_at = MUTATION(ShareSetRequest)},
    {.request = MSG(share_delete_request),
     .decide = decide_share_delete,
     .mutation_at = MUTATION(ShareDeleteRequest)},
    {.request = MSG(share_list_request), .answer = answer_share_list},
    {.request = MSG(inode_get_request), .answer = answer_inode_get},
    {.request = MSG(lookup_request), .answer = answer_lookup},
    {.request = MSG(inode_create_request),
     .decide = decide_inode_create,
     .answer = answer_inode_create,
     .mutation_at = MUTATION(InodeCreateRequest)},
    {.request = MSG(inode_remove_request),
     .decide = decide_inode_remove,
     .mutation_at = MUTATION(InodeRemoveRequest),
     .after = after_tree_change},
    {.request = MSG(inode_rename_request),
     .decide = decide_inode_rename,
     .answer = answer_inode_rename,
     .mutation_at = MUTATION(InodeRenameRequest),
     .after = after_tree_change},
    {.request = MSG(inode_link_request),
     .decide = decide_inode_link,
     .mutation_at = MUTATION(InodeLinkRequest)},
    {.request = MSG(inode_set_request),
     .decide = decide_inode_set,
     .mutation_at = MUTATION(InodeSetRequest)},
    {.request = MSG(dir_list_request), .answer = answer_dir_list},
    {.request = MSG(path_get_request), .answer = answer_path_get},
    {.request = MSG(file_write_request),
     .decide = decide_file_write,
     .answer = answer_file,
     .mutation_at = MUTATION(FileWriteRequest)},
    {.request = MSG(file_volume_request),
     .decide = decide_file_volume,
     .answer = answer_file,
     .mutation_at = MUTATION(FileVolumeRequest),
     .after = after_tree_change},
    {.request = MSG(file_attach_request),
     .decide = decide_file_attach,
     .answer = answer_file,
     .mutation_at = MUTATION(FileAttachRequest)},
    {.request = MSG(file_grow_request),
     .decide = decide_file_grow,
     .answer = answer_file,
     .mutation_at = MUTATION(FileGrowRequest),
     .after = after_tree_change},
    {.request = MSG(file_written_request),
     .decide = decide_file_written,
     .answer = answer_file,
     .mutation_at = MUTATION(FileWrittenRequest)},
    {.request = MSG(file_zeroed_request),
     .decide = decide_file_zeroed,
     .answer = answer_file,
     .mutation_at = MUTATION(FileZeroedRequest)},
    {.request = MSG(lock_set_request),
     .decide = decide_lock_set,
     .mutation_at = MUTATION(LockSetRequest)},
    {.request = MSG(lock_clear_request),
     .decide = decide_lock_clear,
     .mutation_at = MUTATION(LockClearRequest)},
    {.request = MSG(lock_test_request), .answer = answer_lock_test},
    {.request = MSG(lock_forget_request),
     .decide = decide_lock_forget,
     .mutation_at = MUTATION(LockForgetRequest)},
    {.request = MSG(lock_list_request), .answer = answer_lock_list},
    {.request = MSG(file_zero_request),
     .decide = decide_file_zero,
     .answer = answer_file,
     .mutation_at = MUTATION(FileZeroRequest)},
    {.request = MSG(slot_provisioned_request),
     .decide = decide_slot_provisioned,
     .answer = answer_slot_provisioned,
     .mutation_at = MUTATION(SlotProvisionedRequest),
     .after = after_slot_provisioned},
    {.request = MSG(file_lease_request),
     .decide = decide_file_lease,
     .answer = answer_file_lease,
     .mutation_at = MUTATION(FileLeaseRequest)},
    {.request = MSG(file_return_request),
     .decide = decide_file_return,
     .mutation_at = MUTATION(FileReturnRequest),
     .always = true},
    {.request = MSG(file_recall_request), .status = status_file_recall},
};

static const struct svc_op *svc_find(const ProtobufCMessage *rq)
{
    for (size_t i = 0; i < ARRAY_SIZE(svc_ops); i++) {
        if (svc_ops[i].request == rq->descriptor)
            return &svc_ops[i];
    }
    ASSERT(false);
    return NULL;
}

/* ---- the way of a request ---- */

struct svc_call {
    struct rpc_request *q;
    struct metad *m;
    const struct svc_op *op;
    struct pad pad;
    struct packed reply;
};

static const Zbs__Meta__Mutation *mutation_of(const struct svc_call *c)
{
    if (c->op->mutation_at == 0)
        return NULL;
    return *(Zbs__Meta__Mutation *const *)((const char *)c->q->msg + c->op->mutation_at);
}

static int svc_answer(struct svc_call *c, const struct decide *d)
{
    const ProtobufCMessageDescriptor *type = c->q->reply->descriptor;
    ProtobufCMessage *reply;
    int rc;

    if (c->op->answer == NULL && c->op->status == NULL)
        return 0;
    reply = pad_alloc(&c->pad, type->sizeof_message);
    protobuf_c_message_init(type, reply);
    rc = c->op->answer != NULL ? c->op->answer(d, reply) : c->op->status(c->m->lead, d, reply);
    if (rc < 0)
        return rc;
    c->reply = view_pack(reply, &c->pad);
    return 0;
}

/* Decides, applies, answers: without suspending. */
static int svc_do(struct svc_call *c)
{
    const Zbs__Meta__Mutation *mutation = mutation_of(c);
    struct world w;
    struct decide d = {.st = &c->m->st, .w = &w, .rq = c->q->msg, .pad = &c->pad};
    Zbs__Metalog__Record *r = NULL;
    int rc = 0;

    if (mutation != NULL && mutation->client != 0) {
        const struct result *first = state_result(&c->m->st, mutation->client, mutation->number);

        if (first != NULL && first->reply_len == 0 && c->op->answer != NULL)
            return svc_answer(c, &d); /* it is answered from the state, always */
        if (first != NULL) {
            c->reply.bytes = pad_memdup(&c->pad, first->reply, first->reply_len);
            c->reply.len = first->reply_len;
            return 0;
        }
    }
    live_world(&c->m->lead->live, &c->pad, c->op->decide != NULL, c->op->with_chunks, &w);
    w.held = hold_volumes(c->m->lead, &c->pad, &w.n_held);
    if (c->op->decide != NULL)
        rc = c->op->decide(&d, &r);
    if (rc < 0)
        return rc;
    if (r != NULL) {
        if (mutation != NULL) {
            r->client = mutation->client;
            r->number = mutation->number;
        }
        lead_submit(c->m, r, &c->pad, &c->reply);
    }
    if (c->op->after != NULL)
        c->op->after(c->m->lead, c->q->msg, r);
    return c->reply.bytes != NULL ? 0 : svc_answer(c, &d);
}

static void *svc_alloc(void *arg, size_t bytes)
{
    return rpc_alloc(arg, bytes);
}

static void svc_free(void *arg, void *ptr)
{
    (void)arg;
    (void)ptr;
}

void svc_give(struct rpc_request *q, const struct packed *p)
{
    ProtobufCAllocator allocator = {.alloc = svc_alloc, .free = svc_free, .allocator_data = q};
    const ProtobufCMessageDescriptor *type = q->reply->descriptor;
    ProtobufCMessage *reply;

    if (p->bytes == NULL)
        return;
    reply = protobuf_c_message_unpack(type, &allocator, p->len, p->bytes);
    ASSERT(reply != NULL);
    memcpy(q->reply, reply, type->sizeof_message);
}

static int svc_run(struct rpc_request *q)
{
    struct svc_call c = {.q = q, .m = q->ctx, .op = svc_find(q->msg)};
    char text[256] = "";
    struct lead_ticket t;
    int rc, finish_rc;

    if (c.op->knock != NULL && c.m->lead != NULL)
        c.op->knock(c.m->lead, q->msg);
    rc = c.op->decide != NULL && !c.op->always ? lead_enter_mutation(c.m) : lead_enter(c.m);
    if (rc < 0)
        return rc;
    pad_init(&c.pad);
    rc = svc_do(&c);
    if (rc < 0)
        snprintf(text, sizeof(text), "%s", err_text(rc));
    t = lead_ticket(c.m);
    finish_rc = lead_finish(c.m, t);
    if (finish_rc < 0)
        rc = finish_rc;
    else if (rc < 0)
        rc = err_set(rc, "%s", text);
    else
        svc_give(q, &c.reply);
    pad_fini(&c.pad);
    return rc;
}

static int svc_leader(struct rpc_request *q)
{
    struct metad *m = q->ctx;
    Zbs__Meta__LeaderReply *reply = (void *)q->reply;

    reply->addr = rpc_strdup(q, m->leader_addr);
    reply->term = m->term;
    reply->self =
        m->lead != NULL && m->lead->serving && !m->lead->ended && lead_has_authority(m->lead);
    return 0;
}

const struct rpc_method svc_meta_methods[META_METHODS] = {
    [META_LEADER] = {.handler = svc_leader},
    [META_CHUNK_REGISTER... META_SETTING_SET] = {.handler = svc_run},
    [META_HOLD] = {.handler = hold_wait},
    [META_VOLUME_SNAPSHOT] = {.handler = hold_request},
    [META_VOLUME_CLONE] = {.handler = svc_run},
    [META_VOLUME_ROLLBACK] = {.handler = hold_request},
    [META_POOL_SET... META_FILE_RECALL] = {.handler = svc_run},
};
_Static_assert(ARRAY_SIZE(svc_ops) == META_METHODS - 4,
               "every method but Leader and those that hold volumes has a row");

const struct rpc_method svc_peer_methods[] = {
    {.handler = peer_state},
    {.handler = snapshot_give},
};
