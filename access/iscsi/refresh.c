/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the export table anew when an initiator names something that it does not show. Usually
 * the table follows meta's within a renewal of the session, which is too late for somebody who
 * logs in right after an export was confirmed to him.
 *
 * A call of conf.refresh shows what meta had when it began, so whoever asks waits for the end of
 * one that began after he asked; all who ask while one is under way share the next. */
#include "access/iscsi/iscsi_int.h"

#define REFRESH_LIMIT (2 * NSEC_PER_SEC)
/* Four a second, and a few more after a pause: names that do not exist cost nothing to make up. */
#define REFRESH_PACE  (250 * NSEC_PER_MSEC)
#define REFRESH_BURST 8

static nsec_t refresh_turn(const struct iscsi_target *t)
{
    return t->refresh_paced - REFRESH_BURST * REFRESH_PACE;
}

bool iscsi_target_refresh_ready(const struct iscsi_target *t)
{
    return co_now() >= refresh_turn(t);
}

/* Waits for this call's turn. */
static co_fn int refresh_pace(struct iscsi_target *t)
{
    int rc = co_sleep_until(refresh_turn(t));

    t->refresh_paced = MAX(t->refresh_paced, co_now()) + REFRESH_PACE;
    return rc;
}

static co_fn int refresh_main(void *arg)
{
    struct iscsi_target *t = arg;

    while (t->refresh_ended < t->refresh_wanted && refresh_pace(t) == 0) {
        uint64_t number = ++t->refresh_begun;
        nsec_t former = co_deadline_push(co_now() + REFRESH_LIMIT);
        int rc = t->conf.refresh(t->conf.arg);

        co_deadline_restore(former);
        t->refresh_rc = rc;
        t->refresh_ended = number;
        co_cond_broadcast(&t->refreshed);
    }
    t->refreshing = false;
    return 0;
}

co_fn int iscsi_target_refresh(struct iscsi_target *t)
{
    uint64_t number = t->refresh_begun + 1;
    nsec_t former;
    int rc = 0;

    if (t->conf.refresh == NULL)
        return 0;
    t->refresh_wanted = MAX(t->refresh_wanted, number);
    if (!t->refreshing && !t->stopping) {
        t->refreshing = true;
        co_spawn_detached_deadline(&t->refresh_group, "iscsi-refresh", refresh_main, t);
    }
    former = co_deadline_push(co_now() + REFRESH_LIMIT);
    while (t->refresh_ended < number && !t->stopping && rc == 0)
        rc = co_cond_wait(&t->refreshed);
    co_deadline_restore(former);
    if (t->refresh_ended >= number)
        return t->refresh_rc < 0 ? err_set(t->refresh_rc, "meta did not answer") : 0;
    return t->stopping ? err_set(ERR_HALTED, "the target stops") : rc;
}
