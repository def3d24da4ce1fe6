/* SPDX-License-Identifier: Apache-2.0
 *
 * XDR (RFC 4506): a reader over received bytes and a writer into memory that grows. The reader
 * never leaves its bytes: past the end, or at something that can't be, it turns bad, stays so and
 * gives zeroes, so a decoder reads all it wants and asks once. */
#ifndef ZBS_ACCESS_NFS_XDR_H
#define ZBS_ACCESS_NFS_XDR_H

#include <stdbool.h>
#include "common/base/attr.h"

#define XDR_UNIT        4u
#define XDR_PADDED(len) ROUND_UP((size_t)(len), XDR_UNIT)

struct xdr_in {
    const uint8_t *p;
    size_t left;
    bool bad;
};

void xdr_in_init(struct xdr_in *in, const void *data, size_t len);
uint32_t xdr_u32(struct xdr_in *in);
uint64_t xdr_u64(struct xdr_in *in);
bool xdr_bool(struct xdr_in *in); /* bad unless 0 or 1 */
/* len bytes and their padding; NULL if they are not there. Points into the received bytes. */
const uint8_t *xdr_fixed(struct xdr_in *in, size_t len);
/* As many bytes as the length before them says, at most max; NULL if bad. */
const uint8_t *xdr_opaque(struct xdr_in *in, uint32_t max, uint32_t *ret_len);

struct xdr_out {
    uint8_t *data; /* mem_ memory */
    size_t len, cap;
};

void xdr_out_init(struct xdr_out *out);
void xdr_out_fini(struct xdr_out *out);
void xdr_put_u32(struct xdr_out *out, uint32_t value);
void xdr_put_u64(struct xdr_out *out, uint64_t value);
void xdr_put_bool(struct xdr_out *out, bool value);
void xdr_put_fixed(struct xdr_out *out, const void *data, size_t len); /* padded */
void xdr_put_opaque(struct xdr_out *out, const void *data, uint32_t len);
void xdr_put_string(struct xdr_out *out, const char *text);
/* Overwrites a number that was put at this place. */
void xdr_set_u32(struct xdr_out *out, size_t at, uint32_t value);
/* Takes back what was put behind this place. */
void xdr_cut(struct xdr_out *out, size_t len);

#endif
