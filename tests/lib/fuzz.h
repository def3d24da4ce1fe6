/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fuzzers share: their input, taken piece by piece, and a main() for builds without
 * libFuzzer that runs the files it is given. */
#ifndef ZBS_TESTS_LIB_FUZZ_H
#define ZBS_TESTS_LIB_FUZZ_H

#include "common/env/env.h"

struct fuzz_input {
    const uint8_t *data; /* what is left */
    size_t size;
    unsigned mode; /* which of a fuzzer's ways the first byte chose */
};

/* What each fuzzer defines. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Begins a run quietly and takes its mode, below `modes`; false: the input is empty. */
bool fuzz_begin(struct fuzz_input *in, const uint8_t *data, size_t size, unsigned modes);
/* Takes up to len bytes; how many there were. */
size_t fuzz_take(struct fuzz_input *in, void *dst, size_t len);
/* A byte, a big-endian number of up to four; zeros once the input is used up. */
uint8_t fuzz_u8(struct fuzz_input *in);
uint32_t fuzz_uint(struct fuzz_input *in, size_t bytes);

/* Sends bytes to the peer; whether it took them. */
co_fn bool fuzz_send(struct net_conn *net, const void *data, size_t len);

#endif
