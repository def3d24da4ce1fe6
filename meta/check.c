/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks of what comes from outside: see check.h. */
#include "meta/check.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include "common/base/err.h"
#include "common/base/name.h"
#include "common/base/units.h"
#include "meta/limits.h"

int check_name_or_none(const char *what, const char *name)
{
    return name[0] == 0 ? 0 : name_check(what, name, NAME_BYTES_MAX);
}

static bool printable(const char *s, char from)
{
    for (; *s != 0; s++) {
        if (*s < from || *s > '~')
            return false;
    }
    return true;
}

int check_addr(const char *what, const char *addr)
{
    if (addr[0] == 0 || strlen(addr) > ADDR_BYTES_MAX || !printable(addr, '!'))
        return err_set(ERR_INVAL, "%s is not an address like 127.0.0.1:7000", what);
    return 0;
}

int check_addr_or_none(const char *what, const char *addr)
{
    return addr[0] == 0 ? 0 : check_addr(what, addr);
}

int check_uuid(const char *what, const ProtobufCBinaryData *uuid)
{
    static const uint8_t zero[16];

    if (uuid->len != 16 || memcmp(uuid->data, zero, 16) == 0)
        return err_set(ERR_INVAL, "%s is not 16 bytes, or zero", what);
    return 0;
}

static bool all_hex(const char *s, size_t len)
{
    return strlen(s) == len && strspn(s, "0123456789abcdefABCDEF") == len;
}

static bool is_iqn(const char *s)
{
    static const char form[] = "iqn.dddd-dd.";

    for (size_t i = 0; form[i] != 0; i++) {
        if (form[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != form[i])
            return false;
    }
    s += sizeof(form) - 1;
    if (s[0] == 0 || s[0] == '.' || s[0] == '-' || s[0] == ':')
        return false;
    return strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789.:-_") == strlen(s);
}

int check_iqn(const char *what, const char *iqn)
{
    size_t len = strnlen(iqn, IQN_BYTES_MAX + 1);

    if (len <= IQN_BYTES_MAX) {
        if (is_iqn(iqn))
            return 0;
        if (strncmp(iqn, "eui.", 4) == 0 && all_hex(iqn + 4, 16))
            return 0;
        if (strncmp(iqn, "naa.", 4) == 0 && (all_hex(iqn + 4, 16) || all_hex(iqn + 4, 32)))
            return 0;
    }
    return err_set(ERR_INVAL,
                   "%s is not an iSCSI name: use iqn.YYYY-MM.reversed.domain:name in lower case "
                   "letters, digits, '.', ':', '-' (at most %u bytes)",
                   what, IQN_BYTES_MAX);
}

int check_chap(const char *user, const char *secret)
{
    size_t len = strlen(secret);

    if (user[0] == 0 && secret[0] == 0)
        return 0;
    if (user[0] == 0 || strlen(user) > NAME_BYTES_MAX || !printable(user, '!'))
        return err_set(ERR_INVAL, "the CHAP user must be 1 to %u printable ASCII characters",
                       NAME_BYTES_MAX);
    if (len < CHAP_SECRET_MIN || len > CHAP_SECRET_MAX || !printable(secret, ' '))
        return err_set(ERR_INVAL, "the CHAP secret must be %u to %u printable ASCII characters",
                       CHAP_SECRET_MIN, CHAP_SECRET_MAX);
    return 0;
}

int check_no_snapshot_name(const char *name)
{
    if (strchr(name, '@') == NULL)
        return 0;
    return err_set(ERR_INVAL, "'%s' contains '@', which only names of snapshots do", name);
}

int check_volume_name(const char *name)
{
    if (strncmp(name, "file-", 5) == 0 && all_hex(name + 5, 16))
        return err_set(ERR_INVAL, "'%s' is a name of a file's volume", name);
    return check_no_snapshot_name(name);
}

int check_volume_size(uint64_t size_bytes)
{
    if (size_bytes < VOLUME_BYTES_MIN || size_bytes > VOLUME_BYTES_MAX)
        return err_set(ERR_INVAL, "size %" PRIu64 " is out of range: 1 MiB to 64 TiB", size_bytes);
    if (size_bytes % PAGE_BYTES != 0)
        return err_set(ERR_INVAL, "size %" PRIu64 " is not a multiple of 4096", size_bytes);
    return 0;
}
