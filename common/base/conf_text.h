/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of the settings: values that are kept as text. */
#ifndef ZBS_BASE_CONF_TEXT_H
#define ZBS_BASE_CONF_TEXT_H

#include "common/base/conf.h"

/* Checks a value of a text type and puts a tidied copy into *field, which it frees before.
 * ERR_INVAL with a text; then *field is unchanged. */
int conf_text_set(const struct conf_key *k, const char *text, char **field) MUST_CHECK;

#endif
