/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/fuzz.h"

#include <stdio.h>
#include <string.h>
#include "common/base/log.h"

bool fuzz_begin(struct fuzz_input *in, const uint8_t *data, size_t size, unsigned modes)
{
    *in = (struct fuzz_input){.data = data, .size = size};
    log_threshold = LOG_LV_ERROR + 1;
    if (size == 0)
        return false;
    in->mode = fuzz_u8(in) % modes;
    return true;
}

size_t fuzz_take(struct fuzz_input *in, void *dst, size_t len)
{
    size_t n = MIN(len, in->size);

    if (n == 0)
        return 0;
    memcpy(dst, in->data, n);
    in->data += n;
    in->size -= n;
    return n;
}

uint8_t fuzz_u8(struct fuzz_input *in)
{
    uint8_t b = 0;

    fuzz_take(in, &b, 1);
    return b;
}

uint32_t fuzz_uint(struct fuzz_input *in, size_t bytes)
{
    uint32_t v = 0;

    for (size_t i = 0; i < bytes; i++)
        v = v << 8 | fuzz_u8(in);
    return v;
}

co_fn bool fuzz_send(struct net_conn *net, const void *data, size_t len)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};

    return len == 0 || net_writev_full(net, &iov, 1) == 0;
}

#ifndef ZBS_FUZZER
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        static uint8_t data[1 << 20];
        FILE *file = fopen(argv[i], "rb");
        size_t size;

        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        size = fread(data, 1, sizeof(data), file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    return 0;
}
#endif
