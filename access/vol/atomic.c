/* SPDX-License-Identifier: Apache-2.0
 *
 * COMPARE AND WRITE (PROTOCOL 8.2, 8.4): at most one page, by the owner under its range lock, and
 * never executed twice. */
#include "access/vol/vol_int.h"

#include <string.h>

/* 0: equal; ERR_MISCOMPARE; or why it could not be compared. */
static int compare(struct tenure *t, struct io *io)
{
    struct buf *b = buf_alloc(PAGE_BYTES);
    const uint8_t *expected = io->buf->data + io->buf_off;
    int rc = members_read(t, 0, io->off, io->len, b, 0, NULL);

    for (uint32_t k = 0; rc == 0 && k < io->len; k++) {
        if (b->data[k] == expected[k])
            continue;
        /* The answer is a read: it needs what every read needs. */
        rc = ownership_check(t);
        io->miscompare = k;
        if (rc == 0)
            rc = err_set(ERR_MISCOMPARE, "byte %u differs", k);
    }
    buf_put(b);
    return rc;
}

int tenure_compare_and_write(struct tenure *t, struct io *io)
{
    struct slice data = {io->buf2, io->buf2_off, io->len};
    struct op *op = op_new(t, ZBS__CHUNK__WRITE_KIND__WRITE_DATA, io->off, io->len, &data);
    struct co_shield shield;
    int rc = op_lock(op);

    ASSERT(op_pages(op) == 1);
    if (rc == 0)
        rc = compare(t, io);
    if (rc == 0)
        rc = credits_ensure(t, io->off, io->len);
    if (rc == 0)
        rc = reservations_check(io);
    if (rc == 0 && t->lost)
        rc = ERR_STALE;
    if (rc == 0) {
        /* That every member takes the write at our epoch proves the comparison, too. */
        io->sent = true;
        op_send(op);
        if (io->forwarded) {
            co_shield_begin(&shield);
            rc = op_wait(op);
            co_shield_end(&shield);
        } else {
            rc = op_wait(op);
        }
        if (rc < 0)
            rc = err_set(ERR_AMBIGUOUS, "it is not known whether the write happened");
    }
    op_put(op);
    return rc;
}
