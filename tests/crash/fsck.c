/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-fsck at a crash point: whatever a power loss leaves behind is sound. That the check does not
 * write is guarded by the simulator: it opens the device for reading only. */
#include "chunk/fsck.h"
#include <stdio.h>
#include "common/base/err.h"
#include "tests/crash/crash.h"

struct found {
    char *text; /* the first one */
    size_t size;
};

static void first_finding(void *arg, const char *text)
{
    struct found *f = arg;

    if (f->text[0] == 0)
        snprintf(f->text, f->size, "%s", text);
}

bool crash_fsck(const char *path, char *why, size_t size)
{
    struct found f = {why, size};
    struct fsck_conf conf = {.data = true, .finding = first_finding, .arg = &f};
    struct fsck_result r;
    int rc = fsck_device(path, &conf, &r);

    if (rc < 0)
        snprintf(why, size, "%s", err_text(rc));
    return rc == 0 && r.findings == 0;
}
