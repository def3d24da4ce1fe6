/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations as bytes: the record that is kept, and names of initiator ports. */
#include <stdio.h>
#include <string.h>
#include "access/scsi/pr.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/mem.h"

/* ---- the record ----
 *
 *     0  version (1)                         4  generation     8  type     12  registrants
 *     1  flags: 1 APTPL, 2 RESERVE(6)                          9  zero     16  resets
 *                                                             10  optimized target port
 *     20 who reserved by RESERVE(6), if the flag is set; then the registrants, each:
 *
 *     0  key   8  target port   10  flags: 1 holder   11  length of the name   12  the name */

#define RECORD_VERSION 1u
#define RECORD_HEADER  20u
#define RECORD_EACH    12u

enum { RECORD_APTPL = 1, RECORD_LEGACY = 2, RECORD_HOLDER = 1 };

static uint8_t *registrant_encode(const struct pr_registrant *r, uint8_t *p)
{
    size_t len = strlen(r->nexus.initiator);

    put_be64(p, r->key);
    put_be16(p + 8, r->nexus.port);
    p[10] = r->holder ? RECORD_HOLDER : 0;
    p[11] = (uint8_t)len;
    memcpy(p + RECORD_EACH, r->nexus.initiator, len);
    return p + RECORD_EACH + len;
}

size_t pr_encode(const struct pr_state *s, uint8_t **ret)
{
    const struct pr_registrant legacy = {.nexus = s->legacy_nexus};
    uint8_t *start = mem_alloc(RECORD_HEADER + (s->count + 1) * (RECORD_EACH + PR_INITIATOR_MAX));
    uint8_t *p = start + RECORD_HEADER;

    memset(start, 0, RECORD_HEADER);
    start[0] = RECORD_VERSION;
    start[1] = (uint8_t)((s->aptpl ? RECORD_APTPL : 0) | (s->legacy ? RECORD_LEGACY : 0));
    put_be32(start + 4, s->generation);
    start[8] = s->type;
    put_be16(start + 10, s->optimized);
    put_be32(start + 12, s->count);
    put_be32(start + 16, s->resets);
    if (s->legacy)
        p = registrant_encode(&legacy, p);
    for (uint32_t i = 0; i < s->count; i++)
        p = registrant_encode(&s->regs[i], p);
    *ret = start;
    return (size_t)(p - start);
}

/* Length of the registrant at p, 0 if it is cut or malformed. */
static size_t registrant_decode(struct pr_registrant *r, const uint8_t *p, size_t len)
{
    if (len < RECORD_EACH || len - RECORD_EACH < p[11] || p[11] == 0 || p[11] >= PR_INITIATOR_MAX ||
        memchr(p + RECORD_EACH, 0, p[11]) != NULL)
        return 0;
    r->key = get_be64(p);
    r->nexus.port = get_be16(p + 8);
    r->holder = p[10] & RECORD_HOLDER;
    memcpy(r->nexus.initiator, p + RECORD_EACH, p[11]);
    return RECORD_EACH + p[11];
}

/* What stands behind the header, into s (whose header is set): is it all right? */
static bool registrants_decode(struct pr_state *s, const uint8_t *p, size_t len)
{
    struct pr_registrant legacy = {0};
    uint32_t holders = 0;
    size_t n;

    if (s->legacy) {
        n = registrant_decode(&legacy, p, len);
        if (n == 0 || s->count > 0)
            return false;
        s->legacy_nexus = legacy.nexus;
        p += n;
        len -= n;
    }
    for (uint32_t i = 0; i < s->count; i++, p += n, len -= n) {
        n = registrant_decode(&s->regs[i], p, len);
        if (n == 0)
            return false;
        holders += s->regs[i].holder;
    }
    return len == 0 && holders == (s->type != PR_NONE && !pr_type_all(s->type)) &&
           (s->type == PR_NONE || s->count > 0);
}

int pr_decode(struct pr_state *dst, const uint8_t *bytes, size_t len)
{
    struct pr_state s;
    uint32_t count;

    if (len < RECORD_HEADER || bytes[0] != RECORD_VERSION)
        return err_set(ERR_FORMAT, "reservation record of an unknown form");
    count = get_be32(bytes + 12);
    if (count > PR_REGISTRANTS_MAX || (bytes[8] != PR_NONE && !pr_type_valid(bytes[8])))
        return err_set(ERR_FORMAT, "reservation record with a field out of range");
    pr_state_init(&s);
    s.aptpl = bytes[1] & RECORD_APTPL;
    s.legacy = bytes[1] & RECORD_LEGACY;
    s.generation = get_be32(bytes + 4);
    s.type = bytes[8];
    s.optimized = get_be16(bytes + 10);
    s.resets = get_be32(bytes + 16);
    s.count = count;
    s.regs = MEM_NEW_ARRAY(struct pr_registrant, count > 0 ? count : 1);
    if (!registrants_decode(&s, bytes + RECORD_HEADER, len - RECORD_HEADER)) {
        pr_state_fini(&s);
        return err_set(ERR_FORMAT, "reservation record that contradicts itself");
    }
    pr_state_fini(dst);
    *dst = s;
    return 0;
}

/* ---- names of initiator ports ---- */

#define TRANSPORT_ISCSI_PORT 0x45u /* format 01b: a port; protocol 5: iSCSI */

void pr_initiator_name(char dst[PR_INITIATOR_MAX], const char *name, const uint8_t isid[6])
{
    snprintf(dst, PR_INITIATOR_MAX, "%.223s,i,0x%02x%02x%02x%02x%02x%02x", name, isid[0], isid[1],
             isid[2], isid[3], isid[4], isid[5]);
}

uint32_t pr_transport_id_parse(const uint8_t *p, uint32_t len, char dst[PR_INITIATOR_MAX])
{
    uint32_t n;
    const char *name = (const char *)p + 4;

    if (len < 4 || p[0] != TRANSPORT_ISCSI_PORT)
        return 0;
    n = get_be16(p + 2);
    if (n < 20 || n % 4 != 0 || n > len - 4)
        return 0;
    size_t used = strnlen(name, n);
    if (used == n || used >= PR_INITIATOR_MAX || strstr(name, ",i,0x") == NULL)
        return 0;
    memcpy(dst, name, used + 1);
    return 4 + n;
}

uint32_t pr_transport_id_put(uint8_t *dst, const char *initiator)
{
    size_t len = strlen(initiator);
    uint32_t n = (uint32_t)(len + 4) & ~3u; /* with a NUL at least */

    if (n < 20)
        n = 20;
    memset(dst, 0, 4 + n);
    dst[0] = TRANSPORT_ISCSI_PORT;
    put_be16(dst + 2, (uint16_t)n);
    memcpy(dst + 4, initiator, len);
    return 4 + n;
}
