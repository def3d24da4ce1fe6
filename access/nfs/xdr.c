/* SPDX-License-Identifier: Apache-2.0
 *
 * XDR: see xdr.h. */
#include "access/nfs/xdr.h"

#include <string.h>
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/base/mem.h"

/* ---- reading ---- */

void xdr_in_init(struct xdr_in *in, const void *data, size_t len)
{
    *in = (struct xdr_in){.p = data, .left = len};
}

static const uint8_t *take(struct xdr_in *in, size_t len)
{
    const uint8_t *p = in->p;

    if (in->bad || in->left < len) {
        in->bad = true;
        in->left = 0;
        return NULL;
    }
    in->p += len;
    in->left -= len;
    return p;
}

uint32_t xdr_u32(struct xdr_in *in)
{
    const uint8_t *p = take(in, 4);

    return p != NULL ? get_be32(p) : 0;
}

uint64_t xdr_u64(struct xdr_in *in)
{
    const uint8_t *p = take(in, 8);

    return p != NULL ? get_be64(p) : 0;
}

bool xdr_bool(struct xdr_in *in)
{
    uint32_t value = xdr_u32(in);

    if (value > 1)
        in->bad = true;
    return value == 1;
}

const uint8_t *xdr_fixed(struct xdr_in *in, size_t len)
{
    return take(in, XDR_PADDED(len));
}

const uint8_t *xdr_opaque(struct xdr_in *in, uint32_t max, uint32_t *ret_len)
{
    uint32_t len = xdr_u32(in);
    const uint8_t *p = NULL;

    if (len > max)
        in->bad = true;
    else
        p = xdr_fixed(in, len);
    *ret_len = in->bad ? 0 : len;
    return in->bad ? NULL : p;
}

/* ---- writing ---- */

#define FIRST_BYTES 256u

void xdr_out_init(struct xdr_out *out)
{
    *out = (struct xdr_out){0};
}

void xdr_out_fini(struct xdr_out *out)
{
    mem_free(out->data);
    xdr_out_init(out);
}

static uint8_t *extend(struct xdr_out *out, size_t len)
{
    uint8_t *p;

    if (out->cap - out->len < len) {
        out->cap = MAX(out->cap + len, MAX(2 * out->cap, FIRST_BYTES));
        out->data = mem_realloc(out->data, out->cap);
    }
    p = out->data + out->len;
    out->len += len;
    return p;
}

void xdr_put_u32(struct xdr_out *out, uint32_t value)
{
    put_be32(extend(out, 4), value);
}

void xdr_put_u64(struct xdr_out *out, uint64_t value)
{
    put_be64(extend(out, 8), value);
}

void xdr_put_bool(struct xdr_out *out, bool value)
{
    xdr_put_u32(out, value);
}

void xdr_put_fixed(struct xdr_out *out, const void *data, size_t len)
{
    uint8_t *p = extend(out, XDR_PADDED(len));

    if (len > 0)
        memcpy(p, data, len);
    memset(p + len, 0, XDR_PADDED(len) - len);
}

void xdr_put_opaque(struct xdr_out *out, const void *data, uint32_t len)
{
    xdr_put_u32(out, len);
    xdr_put_fixed(out, data, len);
}

void xdr_put_string(struct xdr_out *out, const char *text)
{
    xdr_put_opaque(out, text, (uint32_t)strlen(text));
}

void xdr_set_u32(struct xdr_out *out, size_t at, uint32_t value)
{
    ASSERT(at + 4 <= out->len);
    put_be32(out->data + at, value);
}

void xdr_cut(struct xdr_out *out, size_t len)
{
    ASSERT(len <= out->len);
    out->len = len;
}
