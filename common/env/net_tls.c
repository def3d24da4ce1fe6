/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS under a stream: OpenSSL between two buffers in memory, which are filled from and emptied into
 * the stream below. The reading and the writing coroutine use one SSL object: no call of it
 * suspends, so they never meet inside. What the reading side makes OpenSSL say (an answer to a key
 * update) leaves with the next write. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/env/env_ops.h"
#include "common/env/net_tls_int.h"

#define RECORD_BYTES 16384u /* of data in a record, at most */
#define RX_BYTES     32768u
#define TX_BYTES     65536u
#define TX_LEAVES    (TX_BYTES - RECORD_BYTES - 512) /* so much is sent before more is added */
#define IDLE_MAX     (4 * RX_BYTES) /* of records that bring no data: nobody needs so many */
#define TURN_BYTES   (1024u * 1024) /* before others get a turn */
#define SUBJECT_MAX  256u

struct tls_stream {
    SSL *ssl;
    BIO *in, *out; /* its own: bytes that came, and that are to leave */
    uint8_t *rx, *tx;
    uint32_t turn; /* bytes since others had theirs */
    char peer[SUBJECT_MAX];
};

/* ---- below: the stream as it is ---- */

static co_fn int take_turn(struct tls_stream *t, size_t bytes)
{
    t->turn += (uint32_t)bytes;
    if (t->turn < TURN_BYTES)
        return 0;
    t->turn = 0;
    return co_yield ();
}

/* Waits for bytes. *fed: how many came in vain so far, `most` at most. */
static co_fn int feed(struct net_conn *c, uint32_t *fed, uint32_t most)
{
    struct tls_stream *t = c->tls;
    struct iovec iov = {t->rx, RX_BYTES};
    ssize_t got;
    int taken;

    if (*fed >= most)
        return err_set(ERR_PROTO, "%u bytes of TLS without data", *fed);
    if (BIO_pending(t->out) > (int)TX_BYTES) /* alerts: the writer leaves less before it waits */
        return err_set(ERR_PROTO, "TLS has to be answered without end");
    if (c->shut)
        return err_set(ERR_CLOSED, "connection to %s was shut down", c->peer);
    got = c->env->ops->net_readv(c, &iov, 1);
    if (got < 0)
        return (int)got;
    taken = BIO_write(t->in, t->rx, (int)got);
    ASSERT(taken == got);
    *fed += (uint32_t)got;
    return take_turn(t, (size_t)got);
}

/* Sends what waits in `out`. */
static co_fn int drain(struct net_conn *c)
{
    struct tls_stream *t = c->tls;
    int rc = 0, len;

    while (rc == 0 && (len = BIO_read(t->out, t->tx, (int)TX_BYTES)) > 0) {
        for (int done = 0; done < len;) {
            struct iovec iov = {t->tx + done, (size_t)(len - done)};
            ssize_t sent;

            if (c->shut)
                return err_set(ERR_CLOSED, "connection to %s was shut down", c->peer);
            sent = c->env->ops->net_writev(c, &iov, 1);
            if (sent < 0)
                return (int)sent;
            done += (int)sent;
        }
        rc = take_turn(t, (size_t)len);
    }
    return rc;
}

/* ---- errors ---- */

const char *net_tls_reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return text != NULL ? text : "no reason was given";
}

static int failure(struct tls_stream *t)
{
    unsigned long error = ERR_peek_last_error();
    int reason = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
    const char *text = net_tls_reason();

    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return err_set(ERR_REFUSED, "the peer's certificate: %s",
                       X509_verify_cert_error_string(SSL_get_verify_result(t->ssl)));
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return err_set(ERR_REFUSED, "the peer shows no certificate");
    if (reason > SSL_AD_REASON_OFFSET)
        return err_set(ERR_REFUSED, "the peer says: %s",
                       SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET));
    return err_set(ERR_PROTO, "TLS: %s", text);
}

/* ---- reading and writing ---- */

/* As much as there is without waiting: bytes, 0, or an error that came first. */
static ssize_t decrypt(struct tls_stream *t, const struct iovec *iov, int n)
{
    size_t total = 0;

    ERR_clear_error();
    for (int i = 0; i < n; i++) {
        for (size_t at = 0, got; at < iov[i].iov_len; at += got, total += got) {
            int why;

            if (SSL_read_ex(t->ssl, (uint8_t *)iov[i].iov_base + at, iov[i].iov_len - at, &got))
                continue;
            why = SSL_get_error(t->ssl, 0);
            if (total > 0 || why == SSL_ERROR_WANT_READ)
                return (ssize_t)total;
            return why == SSL_ERROR_ZERO_RETURN ? err_set(ERR_CLOSED, "end of stream") : failure(t);
        }
    }
    return (ssize_t)total;
}

co_fn ssize_t net_tls_readv(struct net_conn *c, const struct iovec *iov, int n)
{
    uint32_t fed = 0;
    ssize_t got;

    while ((got = decrypt(c->tls, iov, n)) == 0) {
        int rc = feed(c, &fed, IDLE_MAX);

        if (rc < 0)
            return rc;
    }
    return got;
}

/* The data of the next record, taken from the front of the vector: in place if one entry has
 * enough, else put together in tx, which is free. */
