/* SPDX-License-Identifier: Apache-2.0
 *
 * See certs.h. */
#include "tests/lib/certs.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include "common/base/assert.h"
#include "common/env/env.h"

static void extension_add(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    ASSERT(e != NULL && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

void cert_make(struct cert *c, const char *name, const struct cert *by, int hours)
{
    time_t now = env_wall_ns() / NSEC_PER_SEC;
    X509_NAME *subject;
    static long serial;

    c->key = EVP_EC_gen("P-256");
    c->x509 = X509_new();
    ASSERT(c->key != NULL && c->x509 != NULL);
    subject = X509_get_subject_name(c->x509);
    X509_set_version(c->x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c->x509), ++serial);
    ASN1_TIME_set(X509_getm_notBefore(c->x509), now - 3600);
    ASN1_TIME_set(X509_getm_notAfter(c->x509), now + hours * 3600);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
    X509_set_issuer_name(c->x509, by != NULL ? X509_get_subject_name(by->x509) : subject);
    X509_set_pubkey(c->x509, c->key);
    extension_add(c->x509, NID_basic_constraints, by != NULL ? "CA:FALSE" : "critical,CA:TRUE");
    ASSERT(X509_sign(c->x509, by != NULL ? by->key : c->key, EVP_sha256()) > 0);
}

void cert_free(struct cert *c)
{
    X509_free(c->x509);
    EVP_PKEY_free(c->key);
}

static co_fn void bio_write(const char *path, BIO *bio)
{
    char *text;
    long len = BIO_get_mem_data(bio, &text);
    int rc = env_file_write(path, text, (size_t)len);

    ASSERT(rc == 0);
    BIO_free(bio);
}

co_fn void cert_write(const char *path, const struct cert *c)
{
    BIO *bio = BIO_new(BIO_s_mem());

    ASSERT(PEM_write_bio_X509(bio, c->x509) == 1);
    bio_write(path, bio);
}

co_fn void cert_write_key(const char *path, const struct cert *c)
{
    BIO *bio = BIO_new(BIO_s_mem());

    ASSERT(PEM_write_bio_PrivateKey(bio, c->key, NULL, NULL, 0, NULL, NULL) == 1);
    bio_write(path, bio);
}
