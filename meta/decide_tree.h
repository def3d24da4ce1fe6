/* SPDX-License-Identifier: Apache-2.0
 *
 * Decisions and answers about shares and what is in them. What decide.h says holds here. Who asks
 * is in the request: what is not permitted is ERR_ACCESS, or ERR_PERM if only the owner may. An
 * inode or a directory that is none any more is ERR_STALE. */
#ifndef ZBS_META_DECIDE_TREE_H
#define ZBS_META_DECIDE_TREE_H

#include "common/cluster/permission.h"
#include "meta/decide.h"

int decide_share_create(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_share_set(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_share_delete(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_share_list(const struct decide *d, ProtobufCMessage *reply);

int decide_inode_create(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_inode_create(const struct decide *d, ProtobufCMessage *reply);
int decide_inode_set(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_inode_get(const struct decide *d, ProtobufCMessage *reply);
int answer_lookup(const struct decide *d, ProtobufCMessage *reply);
int answer_dir_list(const struct decide *d, ProtobufCMessage *reply);
int answer_path_get(const struct decide *d, ProtobufCMessage *reply);

/* ---- decide_entry.c ---- */
int decide_inode_remove(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_inode_rename(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_inode_rename(const struct decide *d, ProtobufCMessage *reply);
int decide_inode_link(const struct decide *d, Zbs__Metalog__Record **ret);

/* ---- decide_file.c ---- */
int decide_file_write(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_file_volume(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_file_attach(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_file_grow(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_file_written(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_file_zeroed(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_file_zero(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_file(const struct decide *d, ProtobufCMessage *reply);
/* ERR_BUSY: what is behind the file's end has to be zeroed before it can have this size. */
int check_file_tail(const struct inode *i, uint64_t size);

/* ---- decide_file_lease.c ---- */
int decide_file_lease(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_file_lease(const struct decide *d, ProtobufCMessage *reply);
int decide_file_return(const struct decide *d, Zbs__Metalog__Record **ret);
/* How many write leases of sessions that live there are. */
uint32_t file_leases(const struct state *st, const struct inode *i);
/* ERR_BUSY: there are some, so nothing that was written may be taken away. */
int check_file_leases(const struct state *st, const struct inode *i);

/* ---- decide_lock.c ---- */
int decide_lock_set(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_lock_clear(const struct decide *d, Zbs__Metalog__Record **ret);
int decide_lock_forget(const struct decide *d, Zbs__Metalog__Record **ret);
int answer_lock_test(const struct decide *d, ProtobufCMessage *reply);
int answer_lock_list(const struct decide *d, ProtobufCMessage *reply);

/* ---- helpers of decide_*.c ---- */
int decide_file(const struct decide *d, uint64_t id, struct inode **ret);
int decide_inode(const struct decide *d, uint64_t id, struct inode **ret);
/* A directory, and who may do this with it (PERMISSION_ bits). */
int decide_dir(const struct decide *d, uint64_t id, const Zbs__Meta__Credentials *who,
               uint32_t want, struct inode **ret);
int decide_entry(const struct decide *d, const struct inode *dir, const char *name,
                 struct dir_entry **ret);
int check_entry_name(const char *name);
struct permission_of permission_of(const struct inode *i);
/* NULL if there are no credentials. */
const struct permission_who *permission_who(const Zbs__Meta__Credentials *c,
                                            struct permission_who *buf);

#endif
