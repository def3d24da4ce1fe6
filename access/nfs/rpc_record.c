/* SPDX-License-Identifier: Apache-2.0
 *
 * ONC RPC: records out of a stream (RFC 5531, 11): fragments, each behind a mark that has its
 * length and says whether it is the record's last. Behind long bulk data only the next mark is read
 * ahead, so that the bulk data after it is received in place. */
#include "access/nfs/rpc_int.h"

#define RECORD_MAX (ONC_RECORD_BYTES + ONC_BULK_BYTES)

static co_fn int stream_bytes(struct onc_conn *c, void *dst, uint32_t len)
{
    return stream_read(&c->stream, dst, len, c->last_bulk >= STREAM_DIRECT_MIN, ONC_MARK_BYTES);
}

static co_fn int fragment_begin(struct onc_conn *c)
{
    uint8_t mark[ONC_MARK_BYTES];
    int rc = stream_turn(&c->stream);

    if (rc == 0)
        rc = stream_bytes(c, mark, sizeof(mark));
    if (rc < 0)
        return rc;
    c->last = get_be32(mark) & ONC_LAST;
    c->fragment = get_be32(mark) & ~ONC_LAST;
    if (c->fragment > RECORD_MAX - c->record)
        return err_set(ERR_PROTO, "a record of more than %u bytes", RECORD_MAX);
    c->record += c->fragment;
    return 0;
}

co_fn int onc_record_begin(struct onc_conn *c)
{
    c->record = 0;
    return fragment_begin(c);
}

co_fn int onc_record_read(struct onc_conn *c, void *dst, uint32_t len, uint32_t *ret)
{
    uint32_t done = 0;
    int rc = 0;

    while (done < len && rc == 0) {
        uint32_t n = MIN(len - done, c->fragment);

        if (n == 0 && c->last)
            break;
        if (n == 0) {
            rc = fragment_begin(c);
            continue;
        }
        rc = stream_bytes(c, (uint8_t *)dst + done, n);
        c->fragment -= n;
        done += n;
    }
    *ret = done;
    return rc;
}

bool onc_record_ended(const struct onc_conn *c)
{
    return c->last && c->fragment == 0;
}

co_fn int onc_record_skip(struct onc_conn *c)
{
    uint8_t waste[512];
    uint32_t got;
    int rc;

    do {
        rc = onc_record_read(c, waste, sizeof(waste), &got);
    } while (rc == 0 && got == sizeof(waste));
    return rc;
}
