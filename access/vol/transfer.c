/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing volumes by RPC, for tools that carry a volume's content from cluster to
 * cluster (tools/stream). A volume that is imported is written by nobody else. */
#include "access/vol/vol_int.h"

#include "common/base/crc32c.h"

static int range_check(uint64_t offset, uint64_t length, uint64_t max)
{
    if (length == 0 || length > max || offset > UINT64_MAX - length)
        return err_set(ERR_INVAL, "%" PRIu64 " bytes at %" PRIu64 ": at most %" PRIu64 " at once",
                       length, offset, max);
    return 0;
}

int access_volume_read(struct rpc_request *q)
{
    const Zbs__Access__VolumeReadRequest *m = (const Zbs__Access__VolumeReadRequest *)q->msg;
    Zbs__Access__VolumeReadReply *reply = (Zbs__Access__VolumeReadReply *)q->reply;
    int rc = range_check(m->offset, m->length, RPC_PAYLOAD_MAX);
    struct buf *b;
    struct vol *v;

    if (rc == 0)
        rc = vol_open(q->ctx, m->volume_id, &v);
    if (rc < 0)
        return rc;
    b = buf_alloc(m->length);
    rc = vol_read(v, m->offset, m->length, b, 0);
    vol_close(v);
    if (rc == 0) {
        reply->crc = crc32c(0, b->data, m->length);
        rpc_payload_add(&q->out, b, 0, m->length);
    }
    buf_put(b);
    return rc;
}

static int write_check(const struct rpc_request *q, const Zbs__Access__VolumeWriteRequest *m)
{
    int rc = range_check(m->offset, m->length, m->discard ? UINT64_MAX : RPC_PAYLOAD_MAX);

    if (rc < 0)
        return rc;
    if (q->payload_len != (m->discard ? 0 : m->length))
        return err_set(ERR_INVAL, "a write of %" PRIu64 " bytes with %u bytes of payload",
                       m->length, q->payload_len);
    if (!m->discard && crc32c(0, q->payload->data, q->payload_len) != m->crc)
        return err_set(ERR_AGAIN, "a write does not match its checksum");
    if (m->importing == 0)
        return err_set(ERR_PERM, "only a volume that is imported is written this way");
    return 0;
}

int access_volume_write(struct rpc_request *q)
{
    const Zbs__Access__VolumeWriteRequest *m = (const Zbs__Access__VolumeWriteRequest *)q->msg;
    int rc = write_check(q, m);
    struct vol *v;

    if (rc == 0)
        rc = vol_open_import(q->ctx, m->volume_id, m->importing, &v);
    if (rc < 0)
        return rc;
    rc = m->discard ? vol_discard(v, m->offset, m->length)
                    : vol_write(v, m->offset, (uint32_t)m->length, q->payload, 0);
    vol_close(v);
    return rc;
}
