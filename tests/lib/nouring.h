/* SPDX-License-Identifier: Apache-2.0
 *
 * A kernel that allows no io_uring, as containers often have it. */
#ifndef ZBS_TESTS_NOURING_H
#define ZBS_TESTS_NOURING_H

/* From now on, for this thread and those that it starts. */
void nouring(void);

#endif
