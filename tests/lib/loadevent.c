/* SPDX-License-Identifier: Apache-2.0
 *
 * Each event is a coroutine that sleeps until its time. */
#include "tests/lib/loadevent.h"

#include <stdlib.h>
#include <string.h>
#include "common/base/conf.h"
#include "common/base/err.h"
#include "tests/lib/chunkops.h"

struct loadevent_kind {
    const char *name;
    bool wants_arg, wants_size;
    int (*run)(struct loadevent *ev);
};

/* ---- kinds ---- */

static co_fn int add_run(struct loadevent *ev)
{
    return chunk_disk_add(ev->all->owner->clients[0], ev->arg);
}

static co_fn int drain_run(struct loadevent *ev)
{
    return chunk_drain(ev->all->owner->clients[0], ev->arg, &ev->all->stop);
}

static co_fn int scrub_run(struct loadevent *ev)
{
    return chunk_scrub(ev->all->owner->clients[0], ev->size, &ev->all->stop);
}

static co_fn int children_run(struct loadevent *ev)
{
    return owner_children(ev->all->owner);
}

static int rate_run(struct loadevent *ev)
{
    ev->all->rate(ev->all->arg, ev->size);
    return 0;
}

static const struct loadevent_kind kinds[] = {
    {"add", true, false, add_run},    {"drain", true, false, drain_run},
    {"scrub", true, true, scrub_run}, {"children", false, false, children_run},
    {"rate", true, true, rate_run},
};

/* ---- running ---- */

bool loadevents_parse(struct loadevents *all, const char *text)
{
    struct loadevent *ev = &all->events[all->n];
    const char *name, *arg;
    char *end;

    if (all->n == LOADEVENTS_MAX)
        return false;
    ev->at = strtod(text, &end);
    if (end == text || *end != ':' || !(ev->at >= 0))
        return false;
    name = end + 1;
    arg = strchrnul(name, '=');
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strlen(kinds[i].name) == (size_t)(arg - name) &&
            strncmp(kinds[i].name, name, (size_t)(arg - name)) == 0)
            ev->kind = &kinds[i];
    }
    ev->all = all;
    ev->arg = *arg == '=' ? arg + 1 : NULL;
    if (ev->kind == NULL || ev->kind->wants_arg != (ev->arg != NULL))
        return false;
    if (ev->kind->wants_size && conf_size_parse(ev->arg, &ev->size) < 0)
        return false;
    all->n++;
    return true;
}

static int event_main(void *arg)
{
    struct loadevent *ev = arg;
    struct loadevents *all = ev->all;
    int rc = co_sleep_until(all->begin + (nsec_t)(ev->at * NSEC_PER_SEC));

    if (rc < 0 || all->stop)
        return 0;
    ev->began = co_now();
    rc = ev->kind->run(ev);
    if (rc == 0 && !all->stop)
        ev->ended = co_now();
    if (rc < 0 && !all->stop && all->rc == 0) {
        all->rc = rc;
        snprintf(all->why, sizeof(all->why), "%s: %s", ev->kind->name, err_text(rc));
    }
    return 0;
}

void loadevents_start(struct loadevents *all, struct owner *owner, nsec_t begin)
{
    all->owner = owner;
    all->begin = begin;
    co_group_init(&all->group);
    for (uint32_t i = 0; i < all->n; i++)
        co_spawn(&all->group, "event", event_main, &all->events[i]);
}

int loadevents_stop(struct loadevents *all)
{
    all->stop = true;
    co_group_cancel(&all->group);
    (void)co_group_join(&all->group);
    return all->rc < 0 ? err_set(all->rc, "%s", all->why) : 0;
}

void loadevents_print(const struct loadevents *all, FILE *to)
{
    fprintf(to, "[");
    for (uint32_t i = 0; i < all->n; i++) {
        const struct loadevent *ev = &all->events[i];

        fprintf(to, "%s{\"name\": \"%s\"", i > 0 ? ", " : "", ev->kind->name);
        if (ev->began != 0)
            fprintf(to, ", \"began_s\": %.3f", (double)(ev->began - all->begin) / NSEC_PER_SEC);
        if (ev->ended != 0)
            fprintf(to, ", \"ended_s\": %.3f", (double)(ev->ended - all->begin) / NSEC_PER_SEC);
        fprintf(to, "}");
    }
    fprintf(to, "]");
}