static const void *gather(struct tls_stream *t, struct iovec **iov, int *n, size_t *ret_len)
{
    const void *data = t->tx;
    size_t len = 0;

    while (*n > 0 && len < RECORD_BYTES) {
        size_t take = MIN((*iov)->iov_len, RECORD_BYTES - len);

        if (take == RECORD_BYTES)
            data = (*iov)->iov_base;
        else if (take > 0)
            memcpy(t->tx + len, (*iov)->iov_base, take);
        len += take;
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + take;
        (*iov)->iov_len -= take;
        if ((*iov)->iov_len == 0) {
            ++*iov;
            --*n;
        }
    }
    *ret_len = len;
    return data;
}

co_fn int net_tls_writev_full(struct net_conn *c, struct iovec *iov, int n)
{
    struct tls_stream *t = c->tls;
    int rc = 0;

    while (rc == 0 && n > 0) {
        size_t len, done;
        const void *data = gather(t, &iov, &n, &len);

        ERR_clear_error();
        if (len > 0 && !SSL_write_ex(t->ssl, data, len, &done))
            return failure(t);
        if (n == 0 || BIO_pending(t->out) >= (int)TX_LEAVES)
            rc = drain(c);
    }
    return rc;
}

bool net_tls_readable(struct net_conn *c)
{
    return SSL_has_pending(c->tls->ssl) || BIO_pending(c->tls->in) > 0;
}

/* ---- beginning and end ---- */

void net_tls_close(struct net_conn *c)
{
    if (c->tls == NULL)
        return;
    SSL_free(c->tls->ssl); /* and its BIOs */
    mem_free(c->tls->rx);
    mem_free(c->tls->tx);
    mem_free(c->tls);
    c->tls = NULL;
}

static struct tls_stream *stream_new(const struct net_tls *tls)
{
    struct tls_stream *t = MEM_NEW(struct tls_stream);

    t->ssl = SSL_new(tls->ctx);
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    ASSERT(t->ssl != NULL && t->in != NULL && t->out != NULL);
    SSL_set_bio(t->ssl, t->in, t->out);
    X509_VERIFY_PARAM_set_time(SSL_get0_param(t->ssl), env_wall_ns() / NSEC_PER_SEC);
    t->rx = mem_alloc(RX_BYTES);
    t->tx = mem_alloc(TX_BYTES);
    return t;
}

/* One step of the handshake. 1: done; 0: it needs bytes of the peer; or an error. In the pool,
 * since it may take milliseconds; OpenSSL keeps errors per thread. */
static co_fn int step(struct tls_stream *t)
{
    struct co_loop *home = co_enter(env_pool());
    int rc, why;

    ERR_clear_error();
    rc = SSL_do_handshake(t->ssl);
    why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(t->ssl, rc);
    if (why == SSL_ERROR_WANT_READ)
        rc = 0;
    else if (why != SSL_ERROR_NONE)
        rc = failure(t);
    co_enter(home);
    return rc;
}

static void peer_note(struct tls_stream *t)
{
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    BIO *text = BIO_new(BIO_s_mem());

    ASSERT(text != NULL);
    if (cert != NULL &&
        X509_NAME_print_ex(text, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0)
        (void)!BIO_gets(text, t->peer, (int)sizeof(t->peer));
    BIO_free(text);
}

/* The peer is told why, if it listens. */
static co_fn int give_up(struct net_conn *c, int rc)
{
    char why[256];

    snprintf(why, sizeof(why), "%s", err_text(rc));
    (void)!drain(c);
    return err_set(rc, "%s", why);
}

static co_fn int handshake(struct net_conn *c)
{
    uint32_t fed = 0;
    int rc;

    while ((rc = step(c->tls)) == 0) {
        rc = drain(c);
        if (rc == 0)
            rc = feed(c, &fed, NET_TLS_HANDSHAKE_BYTES);
        if (rc < 0)
            return err_prefix(rc, "during the handshake");
    }
    return rc < 0 ? give_up(c, rc) : drain(c);
}

/* Nobody may be in the middle of using a stream whose ways change. */
static co_fn int begin(struct net_conn *c, const struct net_tls *tls, const char *name, bool accept)
{
    int rc = 0;

    ASSERTF(c->loop == co_loop(), "connection used on another loop");
    ASSERT(!c->reading && !c->writing && !c->shared && c->tls == NULL);
    c->tls = stream_new(tls);
    if (accept)
        SSL_set_accept_state(c->tls->ssl);
    else
        SSL_set_connect_state(c->tls->ssl);
    if (name != NULL && SSL_set1_host(c->tls->ssl, name) != 1)
        return err_set(ERR_INVAL, "\"%s\" is not the name of a host", name);
    c->reading = c->writing = true;
    rc = handshake(c);
    c->reading = c->writing = false;
    if (rc >= 0)
        peer_note(c->tls);
    return rc;
}

co_fn int net_tls_accept(struct net_conn *c, const struct net_tls *tls)
{
    return begin(c, tls, NULL, true);
}

co_fn int net_tls_connect(struct net_conn *c, const struct net_tls *tls, const char *name)
{
    return begin(c, tls, name, false);
}

const char *net_tls_version(const struct net_conn *c)
{
    return SSL_get_version(c->tls->ssl);
}

const char *net_tls_peer(const struct net_conn *c)
{
    return c->tls->peer;
}
