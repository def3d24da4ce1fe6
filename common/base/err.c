/* SPDX-License-Identifier: Apache-2.0
 *
 * Error names, texts and slots. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/err.h"

#undef err_set
#undef err_prefix
#undef err_from_errno
#include "common/base/thread_ctx.h"

static const struct {
    const char *name, *text;
} err_table[] = {
#define X(name, number, text) [number] = {#name, text},
    ERR_LIST(X)
#undef X
};

static bool err_known(int rc)
{
    return rc < 0 && rc > -(int)ARRAY_SIZE(err_table) && err_table[-rc].name != NULL;
}

const char *err_name(int rc)
{
    return err_known(rc) ? err_table[-rc].name : "?";
}

const char *err_default_text(int rc)
{
    if (rc >= 0)
        return "success";
    return err_known(rc) ? err_table[-rc].text : "unknown error";
}

NOINLINE struct err_slot *err_slot_current(void)
{
    static __thread struct err_slot thread_slot;
    const struct thread_ctx *ctx = thread_ctx_get();

    return ctx != NULL ? ctx->err : &thread_slot;
}

int err_set(int rc, const char *fmt, ...)
{
    struct err_slot *slot = err_slot_current();
    char text[sizeof(slot->text)]; /* an argument may be the present text */
    va_list ap;

    ASSERT(rc < 0);
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    memcpy(slot->text, text, sizeof(text));
    slot->rc = rc;
    return rc;
}

int err_prefix(int rc, const char *fmt, ...)
{
    struct err_slot *slot = err_slot_current();
    char text[sizeof(slot->text)];
    va_list ap;
    size_t len;

    ASSERT(rc < 0);
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    len = strlen(text);
    (void)snprintf(text + len, sizeof(text) - len, ": %s", err_text(rc));
    memcpy(slot->text, text, sizeof(text));
    slot->rc = rc;
    return rc;
}

const char *err_text(int rc)
{
    struct err_slot *slot = err_slot_current();

    return rc < 0 && slot->rc == rc ? slot->text : err_default_text(rc);
}

static int err_of_errno(int errnum)
{
    static const struct {
        int errnum, rc;
    } map[] = {
        {EINVAL, ERR_INVAL},
        {EISDIR, ERR_INVAL},
        {ENOTDIR, ERR_INVAL},
        {EILSEQ, ERR_INVAL},
        {ENOMEM, ERR_NOMEM},
        {ENOBUFS, ERR_NOMEM},
        {EMFILE, ERR_NOMEM},
        {ENFILE, ERR_NOMEM},
        {EIO, ERR_IO},
        {ENOENT, ERR_NOTFOUND},
        {ENODEV, ERR_NOTFOUND},
        {ENXIO, ERR_NOTFOUND},
        {EEXIST, ERR_EXISTS},
        {EBUSY, ERR_BUSY},
        {ETXTBSY, ERR_BUSY},
        {EADDRINUSE, ERR_BUSY},
        {ETIMEDOUT, ERR_TIMEOUT},
        {ECANCELED, ERR_CANCELED},
        {EPIPE, ERR_CLOSED},
        {ECONNRESET, ERR_CLOSED},
        {ECONNABORTED, ERR_CLOSED},
        {ENOTCONN, ERR_CLOSED},
        {ESHUTDOWN, ERR_CLOSED},
        {EPROTO, ERR_PROTO},
        {EFBIG, ERR_TOO_LARGE},
        {E2BIG, ERR_TOO_LARGE},
        {EMSGSIZE, ERR_TOO_LARGE},
        {ENAMETOOLONG, ERR_TOO_LARGE},
        {ENOSPC, ERR_NOSPACE},
        {EDQUOT, ERR_NOSPACE},
        {EOPNOTSUPP, ERR_UNSUPPORTED},
        {ENOSYS, ERR_UNSUPPORTED},
        {ENOTTY, ERR_UNSUPPORTED},
        {EAFNOSUPPORT, ERR_UNSUPPORTED},
        {EPERM, ERR_PERM},
        {EACCES, ERR_PERM},
        {EROFS, ERR_PERM},
        {EAGAIN, ERR_AGAIN},
        {EINTR, ERR_AGAIN},
        {ENOTEMPTY, ERR_NOT_EMPTY},
        {ECONNREFUSED, ERR_REFUSED},
        {EHOSTUNREACH, ERR_UNREACHABLE},
        {ENETUNREACH, ERR_UNREACHABLE},
        {EHOSTDOWN, ERR_UNREACHABLE},
        {ENETDOWN, ERR_UNREACHABLE},
        {EADDRNOTAVAIL, ERR_UNREACHABLE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (map[i].errnum == errnum)
            return map[i].rc;
    return ERR_IO;
}

int err_from_errno(int errnum, const char *fmt, ...)
{
    char what[192], reason[64];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return err_set(err_of_errno(errnum), "%s: %s", what,
                   strerror_r(errnum, reason, sizeof(reason)));
}
