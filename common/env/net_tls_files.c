/* SPDX-License-Identifier: Apache-2.0
 *
 * What TLS is done with: certificate, key and authorities out of files. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/env/net_tls_int.h"

#define CHAIN_BYTES 65536 /* of the peer's certificates */
#define CHAIN_DEPTH 8

/* ---- PEM ---- */

struct pem {
    char *text;
    size_t len;
    BIO *bio; /* over text */
};

static co_fn int pem_open(const char *path, struct pem *p)
{
    int rc = env_file_read(path, &p->text, &p->len);

    if (rc < 0)
        return rc;
    p->bio = BIO_new_mem_buf(p->text, (int)p->len);
    ASSERT(p->bio != NULL);
    ERR_clear_error();
    return 0;
}

/* Keys do not stay behind in memory. */
static void pem_close(struct pem *p)
{
    BIO_free(p->bio);
    OPENSSL_cleanse(p->text, p->len);
    mem_free(p->text);
}

/* The next certificate; NULL: there is none, or none that can be read. */
static X509 *pem_cert(struct pem *p)
{
    return PEM_read_bio_X509(p->bio, NULL, NULL, NULL);
}

/* Was the last pem_cert's failure the file's end? */
static bool pem_ended(void)
{
    return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

/* Nobody is there to be asked. */
static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* ---- our certificate ---- */

static void warn_if_expired(const char *path, X509 *cert)
{
    time_t now = env_wall_ns() / NSEC_PER_SEC;

    if (X509_cmp_time(X509_get0_notAfter(cert), &now) < 0)
        log_warn("tls.expired", "certificate=%s", path);
}

static int chain_add(SSL_CTX *ctx, const char *path, struct pem *p)
{
    X509 *cert;

    while ((cert = pem_cert(p)) != NULL) {
        if (SSL_CTX_add0_chain_cert(ctx, cert) != 1) {
            X509_free(cert);
            return err_set(ERR_INVAL, "%s: %s", path, net_tls_reason());
        }
    }
    return pem_ended() ? 0 : err_set(ERR_INVAL, "%s: %s", path, net_tls_reason());
}

static int cert_use(SSL_CTX *ctx, const char *path, struct pem *p)
{
    X509 *cert = pem_cert(p);
    int rc;

    if (cert == NULL)
        return err_set(ERR_INVAL, "%s holds no certificate in PEM form", path);
    warn_if_expired(path, cert);
    rc = SSL_CTX_use_certificate(ctx, cert) == 1
             ? chain_add(ctx, path, p)
             : err_set(ERR_INVAL, "%s: %s", path, net_tls_reason());
    X509_free(cert);
    return rc;
}

static int key_use(SSL_CTX *ctx, const char *path, struct pem *p)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(p->bio, NULL, no_password, NULL);
    int rc = 0;

    if (key == NULL)
        return err_set(ERR_INVAL, "%s holds no private key in PEM form without a password", path);
    if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
        rc = err_set(ERR_INVAL, "the key in %s does not go with the certificate: %s", path,
                     net_tls_reason());
    EVP_PKEY_free(key);
    return rc;
}

/* ---- authorities ---- */

static int authorities_use(SSL_CTX *ctx, const char *path, struct pem *p)
{
    bool any = false, good = true;
    X509 *cert;

    while (good && (cert = pem_cert(p)) != NULL) {
        good = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1 &&
               SSL_CTX_add_client_CA(ctx, cert) == 1;
        any = true;
        X509_free(cert);
    }
    if (!any)
        return err_set(ERR_INVAL, "%s holds no certificate in PEM form", path);
    if (!good || !pem_ended())
        return err_set(ERR_INVAL, "%s: %s", path, net_tls_reason());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

/* ---- all of it ---- */

static SSL_CTX *ctx_new(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    int rc;

    ASSERT(ctx != NULL);
    rc = SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    ASSERT(rc == 1);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_max_early_data(ctx, 0);
    SSL_CTX_set_max_cert_list(ctx, CHAIN_BYTES);
    SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    return ctx;
}

static co_fn int file_use(SSL_CTX *ctx, const char *path,
                          int (*use)(SSL_CTX *ctx, const char *path, struct pem *p))
{
    struct pem p;
    int rc;

    if (path == NULL || path[0] == '\0')
        return 0;
    rc = pem_open(path, &p);
    if (rc < 0)
        return rc;
    rc = use(ctx, path, &p);
    ERR_clear_error();
    pem_close(&p);
    return rc;
}

co_fn int net_tls_new(const struct net_tls_files *files, struct net_tls **ret)
{
    struct net_tls *tls = MEM_NEW(struct net_tls);
    int rc;

    tls->ctx = ctx_new();
    rc = file_use(tls->ctx, files->cert, cert_use);
    if (rc == 0)
        rc = file_use(tls->ctx, files->key, key_use);
    if (rc == 0)
        rc = file_use(tls->ctx, files->ca, authorities_use);
    if (rc < 0)
        net_tls_free(tls);
    else
        *ret = tls;
    return rc;
}

void net_tls_free(struct net_tls *tls)
{
    if (tls == NULL)
        return;
    SSL_CTX_free(tls->ctx);
    mem_free(tls);
}
