/* SPDX-License-Identifier: Apache-2.0
 *
 * CHAP (RFC 1994 as RFC 7143 section 12.1.3 uses it), the side that asks. Mutual CHAP (the
 * initiator asks too) has its place in chap_step: it is answered with an error until targets have
 * a secret for it. */
#ifndef ZBS_ACCESS_ISCSI_CHAP_H
#define ZBS_ACCESS_ISCSI_CHAP_H

#include "access/iscsi/param.h"

#define CHAP_CHALLENGE_BYTES 32u
#define CHAP_DIGEST_BYTES    32u /* the longest that we know */

enum chap_state { CHAP_START, CHAP_ASKED, CHAP_DONE };

struct chap {
    enum chap_state state;
    uint8_t algorithm; /* as CHAP_A numbers them */
    uint8_t id;
    uint8_t challenge[CHAP_CHALLENGE_BYTES];
};

/* CHAP keys of one login request; NULL where absent. */
struct chap_keys {
    const char *a, *i, *c, *n, *r;
};

/* One step: 0 with answers added, state CHAP_DONE once the initiator proved to know the secret;
 * ERR_PERM: it did not; ERR_PROTO: keys are missing or malformed. */
int chap_step(struct chap *ch, const struct chap_keys *keys, const char *user, const char *secret,
              struct text_out *out) MUST_CHECK;

/* The response to a challenge; length in bytes, 0 for an unknown algorithm. For tests, and for
 * mutual CHAP. */
size_t chap_response(uint8_t algorithm, uint8_t id, const char *secret, const uint8_t *challenge,
                     size_t challenge_len, uint8_t dst[CHAP_DIGEST_BYTES]);

/* "0x…" or "0b…" into at most cap bytes: their number, or -1. */
int chap_decode(const char *text, uint8_t *dst, size_t cap);

#endif
