/* SPDX-License-Identifier: Apache-2.0
 *
 * The first frame in each direction. */
#include <inttypes.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/rpc/arena.h"
#include "common/rpc/conn.h"
#include "proto/rpc.pb-c.h"

co_fn int conn_hello_send(struct rpc_conn *c, const struct conn_hello *hello,
                          uint32_t in_flight_max)
{
    Zbs__Rpc__Hello msg = ZBS__RPC__HELLO__INIT;
    struct frame_header h = {
        .version = FRAME_VERSION_HELLO, .kind = FRAME_HELLO, .status = hello->status};
    size_t msg_len;
    uint8_t *frame;
    struct iovec iov;
    int rc;

    msg.version_min = hello->version_min;
    msg.version_max = hello->version_max;
    msg.features = hello->features;
    msg.cluster_id = (char *)hello->cluster_id;
    msg.self = (char *)hello->self;
    msg.instance = hello->instance;
    msg.incarnation = hello->incarnation;
    msg.message_max = RPC_MESSAGE_MAX;
    msg.payload_max = RPC_PAYLOAD_MAX;
    msg.in_flight_max = in_flight_max;
    msg_len = protobuf_c_message_get_packed_size(&msg.base);
    h.text_len = hello->status < 0 ? (uint32_t)strlen(hello->text) : 0;
    h.area_len = h.text_len + (uint32_t)msg_len;
    ASSERT(h.area_len <= FRAME_HELLO_MAX && h.text_len <= FRAME_TEXT_MAX);
    frame = mem_alloc(FRAME_HEADER_BYTES + h.area_len);
    frame_header_encode(frame, &h);
    memcpy(frame + FRAME_HEADER_BYTES, hello->text, h.text_len);
    protobuf_c_message_pack(&msg.base, frame + FRAME_HEADER_BYTES + h.text_len);
    iov = (struct iovec){frame, FRAME_HEADER_BYTES + h.area_len};
    rc = net_writev_full(c->net, &iov, 1);
    mem_free(frame);
    return rc;
}

/* Names go into logs and comparisons: printable, without spaces, not too long. */
static int hello_name_copy(char dst[CONN_NAME_MAX], const char *src, const char *what)
{
    size_t len = strlen(src);

    if (len >= CONN_NAME_MAX)
        return err_set(ERR_PROTO, "%s of %zu bytes in the hello", what, len);
    for (size_t i = 0; i < len; i++) {
        if (src[i] <= 0x20 || src[i] >= 0x7f)
            return err_set(ERR_PROTO, "%s in the hello is not printable", what);
    }
    memcpy(dst, src, len + 1);
    return 0;
}

static int hello_take(const struct frame_header *h, const uint8_t *area, struct arena *arena,
                      struct conn_hello *ret)
{
    Zbs__Rpc__Hello *msg = zbs__rpc__hello__unpack(arena_allocator(arena),
                                                   h->area_len - h->text_len, area + h->text_len);
    int rc;

    if (msg == NULL)
        return err_set(ERR_PROTO, "hello cannot be decoded");
    *ret = (struct conn_hello){
        .status = h->status,
        .version_min = msg->version_min,
        .version_max = msg->version_max,
        .features = msg->features,
        .instance = msg->instance,
        .incarnation = msg->incarnation,
    };
    conn_text_copy(ret->text, sizeof(ret->text), area, h->text_len);
    rc = hello_name_copy(ret->cluster_id, msg->cluster_id, "cluster id");
    if (rc == 0)
        rc = hello_name_copy(ret->self, msg->self, "name");
    return rc;
}

co_fn int conn_hello_recv(struct rpc_conn *c, struct conn_hello *ret)
{
    struct frame_header h;
    const uint8_t *area;
    struct arena_pool *pool;
    struct arena *arena;
    void *tmp;
    int rc;

    rc = conn_recv_header(c, &h);
    if (rc < 0)
        return rc;
    ASSERT(h.kind == FRAME_HELLO); /* the only kind of version 0 */
    rc = conn_recv_area(c, &h, &area, &tmp);
    if (rc < 0)
        return rc;
    ASSERT(tmp == NULL);
    pool = arena_pool_new();
    arena = arena_new(pool, arena_unpack_limit(h.area_len));
    rc = hello_take(&h, area, arena, ret);
    arena_free(arena);
    arena_pool_close(pool);
    return rc;
}

uint64_t conn_features(struct rpc_conn *c)
{
    return FRAME_FEATURES_SUPPORTED & ~(net_can_share(c->net) ? 0 : FRAME_FEATURES_SHARING);
}

co_fn int conn_share_take(struct rpc_conn *c)
{
    int rc;

    if (c->rx_head != c->rx_tail)
        return err_set(ERR_PROTO, "bytes between the hello and shared memory");
    rc = net_share_take(c->net);
    if (rc < 0)
        return rc;
    if ((c->features & FRAME_FEATURE_SLOTS) && !net_peer_arena(c->net, &c->arena))
        return err_set(ERR_PROTO, "slots without an arena");
    return 0;
}

bool conn_hello_foreign(const char *ours, const char *theirs)
{
    return ours[0] != '\0' && theirs[0] != '\0' && strcmp(ours, theirs) != 0;
}
