/* SPDX-License-Identifier: Apache-2.0
 *
 * Text keys of login and full feature phase (RFC 7143, sections 6 and 13): splitting text into
 * key=value pairs, and the negotiated keys as a table. */
#ifndef ZBS_ACCESS_ISCSI_PARAM_H
#define ZBS_ACCESS_ISCSI_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include "common/base/attr.h"
#include "common/base/err.h"

/* Negotiated values, by connection; those of the session are the same on all of them. */
enum param {
    PARAM_HEADER_DIGEST, /* 0 None, 1 CRC32C */
    PARAM_DATA_DIGEST,
    PARAM_MAX_CONNECTIONS,
    PARAM_INITIAL_R2T,
    PARAM_IMMEDIATE_DATA,
    PARAM_MAX_RECV_DATA, /* the initiator's declaration: bounds what we send */
    PARAM_MAX_BURST,
    PARAM_FIRST_BURST,
    PARAM_TIME2WAIT,
    PARAM_TIME2RETAIN,
    PARAM_MAX_R2T,
    PARAM_PDU_IN_ORDER,
    PARAM_SEQUENCE_IN_ORDER,
    PARAM_ERROR_RECOVERY,
    PARAM_IF_MARKER,
    PARAM_OF_MARKER,
    PARAM_TASK_REPORTING, /* 0: RFC3720 */
    PARAM_PROTOCOL_LEVEL,
    PARAM_RDMA_EXTENSIONS,
    PARAM_COUNT
};

#define OUR_MAX_RECV_DATA   (256u * 1024)
#define OUR_MAX_R2T         4u
#define OUR_MAX_CONNECTIONS 8u

struct params {
    uint32_t value[PARAM_COUNT];
    uint32_t seen; /* keys already negotiated, by bit */
};

/* Growing answer text: pairs ended by NUL. Overflow is remembered, not written. */
struct text_out {
    char *data;
    size_t cap, len;
    bool overflow;
};
void text_add(struct text_out *out, const char *key, const char *value);
void text_addf(struct text_out *out, const char *key, const char *fmt, ...) PRINTF_FMT(3, 4);

/* Steps through `text` of len bytes, which is changed: key and value become strings. 1: a pair;
 * 0: the end; ERR_PROTO: not of the form key=value NUL …. */
struct text_in {
    char *pos, *end;
};
int text_next(struct text_in *in, char **ret_key, char **ret_value) MUST_CHECK;

/* Is `word` one of a comma-separated list? */
bool text_list_has(const char *list, const char *word);

void params_init(struct params *p);

/* One key of an operational negotiation: sets the value, adds the answer if one is due. An
 * unknown key is answered NotUnderstood. discovery: keys that only normal sessions have are
 * Irrelevant. ERR_PROTO: value out of form or key repeated; the login must fail. */
int params_negotiate(struct params *p, const char *key, const char *value, bool discovery,
                     struct text_out *out) MUST_CHECK;

/* Is the key negotiated once for a session, by its leading login? */
bool param_is_leading(const char *key);
/* Takes over the session's values of those keys. */
void params_join(struct params *p, const struct params *session);

/* After the last key: values that depend on others. */
void params_finish(struct params *p);

#endif
