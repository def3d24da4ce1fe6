/* SPDX-License-Identifier: Apache-2.0
 *
 * The nodes in ZooKeeper (meta/README.md lists them): the only file that knows their names and
 * contents. What is read is checked: it is input from outside. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/mutate.h"
#include "common/env/env.h"
#include "meta/pad.h"
#include "meta/server.h"

#define PATH_CLUSTER  "/cluster"
#define PATH_TERM     "/term"
#define PATH_BEAT     "/beat"
#define PATH_HEAD     "/head"
#define PATH_TAIL     "/tail"
#define PATH_LOG      "/log"
#define PATH_SERVICES "/services"

struct zk_path {
    char s[64];
};

static struct zk_path entry_path(uint64_t index)
{
    struct zk_path p;

    snprintf(p.s, sizeof(p.s), PATH_LOG "/%020" PRIu64, index);
    return p;
}

/* ---- session ---- */

void zk_close(struct metad *m)
{
    if (m->coord != NULL)
        coord_close(m->coord);
    m->coord = NULL;
    m->announced = false;
}

co_fn int zk_ready(struct metad *m)
{
    nsec_t former, patience = MAX(4 * m->conf.zk_session_ms, 5000u) * NSEC_PER_MSEC;
    int rc = 0;

    if (m->coord != NULL && coord_state(m->coord) == COORD_EXPIRED)
        zk_close(m);
    /* ZooKeeper turns away a session that has seen more than it knows: one whose data was lost
     * would never let an old handle in again. */
    if (m->coord != NULL && m->zk_lost != 0 && co_now() - m->zk_lost > patience)
        zk_close(m);
    if (m->coord == NULL) {
        m->zk_lost = 0;
        rc = coord_open(m->conf.zookeeper, m->conf.zk_root, m->conf.zk_session_ms, &m->coord);
    }
    if (rc < 0)
        return rc;
    if (coord_state(m->coord) != COORD_CONNECTED && m->zk_lost == 0)
        m->zk_lost = co_now();
    former = co_deadline_push(co_now() + 500 * NSEC_PER_MSEC);
    rc = coord_wait_connected(m->coord);
    co_deadline_restore(former);
    if (rc == 0)
        m->zk_lost = 0;
    return rc;
}

/* ---- messages in nodes ---- */

static co_fn int node_write(struct metad *m, const char *path, const ProtobufCMessage *msg,
                            int32_t version, struct coord_stat *ret_stat)
{
    struct pad pad;
    size_t len = protobuf_c_message_get_packed_size(msg);
    uint8_t *bytes;
    int rc;

    pad_init(&pad);
    bytes = pad_alloc(&pad, len);
    protobuf_c_message_pack(msg, bytes);
    rc = coord_set(m->coord, path, bytes, len, version, ret_stat);
    pad_fini(&pad);
    return rc;
}

static co_fn int node_read(struct metad *m, const char *path, struct pad *pad,
                           const ProtobufCMessageDescriptor *type, void *ret_msg,
                           struct coord_stat *ret_stat)
{
    void *data;
    size_t len;
    int rc = coord_get(m->coord, path, &data, &len, ret_stat);
    ProtobufCMessage *msg;

    if (rc < 0)
        return rc;
    msg = protobuf_c_message_unpack(type, &pad->allocator, len, data);
    mem_free(data);
    if (msg == NULL)
        return err_set(ERR_FORMAT, "node %s in ZooKeeper holds no valid message", path);
    *(ProtobufCMessage **)ret_msg = msg;
    return 0;
}

static void copy_text(char *dst, size_t room, const char *src)
{
    snprintf(dst, room, "%s", src);
}

