/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds the meta leader and calls it. Given the addresses of some meta servers, asks them (method
 * Leader) who leads, keeps a connection to it, and looks again when it answers ERR_NOT_LEADER, is
 * unreachable or breaks. Belongs to one loop. */
#ifndef ZBS_CLUSTER_META_CLIENT_H
#define ZBS_CLUSTER_META_CLIENT_H

#include "common/rpc/rpc.h"
#include "proto/meta.pb-c.h"

/* Method numbers: positions in proto/meta.proto. */
enum meta_method {
    META_LEADER,
    META_CHUNK_REGISTER,
    META_CHUNK_HEARTBEAT,
    META_SESSION_OPEN,
    META_SESSION_RENEW,
    META_SESSION_CLOSE,
    META_LEASE_ACQUIRE,
    META_LEASE_RELEASE,
    META_EXTENT_CREATED,
    META_REPLICA_CHANGE,
    META_VOLUME_GET,
    META_EXPORTS_GET,
    META_CLUSTER_STATUS,
    META_POOL_CREATE,
    META_POOL_LIST,
    META_POOL_DELETE,
    META_VOLUME_CREATE,
    META_VOLUME_LIST,
    META_VOLUME_RESIZE,
    META_VOLUME_RENAME,
    META_VOLUME_DELETE,
    META_VOLUME_MAP,
    META_TARGET_CREATE,
    META_TARGET_DELETE,
    META_TARGET_UPDATE,
    META_LUN_ADD,
    META_LUN_REMOVE,
    META_SETTING_LIST,
    META_SETTING_SET,
    META_HOLD,
    META_VOLUME_SNAPSHOT,
    META_VOLUME_CLONE,
    META_VOLUME_ROLLBACK,
    META_POOL_SET,
    META_VOLUME_SET,
    META_VOLUME_MOVE,
    META_RECOVERY_STATUS,
    META_CHUNK_MARK,
    META_RESERVATION_GET,
    META_RESERVATION_SET,
    META_VOLUME_FLATTEN,
    META_SLOT_FLATTENED,
    META_SHARE_CREATE,
    META_SHARE_SET,
    META_SHARE_DELETE,
    META_SHARE_LIST,
    META_INODE_GET,
    META_LOOKUP,
    META_INODE_CREATE,
    META_INODE_REMOVE,
    META_INODE_RENAME,
    META_INODE_LINK,
    META_INODE_SET,
    META_DIR_LIST,
    META_PATH_GET,
    META_FILE_WRITE,
    META_FILE_VOLUME,
    META_FILE_ATTACH,
    META_FILE_GROW,
    META_FILE_WRITTEN,
    META_FILE_ZEROED,
    META_LOCK_SET,
    META_LOCK_CLEAR,
    META_LOCK_TEST,
    META_LOCK_FORGET,
    META_LOCK_LIST,
    META_FILE_ZERO,
    META_SLOT_PROVISIONED,
    META_FILE_LEASE,
    META_FILE_RETURN,
    META_FILE_RECALL,
    META_METHODS
};

struct meta_client;

/* addrs: "127.1.0.1:7000,127.1.0.2:7000" (copied). self: for the peers' logs. */
struct meta_client *meta_client_new(const char *addrs, const char *self);
co_fn void meta_client_close(struct meta_client *mc);

/* Calls the leader. Until the coroutine's deadline (5 s if it has none) it looks for the leader
 * again and repeats the call after ERR_NOT_LEADER, ERR_UNREACHABLE and ERR_AGAIN; after ERR_CLOSED
 * and a lost reply only if `repeat` (the request is idempotent or carries a Mutation). One attempt
 * waits at most 1 s for its reply. */
co_fn int meta_call(struct meta_client *mc, enum meta_method method,
                    const ProtobufCMessage *request, bool repeat, struct rpc_reply *r) MUST_CHECK;

/* A fresh pair for a mutation's `mutation` field. */
void meta_client_mutation(struct meta_client *mc, Zbs__Meta__Mutation *m);

/* The address of the leader last spoken to, "" if none. */
const char *meta_client_leader(const struct meta_client *mc);

#endif
