/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks of hosts, which run faster or slower than the world's time, and wall clocks, which jump.
 * Code of a process sees only its host's; the events of the world are in the world's time. */
#include <string.h>
#include "common/env/sim/sim_internal.h"

#define MILLION    1000000
#define WALL_START (1750000000 * NSEC_PER_SEC) /* a day in 2025 */

nsec_t sim_clock_local(const struct sim_proc *p)
{
    nsec_t now = p->sim->now, rate = MILLION + p->drift_ppm;

    return now / MILLION * rate + now % MILLION * rate / MILLION;
}

nsec_t sim_clock_world(const struct sim_proc *p, nsec_t local)
{
    nsec_t rate = MILLION + p->drift_ppm;

    if (p->drift_ppm == 0 || local > NSEC_NEVER / 2)
        return local;
    return local / rate * MILLION + (local % rate * MILLION + rate - 1) / rate;
}

nsec_t sim_clock_wall(const struct sim_proc *p)
{
    return WALL_START + sim_clock_local(p) + p->wall_ahead;
}

void sim_clock_drift(struct sim *s, const char *host, int32_t ppm)
{
    ASSERT(ppm > -MILLION && ppm < MILLION);
    LIST_FOREACH (p, &s->procs, struct sim_proc, link) {
        if (strcmp(p->host, host) != 0)
            continue;
        ASSERTF(!p->running, "%s has timers by its former clock", p->name);
        p->drift_ppm = ppm;
    }
}

void sim_clock_jump(struct sim *s, const char *host, nsec_t by)
{
    LIST_FOREACH (p, &s->procs, struct sim_proc, link)
        if (strcmp(p->host, host) == 0)
            p->wall_ahead += by;
}