co_fn int zk_term_read(struct metad *m, struct zk_term *ret)
{
    Zbs__Metalog__TermNode *node;
    struct coord_stat stat;
    struct pad pad;
    int rc;

    pad_init(&pad);
    rc = node_read(m, PATH_TERM, &pad, &zbs__metalog__term_node__descriptor, &node, &stat);
    if (rc == 0) {
        ret->term = node->term;
        copy_text(ret->name, sizeof(ret->name), node->name);
        copy_text(ret->addr, sizeof(ret->addr), node->addr);
        ret->version = stat.version;
    }
    pad_fini(&pad);
    return rc;
}

co_fn int zk_term_write(struct metad *m, struct zk_term *t)
{
    Zbs__Metalog__TermNode node = ZBS__METALOG__TERM_NODE__INIT;
    struct coord_stat stat;
    int rc;

    node.term = t->term;
    node.name = t->name;
    node.addr = t->addr;
    rc = node_write(m, PATH_TERM, &node.base, t->version, &stat);
    if (rc == 0)
        t->version = stat.version;
    return rc;
}

co_fn int zk_beat_read(struct metad *m, struct zk_beat *ret)
{
    Zbs__Metalog__BeatNode *node;
    struct coord_stat stat;
    struct pad pad;
    int rc;

    pad_init(&pad);
    rc = node_read(m, PATH_BEAT, &pad, &zbs__metalog__beat_node__descriptor, &node, &stat);
    if (rc == 0) {
        ret->term = node->term;
        ret->head = node->head;
        copy_text(ret->name, sizeof(ret->name), node->name);
        copy_text(ret->addr, sizeof(ret->addr), node->addr);
        ret->change = stat.mzxid;
    }
    pad_fini(&pad);
    return rc;
}

co_fn int zk_beat_write(struct metad *m, int32_t term_version, const struct zk_beat *b)
{
    Zbs__Metalog__BeatNode node = ZBS__METALOG__BEAT_NODE__INIT;
    uint8_t bytes[512];
    struct coord_op ops[2] = {
        {.kind = COORD_OP_CHECK, .path = PATH_TERM, .version = term_version},
        {.kind = COORD_OP_SET, .path = PATH_BEAT, .data = bytes, .version = -1},
    };

    node.term = b->term;
    node.head = b->head;
    node.name = (char *)b->name;
    node.addr = (char *)b->addr;
    ASSERT(protobuf_c_message_get_packed_size(&node.base) <= sizeof(bytes));
    ops[1].len = protobuf_c_message_pack(&node.base, bytes);
    if (mutate(MUT_NO_TERM_CHECK))
        return coord_multi(m->coord, ops + 1, 1);
    return coord_multi(m->coord, ops, 2);
}

/* ---- the log ---- */

static co_fn int index_read(struct metad *m, const char *path, uint64_t *ret,
                            struct coord_stat *ret_stat)
{
    void *data;
    size_t len;
    char *end;
    int rc = coord_get(m->coord, path, &data, &len, ret_stat);

    if (rc < 0)
        return rc;
    *ret = strtoull(data, &end, 10);
    if (len == 0 || end != (char *)data + len)
        rc = err_set(ERR_FORMAT, "node %s in ZooKeeper holds no number", path);
    mem_free(data);
    return rc;
}

co_fn int zk_head_read(struct metad *m, uint64_t *ret_index, int32_t *ret_version)
{
    struct coord_stat stat;
    int rc = coord_sync(m->coord, PATH_HEAD);

    if (rc == 0)
        rc = index_read(m, PATH_HEAD, ret_index, &stat);
    if (rc == 0 && ret_version != NULL)
        *ret_version = stat.version;
    return rc;
}

co_fn int zk_tail_read(struct metad *m, uint64_t *ret_index)
{
    return index_read(m, PATH_TAIL, ret_index, NULL);
}

co_fn int zk_entry_read(struct metad *m, uint64_t index, uint8_t **ret, size_t *ret_len)
{
    struct zk_path path = entry_path(index);

    return coord_get(m->coord, path.s, (void **)ret, ret_len, NULL);
}

