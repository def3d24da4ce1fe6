/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-fsck at crash points, where everything is sound, and on damaged devices. That a check does
 * not write is guarded by the simulator: it opens the device for reading only. */
#include <inttypes.h>
#include <stdio.h>
#include "common/base/err.h"
#include "tests/crash/crash.h"

static void first_finding(void *arg, const char *text)
{
    struct fsck_run *f = arg;

    if (f->why[0] == 0)
        snprintf(f->why, sizeof(f->why), "%s", text);
}

int fsck_run_main(void *arg)
{
    struct fsck_run *f = arg;
    struct fsck_conf conf = {.repair = f->repair,
                             .data = true,
                             .journal = f->journal,
                             .finding = first_finding,
                             .arg = f};

    f->rc = fsck_device(f->path, &conf, &f->r);
    if (f->rc < 0)
        snprintf(f->why, sizeof(f->why), "%s", err_text(f->rc));
    f->done = true;
    return 0;
}

bool fsck_clean(struct fsck_run *f)
{
    (void)fsck_run_main(f);
    return f->rc == 0 && f->r.findings == 0;
}

/* ---- damage ---- */

bool fsck_explains(const struct fsck_run *check, const uint64_t verdicts[VERDICTS], char *why,
                   size_t size)
{
    bool lost = verdicts[VERDICT_REFUSED] + verdicts[VERDICT_GONE] + verdicts[VERDICT_VOID] +
                    verdicts[VERDICT_CORRUPT] >
                0;

    if (check->rc < 0 && verdicts[VERDICT_REFUSED] == 0)
        snprintf(why, size, "fsck ends with '%s', and the engine starts", check->why);
    else if (check->rc == 0 && check->r.findings == 0 && lost)
        snprintf(why, size, "fsck finds nothing, and something is lost");
    else
        return true;
    return false;
}

bool fsck_no_worse(const struct fsck_run *repair, const struct fsck_run *after,
                   const uint64_t was[VERDICTS], const uint64_t is[VERDICTS], char *why,
                   size_t size)
{
    if (repair->rc < 0 || after->rc < 0)
        snprintf(why, size, "repair: %s%s", repair->why, after->why);
    else if (repair->r.left > repair->r.findings || after->r.findings > repair->r.left)
        snprintf(why, size,
                 "repair: %" PRIu64 " findings, %" PRIu64 " left, then %" PRIu64 " found: %s",
                 repair->r.findings, repair->r.left, after->r.findings, after->why);
    else if (after->written > 0 || (repair->written > 0 && repair->r.left == repair->r.findings))
        snprintf(why, size, "repair: it wrote %" PRIu64 " bytes for nothing", repair->written);
    else if (repair->written == 0) /* two starts may read more or less before they see damage */
        return true;
    else if (is[VERDICT_RIGHT] < was[VERDICT_RIGHT] || is[VERDICT_REFUSED] > was[VERDICT_REFUSED])
        snprintf(why, size, "repair: %" PRIu64 " pages were right, %" PRIu64 " are (it found: %s)",
                 was[VERDICT_RIGHT], is[VERDICT_RIGHT], repair->why);
    else
        return true;
    return false;
}

void fsck_count(struct tally *t, uint32_t where, const struct fsck_run *check,
                const struct fsck_run *repair, const uint64_t was[VERDICTS],
                const uint64_t is[VERDICTS])
{
    t->fsck[where][FSCK_REFUSED] += check->rc < 0;
    t->fsck[where][FSCK_FOUND] += check->rc == 0 && check->r.findings > 0;
    t->fsck[where][FSCK_MENDED] += repair->done && repair->r.left == 0;
    t->fsck[where][FSCK_SAVED] += repair->done && is[VERDICT_RIGHT] > was[VERDICT_RIGHT];
}
