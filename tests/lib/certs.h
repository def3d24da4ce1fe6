/* SPDX-License-Identifier: Apache-2.0
 *
 * Certificates made for a test, as files of the running process's environment. */
#ifndef ZBS_TESTS_CERTS_H
#define ZBS_TESTS_CERTS_H

#include <openssl/x509.h>
#include "common/base/attr.h"

struct cert { /* with its key */
    X509 *x509;
    EVP_PKEY *key;
};

/* Made out to `name`, valid from an hour before env_wall_ns until `hours` after it. by: who signs
 * it; NULL: an authority, which signs itself. */
void cert_make(struct cert *c, const char *name, const struct cert *by, int hours);
void cert_free(struct cert *c);
/* PEM files. */
co_fn void cert_write(const char *path, const struct cert *c);
co_fn void cert_write_key(const char *path, const struct cert *c);

#endif