co_fn int zk_append(struct metad *m, int32_t term_version, int32_t head_version, uint64_t index,
                    const void *bytes, size_t len)
{
    struct zk_path path = entry_path(index);
    char number[24];
    struct coord_op ops[3] = {
        {.kind = COORD_OP_CHECK, .path = PATH_TERM, .version = term_version},
        {.kind = COORD_OP_SET, .path = PATH_HEAD, .data = number, .version = head_version},
        {.kind = COORD_OP_CREATE, .path = path.s, .data = bytes, .len = len},
    };

    ops[1].len = (size_t)snprintf(number, sizeof(number), "%" PRIu64, index);
    if (mutate(MUT_NO_TERM_CHECK))
        return coord_multi(m->coord, ops + 1, 2);
    return coord_multi(m->coord, ops, 3);
}

co_fn int zk_trim(struct metad *m, int32_t term_version, uint64_t from, uint32_t n)
{
    struct zk_path paths[ZK_TRIM_MAX];
    struct coord_op ops[ZK_TRIM_MAX + 2] = {
        {.kind = COORD_OP_CHECK, .path = PATH_TERM, .version = term_version},
        {.kind = COORD_OP_SET, .path = PATH_TAIL, .version = -1},
    };
    char number[24];

    ASSERT(n >= 1 && n <= ZK_TRIM_MAX);
    ops[1].data = number;
    ops[1].len = (size_t)snprintf(number, sizeof(number), "%" PRIu64, from + n);
    for (uint32_t i = 0; i < n; i++) {
        paths[i] = entry_path(from + i);
        ops[2 + i] = (struct coord_op){.kind = COORD_OP_DELETE, .path = paths[i].s, .version = -1};
    }
    return coord_multi(m->coord, ops, (int)n + 2);
}

/* ---- beginning ---- */

/* May we create the log, continuing at our own index? With nothing anywhere, a majority must say
 * so; after a loss of ZooKeeper all must be there, and the one that knows most continues. */
static co_fn int may_create(struct metad *m)
{
    uint32_t answered = peers_ask(m, NSEC_PER_SEC) + 1;
    uint64_t most = 0;

    for (uint32_t i = 0; i < m->n_peers; i++) {
        if (m->peers[i].alive)
            most = MAX(most, m->peers[i].applied);
    }
    if (most > m->applied)
        return err_set(ERR_AGAIN, "ZooKeeper is empty; another meta server knows more and will "
                                  "write the log anew");
    if (m->applied == 0 && answered < metad_majority(m))
        return err_set(ERR_AGAIN,
                       "ZooKeeper is empty; %u of %u meta servers are there, %u are needed to "
                       "begin a new cluster",
                       answered, m->n_peers + 1, metad_majority(m));
    if (m->applied > 0 && answered < m->n_peers + 1)
        return err_set(ERR_AGAIN,
                       "ZooKeeper has lost the log; %u of %u meta servers are there, all are "
                       "needed to continue from what they have",
                       answered, m->n_peers + 1);
    return 0;
}

static void cluster_id_make(struct metad *m, char *dst, size_t room)
{
    uint8_t r[16];

    if (m->st.cluster_id[0] != 0) {
        snprintf(dst, room, "%s", m->st.cluster_id);
        return;
    }
    env_random_bytes(r, sizeof(r));
    snprintf(dst, room, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13],
             r[14], r[15]);
}

