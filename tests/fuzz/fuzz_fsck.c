/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes zbs-fsck with damaged devices (device.h): it checks, repairs and checks again, must not
 * crash, hang, leak or write while it only checks (the simulator guards that), and what a repair
 * says it left is all that the next check finds. An engine then starts on the result. */
#include "tests/fuzz/device.h"
#include "chunk/fsck.h"

struct pass {
    bool repair;
    int rc;
    struct fsck_result r;
};

static void ignore(void *arg, const char *text)
{
    (void)arg;
    ASSERT(text[0] != 0);
}

static int pass_main(void *arg)
{
    struct pass *p = arg;
    struct fsck_conf conf = {.repair = p->repair, .data = true, .finding = ignore, .note = ignore};

    p->rc = fsck_device(DISK, &conf, &p->r);
    return 0;
}

static int start_main(void *arg)
{
    struct engine_conf conf = {.workers = 1};
    struct super_block *sb = mem_alloc(sizeof(*sb));
    struct engine *e = engine_new(&conf);

    (void)arg;
    if (super_read(DISK, sb) == 0 && engine_dev_add(e, DISK, sb) == 0)
        (void)!engine_check(e);
    mem_free(sb);
    engine_stop(e);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pass check = {0}, repair = {.repair = true}, again = {0};
    struct sim_proc *p;
    struct sim *s;

    log_threshold = LOG_LV_ERROR + 1;
    s = device_world(data, size, &p);
    device_proc(s, p, pass_main, &check);
    device_proc(s, p, pass_main, &repair);
    ASSERT((check.rc < 0) == (repair.rc < 0));
    if (check.rc == 0) {
        device_proc(s, p, pass_main, &again);
        ASSERT(check.r.findings == repair.r.findings && repair.r.left <= repair.r.findings);
        ASSERTF(again.rc == 0 && again.r.findings <= repair.r.left,
                "%" PRIu64 " findings, %" PRIu64 " left, then %" PRIu64, repair.r.findings,
                repair.r.left, again.r.findings);
    }
    device_proc(s, p, start_main, NULL);
    sim_free(s);
    return 0;
}
