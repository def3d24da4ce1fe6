/* SPDX-License-Identifier: Apache-2.0
 *
 * CHAP: see chap.h. */
#include "access/iscsi/chap.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env/env.h"

/* In order of preference; numbers as IANA assigns them. */
static const struct {
    uint8_t number;
    const char *text, *name;
} algorithms[] = {{7, "7", "SHA256"}, {6, "6", "SHA1"}, {5, "5", "MD5"}};

size_t chap_response(uint8_t algorithm, uint8_t id, const char *secret, const uint8_t *challenge,
                     size_t challenge_len, uint8_t dst[CHAP_DIGEST_BYTES])
{
    const EVP_MD *md = NULL;
    EVP_MD_CTX *ctx;
    unsigned len = 0;

    for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++) {
        if (algorithms[i].number == algorithm)
            md = EVP_get_digestbyname(algorithms[i].name);
    }
    if (md == NULL)
        return 0;
    ctx = EVP_MD_CTX_new();
    if (ctx == NULL || !EVP_DigestInit_ex(ctx, md, NULL) || !EVP_DigestUpdate(ctx, &id, 1) ||
        !EVP_DigestUpdate(ctx, secret, strlen(secret)) ||
        !EVP_DigestUpdate(ctx, challenge, challenge_len) || !EVP_DigestFinal_ex(ctx, dst, &len))
        len = 0;
    EVP_MD_CTX_free(ctx);
    return len;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c != '\0' ? strchr(digits, c) : NULL;

    return p != NULL ? (int)(p - digits) : -1;
}

int chap_decode(const char *text, uint8_t *dst, size_t cap)
{
    bool base64 = text[0] == '0' && (text[1] == 'b' || text[1] == 'B');
    unsigned per = base64 ? 6 : 4, bits = 0;
    uint32_t acc = 0;
    size_t len = 0;

    if (!base64 && !(text[0] == '0' && (text[1] == 'x' || text[1] == 'X')))
        return -1;
    text += 2;
    if (!base64 && strlen(text) % 2 != 0) { /* an odd number of digits: the first is alone */
        bits = 4;
    }
    for (; *text != '\0' && !(base64 && *text == '='); text++) {
        int d = base64 ? base64_digit(*text) : hex_digit(*text);

        if (d < 0)
            return -1;
        acc = (acc << per | (uint32_t)d) & 0xffff;
        bits += per;
        if (bits >= 8) {
            bits -= 8;
            if (len == cap)
                return -1;
            dst[len++] = (uint8_t)(acc >> bits);
        }
    }
    return (int)len;
}

static int chap_ask(struct chap *ch, const char *offered, struct text_out *out)
{
    char hex[2 + 2 * CHAP_CHALLENGE_BYTES + 1] = "0x";

    for (size_t i = 0; i < ARRAY_SIZE(algorithms) && ch->algorithm == 0; i++) {
        if (text_list_has(offered, algorithms[i].text))
            ch->algorithm = algorithms[i].number;
    }
    if (ch->algorithm == 0)
        return err_set(ERR_PERM, "no CHAP algorithm in common (offered %.40s)", offered);
    env_random_bytes(&ch->id, 1);
    env_random_bytes(ch->challenge, sizeof(ch->challenge));
    for (size_t i = 0; i < sizeof(ch->challenge); i++)
        snprintf(hex + 2 + 2 * i, 3, "%02x", ch->challenge[i]);
    text_addf(out, "CHAP_A", "%u", ch->algorithm);
    text_addf(out, "CHAP_I", "%u", ch->id);
    text_add(out, "CHAP_C", hex);
    ch->state = CHAP_ASKED;
    return 0;
}

static int chap_check(struct chap *ch, const struct chap_keys *keys, const char *user,
                      const char *secret)
{
    uint8_t want[CHAP_DIGEST_BYTES], got[CHAP_DIGEST_BYTES];
    size_t len =
        chap_response(ch->algorithm, ch->id, secret, ch->challenge, sizeof(ch->challenge), want);
    int n = chap_decode(keys->r, got, sizeof(got));

    if (len == 0 || n != (int)len || CRYPTO_memcmp(want, got, len) != 0 ||
        strcmp(keys->n, user) != 0)
        return err_set(ERR_PERM, "CHAP name or secret is wrong");
    return 0;
}

int chap_step(struct chap *ch, const struct chap_keys *keys, const char *user, const char *secret,
              struct text_out *out)
{
    int rc;

    if (ch->state == CHAP_START) {
        if (keys->a == NULL)
            return 0; /* AuthMethod was agreed on in this request; CHAP_A comes with the next */
        return chap_ask(ch, keys->a, out);
    }
    if (ch->state != CHAP_ASKED || keys->n == NULL || keys->r == NULL)
        return err_set(ERR_PROTO, "CHAP_N and CHAP_R expected");
    if (keys->i != NULL || keys->c != NULL)
        return err_set(ERR_PERM, "mutual CHAP is not configured for this target");
    rc = chap_check(ch, keys, user, secret);
    if (rc == 0)
        ch->state = CHAP_DONE;
    return rc;
}