static co_fn int create_nodes(struct metad *m)
{
    Zbs__Metalog__ClusterNode cluster = ZBS__METALOG__CLUSTER_NODE__INIT;
    Zbs__Metalog__TermNode term = ZBS__METALOG__TERM_NODE__INIT;
    uint8_t cluster_bytes[128], term_bytes[32];
    char id[40], head[24], tail[24];
    struct coord_op ops[] = {
        {.kind = COORD_OP_CREATE, .path = PATH_CLUSTER, .data = cluster_bytes},
        {.kind = COORD_OP_CREATE, .path = PATH_TERM, .data = term_bytes},
        {.kind = COORD_OP_CREATE, .path = PATH_BEAT, .data = ""},
        {.kind = COORD_OP_CREATE, .path = PATH_HEAD, .data = head},
        {.kind = COORD_OP_CREATE, .path = PATH_TAIL, .data = tail},
        {.kind = COORD_OP_CREATE, .path = PATH_LOG, .data = ""},
        {.kind = COORD_OP_CREATE, .path = PATH_SERVICES, .data = ""},
    };

    cluster_id_make(m, id, sizeof(id));
    cluster.cluster_id = id;
    cluster.first_index = m->applied;
    /* The log has the start of every term that was served, so no server has seen a higher one. */
    term.term = m->st.term;
    ops[0].len = protobuf_c_message_pack(&cluster.base, cluster_bytes);
    ops[1].len = protobuf_c_message_pack(&term.base, term_bytes);
    ops[3].len = (size_t)snprintf(head, sizeof(head), "%" PRIu64, m->applied);
    ops[4].len = (size_t)snprintf(tail, sizeof(tail), "%" PRIu64, m->applied + 1);
    log_info("cluster.create", "id=%s index=%" PRIu64, id, m->applied);
    return coord_multi(m->coord, ops, ARRAY_SIZE(ops));
}

static co_fn int check_cluster(struct metad *m, const Zbs__Metalog__ClusterNode *node)
{
    uint64_t head;
    int rc;

    if (node->cluster_id[0] == 0 || strlen(node->cluster_id) >= sizeof(m->cluster_id))
        return err_set(ERR_FORMAT, "node " PATH_CLUSTER " in ZooKeeper holds no cluster id");
    strcpy(m->cluster_id, node->cluster_id);
    if (m->st.cluster_id[0] != 0 && strcmp(m->st.cluster_id, node->cluster_id) != 0)
        env_halt("%s holds the metadata of cluster %s, but ZooKeeper %s%s that of cluster %s: "
                 "check data_dir and zookeeper in the configuration",
                 m->conf.data_dir, m->st.cluster_id, m->conf.zookeeper, m->conf.zk_root,
                 node->cluster_id);
    rc = zk_head_read(m, &head, NULL);
    if (rc == 0 && m->applied > head)
        env_halt("this server has applied log entry %" PRIu64 ", ZooKeeper's log ends at %" PRIu64
                 ": ZooKeeper has lost writes; stop all meta servers, delete %s in ZooKeeper, and "
                 "start them all: they continue from their own state",
                 m->applied, head, m->conf.zk_root);
    return rc;
}

co_fn int zk_bootstrap(struct metad *m)
{
    Zbs__Metalog__ClusterNode *node;
    struct pad pad;
    int rc;

    pad_init(&pad);
    rc = coord_sync(m->coord, PATH_CLUSTER);
    if (rc == 0)
        rc = node_read(m, PATH_CLUSTER, &pad, &zbs__metalog__cluster_node__descriptor, &node, NULL);
    if (rc == 0) {
        rc = check_cluster(m, node);
    } else if (rc == ERR_NOTFOUND) {
        rc = may_create(m);
        if (rc == 0)
            rc = create_nodes(m);
        if (rc == 0 || rc == ERR_EXISTS)
            rc = err_set(ERR_AGAIN, "the cluster's nodes have just been created");
    }
    pad_fini(&pad);
    return rc;
}

co_fn void zk_announce(struct metad *m)
{
    char *path;
    int rc;

    if (m->announced)
        return;
    path = mem_printf(PATH_SERVICES "/meta-%s", m->conf.name);
    rc =
        coord_create(m->coord, path, m->conf.listen, strlen(m->conf.listen), COORD_EPHEMERAL, NULL);
    if (rc == ERR_EXISTS) { /* of our former session */
        rc = coord_delete(m->coord, path, -1);
        if (rc == 0)
            rc = coord_create(m->coord, path, m->conf.listen, strlen(m->conf.listen),
                              COORD_EPHEMERAL, NULL);
    }
    m->announced = rc == 0;
    mem_free(path);
}
