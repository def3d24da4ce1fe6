/* SPDX-License-Identifier: Apache-2.0
 *
 * Devices that answer late, in builds with test hooks: every read, write and flush waits for
 * ZBS_DISK_DELAY_US microseconds before it goes to the kernel. So a fast device shows what a slow
 * one would: whether anything but the device limits those who wait for it. */
#include "common/env/real/disk_real.h"

#ifdef ZBS_MUTATE
#include <stdlib.h>
#include "common/base/mem.h"

struct held {
    struct co_timer timer;
    struct disk_req *r;
};

nsec_t real_disk_delay(void)
{
    const char *text = getenv("ZBS_DISK_DELAY_US");

    return text != NULL ? strtoll(text, NULL, 10) * NSEC_PER_USEC : 0;
}

static void held_over(struct co_timer *t)
{
    struct held *h = CONTAINER_OF(t, struct held, timer);
    struct disk_req *r = h->r;

    mem_free(h);
    real_disk_queue(r);
}

void real_disk_hold(struct disk_req *r, nsec_t until)
{
    struct held *h = MEM_NEW(struct held);

    h->r = r;
    co_timer_init(&h->timer, held_over);
    co_timer_arm(&h->timer, until);
}
#endif
