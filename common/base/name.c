/* SPDX-License-Identifier: Apache-2.0
 *
 * Validation of names. */
#include <string.h>
#include "common/base/err.h"
#include "common/base/name.h"

/* Decodes one character: its length in bytes, 0 if malformed. */
static size_t utf8_decode(const uint8_t *p, size_t len, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n;
    uint32_t c;

    if (p[0] < 0x80) {
        *ret = p[0];
        return 1;
    }
    if ((p[0] & 0xE0) == 0xC0)
        n = 2;
    else if ((p[0] & 0xF0) == 0xE0)
        n = 3;
    else if ((p[0] & 0xF8) == 0xF0)
        n = 4;
    else
        return 0;
    if (n > len)
        return 0;
    c = p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return 0;
    *ret = c;
    return n;
}

bool utf8_valid(const void *text, size_t len)
{
    const uint8_t *p = text;
    uint32_t c;

    for (size_t at = 0, n; at < len; at += n) {
        n = utf8_decode(p + at, len - at, &c);
        if (n == 0)
            return false;
    }
    return true;
}

/* NULL, or what is wrong. */
static const char *name_fault(const uint8_t *p, size_t len, size_t max)
{
    uint32_t c;

    if (len == 0)
        return "is empty";
    if (len > max)
        return "is too long";
    if (p[0] == '.' && (len == 1 || (len == 2 && p[1] == '.')))
        return "may not be . or ..";
    for (size_t at = 0, n; at < len; at += n) {
        n = utf8_decode(p + at, len - at, &c);
        if (n == 0)
            return "is not valid UTF-8";
        if (c < 0x20 || (c >= 0x7F && c < 0xA0))
            return "contains a control character";
        if (c == '/')
            return "contains '/'";
    }
    return NULL;
}

bool name_valid(const void *name, size_t len, size_t max)
{
    return name_fault(name, len, max) == NULL;
}

int name_check(const char *what, const char *name, size_t max)
{
    const char *fault = name_fault((const uint8_t *)name, strnlen(name, max + 1), max);

    if (fault != NULL)
        return err_set(ERR_INVAL, "%s %s (1 to %zu bytes are allowed)", what, fault, max);
    return 0;
}
