/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated process for a front end and its clients, shared by nbdworld and iscsiworld. */
#ifndef ZBS_TESTS_LIB_FRONTWORLD_H
#define ZBS_TESTS_LIB_FRONTWORLD_H

#include <stdint.h>

#define FRONT_HOST "127.1.0.1"

/* Runs body(arg) as a process on FRONT_HOST; asserts that it ends within an hour of virtual time
 * and returns 0. Seed 0: 1. Outside of any environment. */
void frontworld_run(uint64_t seed, int (*body)(void *arg), void *arg);

#endif
