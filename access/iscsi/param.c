/* SPDX-License-Identifier: Apache-2.0
 *
 * Text keys: see param.h. */
#include "access/iscsi/param.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/base/assert.h"

#define KEY_BYTES_MAX   63u
#define VALUE_BYTES_MAX 8192u

/* ---- text ---- */

void text_add(struct text_out *out, const char *key, const char *value)
{
    size_t need = strlen(key) + 1 + strlen(value) + 1;

    if (out->overflow || need > out->cap - out->len) {
        out->overflow = true;
        return;
    }
    out->len += (size_t)snprintf(out->data + out->len, out->cap - out->len, "%s=%s", key, value);
    out->data[out->len++] = '\0';
}

void text_addf(struct text_out *out, const char *key, const char *fmt, ...)
{
    char value[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    text_add(out, key, value);
}

int text_next(struct text_in *in, char **ret_key, char **ret_value)
{
    char *nul, *eq;

    while (in->pos < in->end && *in->pos == '\0')
        in->pos++; /* an empty pair: padding that was counted in */
    if (in->pos == in->end)
        return 0;
    nul = memchr(in->pos, '\0', (size_t)(in->end - in->pos));
    if (nul == NULL)
        return err_set(ERR_PROTO, "text does not end with NUL");
    eq = memchr(in->pos, '=', (size_t)(nul - in->pos));
    if (eq == NULL || eq == in->pos || eq - in->pos > (ptrdiff_t)KEY_BYTES_MAX ||
        nul - eq > (ptrdiff_t)VALUE_BYTES_MAX)
        return err_set(ERR_PROTO, "text is not of the form key=value");
    *eq = '\0';
    *ret_key = in->pos;
    *ret_value = eq + 1;
    in->pos = nul + 1;
    return 1;
}

bool text_list_has(const char *list, const char *word)
{
    size_t len = strlen(word);

    while (list != NULL) {
        const char *comma = strchr(list, ',');
        size_t n = comma != NULL ? (size_t)(comma - list) : strlen(list);

        if (n == len && memcmp(list, word, n) == 0)
            return true;
        list = comma != NULL ? comma + 1 : NULL;
    }
    return false;
}

/* ---- the table ---- */

enum param_kind {
    KIND_AND,     /* boolean, Yes only if both say Yes */
    KIND_OR,      /* boolean, Yes if one says Yes */
    KIND_MIN,     /* number, the smaller */
    KIND_MAX,     /* number, the larger */
    KIND_DECLARE, /* number, each side its own: no answer */
    KIND_DIGEST,  /* list: None, CRC32C */
    KIND_RFC3720, /* list of task reporting modes: always RFC3720 */
};

struct param_def {
    const char *key;
    enum param_kind kind;
    bool normal_only;        /* Irrelevant in a discovery session */
    uint32_t lo, hi;         /* numbers: legal values */
    uint32_t ours, standard; /* what we answer with; what holds if nobody says anything */
};

static const struct param_def defs[PARAM_COUNT] = {
    [PARAM_HEADER_DIGEST] = {.key = "HeaderDigest", .kind = KIND_DIGEST},
    [PARAM_DATA_DIGEST] = {.key = "DataDigest", .kind = KIND_DIGEST},
    [PARAM_MAX_CONNECTIONS] = {.key = "MaxConnections",
                               .kind = KIND_MIN,
                               .normal_only = true,
                               .lo = 1,
                               .hi = 65535,
                               .ours = OUR_MAX_CONNECTIONS,
                               .standard = 1},
    [PARAM_INITIAL_R2T] =
        {.key = "InitialR2T", .kind = KIND_OR, .normal_only = true, .ours = 0, .standard = 1},
    [PARAM_IMMEDIATE_DATA] =
        {.key = "ImmediateData", .kind = KIND_AND, .normal_only = true, .ours = 1, .standard = 1},
    [PARAM_MAX_RECV_DATA] = {.key = "MaxRecvDataSegmentLength",
                             .kind = KIND_DECLARE,
                             .lo = 512,
                             .hi = 16777215,
                             .standard = 8192},
    [PARAM_MAX_BURST] = {.key = "MaxBurstLength",
                         .kind = KIND_MIN,
                         .normal_only = true,
                         .lo = 512,
                         .hi = 16777215,
                         .ours = 1024 * 1024,
                         .standard = 262144},
    [PARAM_FIRST_BURST] = {.key = "FirstBurstLength",
                           .kind = KIND_MIN,
                           .normal_only = true,
                           .lo = 512,
                           .hi = 16777215,
                           .ours = 256 * 1024,
                           .standard = 65536},
    [PARAM_TIME2WAIT] = {.key = "DefaultTime2Wait",
                         .kind = KIND_MAX,
                         .lo = 0,
                         .hi = 3600,
                         .ours = 0,
                         .standard = 2},
    [PARAM_TIME2RETAIN] = {.key = "DefaultTime2Retain",
                           .kind = KIND_MIN,
                           .lo = 0,
                           .hi = 3600,
                           .ours = 0,
                           .standard = 20},
    [PARAM_MAX_R2T] = {.key = "MaxOutstandingR2T",
                       .kind = KIND_MIN,
                       .normal_only = true,
                       .lo = 1,
                       .hi = 65535,
                       .ours = OUR_MAX_R2T,
                       .standard = 1},
    [PARAM_PDU_IN_ORDER] =
        {.key = "DataPDUInOrder", .kind = KIND_OR, .normal_only = true, .ours = 1, .standard = 1},
    [PARAM_SEQUENCE_IN_ORDER] = {.key = "DataSequenceInOrder",
                                 .kind = KIND_OR,
                                 .normal_only = true,
                                 .ours = 1,
                                 .standard = 1},
    [PARAM_ERROR_RECOVERY] = {.key = "ErrorRecoveryLevel", .kind = KIND_MIN, .lo = 0, .hi = 2},
    [PARAM_IF_MARKER] = {.key = "IFMarker", .kind = KIND_AND},
    [PARAM_OF_MARKER] = {.key = "OFMarker", .kind = KIND_AND},
    [PARAM_TASK_REPORTING] = {.key = "TaskReporting", .kind = KIND_RFC3720, .normal_only = true},
    [PARAM_PROTOCOL_LEVEL] = {.key = "iSCSIProtocolLevel",
                              .kind = KIND_MIN,
                              .lo = 0,
                              .hi = 31,
                              .ours = 1,
                              .standard = 1},
    [PARAM_RDMA_EXTENSIONS] = {.key = "RDMAExtensions", .kind = KIND_AND},
};

void params_init(struct params *p)
{
    memset(p, 0, sizeof(*p));
    for (unsigned i = 0; i < PARAM_COUNT; i++)
        p->value[i] = defs[i].standard;
}

static bool parse_number(const char *s, uint32_t *ret)
{
    char *end;
    unsigned long v;

    if (s[0] < '0' || s[0] > '9')
        return false;
    v = strtoul(s, &end, 0); /* decimal or 0x… */
    if (*end != '\0' || v > UINT32_MAX)
        return false;
    *ret = (uint32_t)v;
    return true;
}

static int negotiate_boolean(const struct param_def *d, const char *value, uint32_t *ret,
                             struct text_out *out)
{
    bool yes = strcmp(value, "Yes") == 0;

    if (!yes && strcmp(value, "No") != 0)
        return err_set(ERR_PROTO, "%s=%s is not Yes or No", d->key, value);
    *ret = d->kind == KIND_AND ? (yes && d->ours) : (yes || d->ours);
    /* The result is certain to the proposer of the value that decides; answering is always
     * allowed. */
    text_add(out, d->key, *ret ? "Yes" : "No");
    return 0;
}

static int negotiate_number(const struct param_def *d, const char *value, uint32_t *ret,
                            struct text_out *out)
{
    uint32_t v;

    if (!parse_number(value, &v) || v < d->lo || v > d->hi)
        return err_set(ERR_PROTO, "%s=%s is not a number from %u to %u", d->key, value, d->lo,
                       d->hi);
    if (d->kind == KIND_DECLARE) {
        *ret = v;
        return 0;
    }
    *ret = d->kind == KIND_MIN ? MIN(v, d->ours) : MAX(v, d->ours);
    text_addf(out, d->key, "%u", *ret);
    return 0;
}

/* The initiator's first choice among those that we know. */
static int negotiate_digest(const struct param_def *d, const char *value, uint32_t *ret,
                            struct text_out *out)
{
    while (value != NULL) {
        const char *comma = strchr(value, ',');
        size_t n = comma != NULL ? (size_t)(comma - value) : strlen(value);
        bool none = n == 4 && memcmp(value, "None", 4) == 0;

        if (none || (n == 6 && memcmp(value, "CRC32C", 6) == 0)) {
            *ret = !none;
            text_add(out, d->key, none ? "None" : "CRC32C");
            return 0;
        }
        value = comma != NULL ? comma + 1 : NULL;
    }
    text_add(out, d->key, "Reject");
    return 0;
}

int params_negotiate(struct params *p, const char *key, const char *value, bool discovery,
                     struct text_out *out)
{
    const struct param_def *d = NULL;
    unsigned i;

    for (i = 0; i < PARAM_COUNT && d == NULL; i++) {
        if (strcmp(defs[i].key, key) == 0)
            d = &defs[i];
    }
    if (d == NULL) {
        text_add(out, key, "NotUnderstood");
        return 0;
    }
    i--;
    if (p->seen & 1u << i)
        return err_set(ERR_PROTO, "key %s is negotiated twice", key);
    p->seen |= 1u << i;
    if (strcmp(value, "NotUnderstood") == 0 || strcmp(value, "Irrelevant") == 0 ||
        strcmp(value, "Reject") == 0)
        return 0; /* an answer, to something that we did not ask: harmless */
    if (discovery && d->normal_only) {
        text_add(out, key, "Irrelevant");
        return 0;
    }
    switch (d->kind) {
    case KIND_AND:
    case KIND_OR:
        return negotiate_boolean(d, value, &p->value[i], out);
    case KIND_MIN:
    case KIND_MAX:
    case KIND_DECLARE:
        return negotiate_number(d, value, &p->value[i], out);
    case KIND_DIGEST:
        return negotiate_digest(d, value, &p->value[i], out);
    case KIND_RFC3720:
        text_add(out, key, text_list_has(value, "RFC3720") ? "RFC3720" : "Reject");
        return 0;
    }
    return err_set(ERR_PROTO, "key %s is of no kind", key);
}

void params_finish(struct params *p)
{
    ASSERT(p->value[PARAM_MAX_BURST] >= 512);
    /* FirstBurstLength must not exceed MaxBurstLength, whoever proposed what. */
    p->value[PARAM_FIRST_BURST] = MIN(p->value[PARAM_FIRST_BURST], p->value[PARAM_MAX_BURST]);
    p->value[PARAM_MAX_R2T] = MIN(p->value[PARAM_MAX_R2T], OUR_MAX_R2T);
    /* Defaults of keys that nobody mentioned may be above what we are prepared for. */
    p->value[PARAM_ERROR_RECOVERY] = 0;
}

/* Everything else belongs to the session. */
static bool param_of_connection(unsigned i)
{
    return i == PARAM_HEADER_DIGEST || i == PARAM_DATA_DIGEST || i == PARAM_MAX_RECV_DATA ||
           i == PARAM_IF_MARKER || i == PARAM_OF_MARKER;
}

bool param_is_leading(const char *key)
{
    for (unsigned i = 0; i < PARAM_COUNT; i++) {
        if (strcmp(defs[i].key, key) == 0)
            return !param_of_connection(i);
    }
    return false;
}

void params_join(struct params *p, const struct params *session)
{
    for (unsigned i = 0; i < PARAM_COUNT; i++) {
        if (!param_of_connection(i))
            p->value[i] = session->value[i];
    }
}
