/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of code addresses, for backtraces in logs. */
#ifndef ZBS_BASE_SYMBOL_H
#define ZBS_BASE_SYMBOL_H

#include <stdbool.h>
#include <stddef.h>

/* Writes "function+0x1a", also of static functions as long as the program is not stripped, else
 * "zbs-chunkd+0x12345" for addr2line. Reads the program's file: slow, not for signal handlers. */
void symbol_format(const void *addr, char *dst, size_t dst_bytes);

/* Is it an address in the program's own code, and not a library's? Callable in signal handlers. */
bool symbol_in_program(const void *addr);

#endif
