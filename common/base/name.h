/* SPDX-License-Identifier: Apache-2.0
 *
 * Names from outside (pools, volumes, hosts): what may be stored, logged and put into a path. */
#ifndef ZBS_BASE_NAME_H
#define ZBS_BASE_NAME_H

#include <stdbool.h>
#include "common/base/attr.h"

/* Valid UTF-8 (shortest forms, no surrogates)? */
bool utf8_valid(const void *text, size_t len);

/* 1..max bytes of valid UTF-8 without control characters (C0, DEL, C1) and '/', and not "." or
 * "..". The text need not be terminated. */
bool name_valid(const void *name, size_t len, size_t max);

/* As name_valid for a C string: 0, or ERR_INVAL with a text that says what is wrong with `what`
 * ("volume name"). */
int name_check(const char *what, const char *name, size_t max) MUST_CHECK;

#endif
