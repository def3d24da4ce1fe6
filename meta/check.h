/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks of what comes from outside; each gives 0 or ERR_INVAL with a text. Names: name_check of
 * common/base/name.h. */
#ifndef ZBS_META_CHECK_H
#define ZBS_META_CHECK_H

#include "proto/meta.pb-c.h"
#include "common/base/attr.h"

/* A name that may be empty. */
int check_name_or_none(const char *what, const char *name) MUST_CHECK;
int check_addr(const char *what, const char *addr) MUST_CHECK;
int check_addr_or_none(const char *what, const char *addr) MUST_CHECK;
int check_uuid(const char *what, const ProtobufCBinaryData *uuid) MUST_CHECK;
/* iqn.YYYY-MM.reversed.domain[:string], eui.16 hex digits, naa.16 or 32 hex digits. */
int check_iqn(const char *what, const char *iqn) MUST_CHECK;
int check_chap(const char *user, const char *secret) MUST_CHECK;
/* '@' parts the name of a snapshot from its volume's. */
int check_no_snapshot_name(const char *name) MUST_CHECK;
/* Nor a name that is kept for the volume of a file. */
int check_volume_name(const char *name) MUST_CHECK;
int check_volume_size(uint64_t size_bytes) MUST_CHECK;

#endif
