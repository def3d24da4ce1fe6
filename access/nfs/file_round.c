/* SPDX-License-Identifier: Apache-2.0
 *
 * What many wait for at once is asked once: those who come while a question is on its way share the
 * next one. */
#include "access/nfs/file_int.h"

static void round_put(struct file_round *r)
{
    if (--r->users == 0)
        mem_free(r);
}

static co_fn int round_ask(struct file *f, const struct file_round *r)
{
    int rc;

    if (r->size == 0)
        return file_get(f);
    if (r->size <= f->attr.size || r->cut != f->cut)
        return file_get_lease(f);
    rc = file_tell_written(f, r->size, r->cut);
    /* It was truncated meanwhile: those who wait see that in the copy, and write again. */
    return rc == ERR_MISCOMPARE || rc == ERR_BUSY ? file_get(f) : rc;
}

/* Belongs to no caller: one that is cancelled leaves the others their answer. */
static co_fn int rounds(void *arg)
{
    struct file *f = arg;

    while (f->next != NULL) {
        struct file_round *r = f->next;

        f->next = NULL;
        co_event_set(&r->done, round_ask(f, r));
        round_put(r);
    }
    f->asking = false;
    file_put(f);
    return 0;
}

static struct file_round *round_join(struct file *f)
{
    struct file_round *r = f->next;

    if (r == NULL) {
        r = f->next = MEM_NEW(struct file_round);
        r->users = 1;
        co_event_init(&r->done);
    }
    r->users++;
    if (!f->asking) {
        f->asking = true;
        file_use(f->files, f->by_id.key);
        co_spawn_detached_deadline(&f->files->bg, "nfs-ask", rounds, f);
    }
    return r;
}

co_fn int file_confirm(struct file *f, uint64_t size, uint64_t cut)
{
    struct file_round *r = round_join(f);
    int rc;

    if (size > 0 && cut == f->cut) {
        r->size = r->cut == cut ? MAX(r->size, size) : size;
        r->cut = cut;
    }
    rc = co_event_wait(&r->done);
    round_put(r);
    return rc;
}

co_fn int file_fresh(struct file *f)
{
    if (f->known && !f->gone && co_now() - f->told < FILE_COPY_TIME)
        return 0;
    return file_confirm(f, 0, 0);
}
