/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to simulated disks, and what a crash does to those in flight. */
#include <inttypes.h>
#include <string.h>
#include "common/base/buf.h"
#include "common/base/crc32c.h"
#include "common/env/sim/sim_media.h"

#define PROBE_BYTES (1024u * 1024)

struct sim_disk {
    struct list link;
    struct sim_proc *proc;
    char *path;
    struct disk_info info;
    struct sim_media media;
    struct sim_disk_speed speed;
    nsec_t busy_until; /* with a speed: the end of the last request in line */
    bool failing, hanging;
    uint32_t exclusive; /* handles that hold it */
    sim_disk_hook hook;
    void *hook_arg;
    uint64_t writes, bytes_written;
    struct sim_tape *tape; /* being recorded, or NULL */
    uint32_t tape_disk;    /* number of the disk there */
    uint64_t tape_base;    /* and where it begins */
};

struct disk_handle {
    struct disk base; /* first */
    struct list link;
    struct sim_disk *disk;
    unsigned flags;
    uint32_t in_flight;
    struct co_wait *closer;
};

/* One request in flight. */
struct sim_io {
    struct list link;
    struct sim_event ev;
    struct disk_handle *handle;
    struct disk_req *req;
    uint64_t flush_seq;   /* a flush covers writes up to this one */
    uint32_t fingerprint; /* of a write's payload: it may not change meanwhile */
    uint64_t tape_n;      /* a write's number on the tape; for a flush, as flush_seq */
};

/* ---- disks in the world ---- */

struct sim_disk *sim_disk_find(struct sim_proc *p, const char *path)
{
    LIST_FOREACH (d, &p->disks, struct sim_disk, link)
        if (strcmp(d->path, path) == 0)
            return d;
    return NULL;
}

static struct sim_disk *disk_must(struct sim_proc *p, const char *path)
{
    struct sim_disk *d = sim_disk_find(p, path);

    ASSERTF(d, "%s has no disk %s", p->name, path);
    return d;
}

void sim_disk_create(struct sim_proc *p, const char *path, uint64_t size_bytes)
{
    struct sim_disk *d = SIM_NEW(struct sim_disk);

    ASSERTF(!sim_disk_find(p, path), "%s has a disk %s already", p->name, path);
    ASSERT(size_bytes > 0 && size_bytes % SIM_PAGE == 0);
    d->proc = p;
    d->path = sim_strdup(path);
    d->info = (struct disk_info){
        .size_bytes = size_bytes,
        .block_bytes = SIM_SECTOR,
        .physical_bytes = SIM_SECTOR,
        .discard = true,
        .model = "simulated",
    };
    sim_media_init(&d->media, p->sim);
    list_push_back(&p->disks, &d->link);
}

void sim_disk_create_from(struct sim_proc *p, const char *path, const struct sim_image *img,
                          uint64_t first_page, uint64_t pages)
{
    ASSERT(first_page <= img->pages && pages <= img->pages - first_page);
    sim_disk_create(p, path, pages * SIM_PAGE);
    disk_must(p, path)->media.base = img->page + first_page;
}

uint64_t sim_disks_bytes(struct sim_proc *p)
{
    uint64_t bytes = 0;

    LIST_FOREACH (d, &p->disks, struct sim_disk, link)
        bytes += d->info.size_bytes;
    return bytes;
}

void sim_disks_peek(struct sim_proc *p, uint64_t page_no, void *dst)
{
    LIST_FOREACH (d, &p->disks, struct sim_disk, link) {
        uint64_t pages = d->info.size_bytes / SIM_PAGE;

        if (page_no < pages) {
            sim_media_read(&d->media, page_no, dst);
            return;
        }
        page_no -= pages;
    }
}

void sim_disks_free(struct sim_proc *p)
{
    LIST_FOREACH_SAFE (d, &p->disks, struct sim_disk, link) {
        sim_media_fini(&d->media);
        sim_mem_free(d->path);
        sim_mem_free(d);
    }
}

void sim_disk_peek(struct sim_proc *p, const char *path, void *dst, size_t len, uint64_t off)
{
    struct sim_disk *d = disk_must(p, path);
    uint8_t page[SIM_PAGE];

    ASSERT(off <= d->info.size_bytes && len <= d->info.size_bytes - off);
    for (size_t done = 0; done < len;) {
        uint64_t pos = off + done;
        size_t n = MIN(len - done, SIM_PAGE - pos % SIM_PAGE);

        sim_media_read(&d->media, pos / SIM_PAGE, page);
        memcpy((uint8_t *)dst + done, page + pos % SIM_PAGE, n);
        done += n;
    }
}

void sim_disk_poke(struct sim_proc *p, const char *path, const void *src, size_t len, uint64_t off)
{
    struct sim_disk *d = disk_must(p, path);

    ASSERT(off <= d->info.size_bytes && len <= d->info.size_bytes - off);
    for (size_t done = 0; done < len;) {
        uint64_t pos = off + done;
        size_t n = MIN(len - done, SIM_PAGE - pos % SIM_PAGE);

        sim_media_poke(&d->media, pos / SIM_PAGE, (uint32_t)(pos % SIM_PAGE),
                       (const uint8_t *)src + done, (uint32_t)n);
        done += n;
    }
}

void sim_disk_pack(struct sim_proc *p, const char *path)
{
    struct sim_disk *d = disk_must(p, path);

    ASSERT(d->writes == 0);
    d->media.packed = true;
}

void sim_disk_wipe(struct sim_proc *p, const char *path)
{
    struct sim_disk *d = disk_must(p, path);

    sim_media_fini(&d->media);
    sim_media_init(&d->media, p->sim);
}

void sim_disk_set_physical(struct sim_proc *p, const char *path, uint32_t bytes)
{
    struct sim_disk *d = disk_must(p, path);

    ASSERT(bytes == SIM_SECTOR || bytes == SIM_PAGE);
    d->info.block_bytes = d->info.physical_bytes = bytes;
}

void sim_disk_set_speed(struct sim_proc *p, const char *path, const struct sim_disk_speed *speed)
{
    disk_must(p, path)->speed = *speed;
}

void sim_disk_fail(struct sim_proc *p, const char *path, bool failing)
{
    disk_must(p, path)->failing = failing;
}

void sim_disk_hang(struct sim_proc *p, const char *path, bool hanging)
{
    struct sim_disk *d = disk_must(p, path);

    d->hanging = hanging;
    LIST_FOREACH (io, &p->ios, struct sim_io, link) {
        if (io->handle->disk != d)
            continue;
        if (hanging)
            sim_event_disarm(p->sim, &io->ev);
        else
            sim_event_arm(p->sim, &io->ev, p->sim->now + sim_disk_delay(p->sim));
    }
}

void sim_disk_lie(struct sim_proc *p, const char *path, bool lying)
{
    struct sim_disk *d = disk_must(p, path);

    ASSERT(!d->tape && !d->media.packed);
    sim_media_lie(&d->media, lying);
}

bool sim_disk_some_page(struct sim_proc *p, const char *path, uint64_t draw, uint64_t *ret_no)
{
    return sim_media_some_page(&disk_must(p, path)->media, draw, ret_no);
}

void sim_disk_set_hook(struct sim_proc *p, const char *path, sim_disk_hook hook, void *arg)
{
    struct sim_disk *d = disk_must(p, path);

    d->hook = hook;
    d->hook_arg = arg;
}

uint64_t sim_disk_bytes_written(struct sim_proc *p, const char *path)
{
    return disk_must(p, path)->bytes_written;
}

/* ---- recording ---- */

struct sim_tape *sim_tape_start(struct sim_proc *p)
{
    struct sim_tape *t = sim_tape_new();
    uint64_t base = 0;
    uint32_t n = 0;

    ASSERT(list_empty(&p->ios));
    LIST_FOREACH (d, &p->disks, struct sim_disk, link) {
        ASSERT(!d->tape);
        d->tape = t;
        d->tape_disk = n++;
        d->tape_base = base;
        base += d->info.size_bytes;
    }
    return t;
}

void sim_tape_stop(struct sim_proc *p)
{
    ASSERT(list_empty(&p->ios));
    LIST_FOREACH (d, &p->disks, struct sim_disk, link)
        d->tape = NULL;
}

static void record_submit(struct sim_disk *d, struct sim_io *io)
{
    ASSERTF(io->req->op != DISK_DISCARD, "a discard on disk %s, which is recorded", d->path);
    if (io->req->op == DISK_WRITE)
        io->tape_n = sim_tape_submit(d->tape, d->tape_disk, d->tape_base, io->req);
    else
        io->tape_n = d->tape->n_done;
}

static void record_done(struct sim_disk *d, const struct sim_io *io, int rc)
{
    ASSERTF(rc == 0, "an error on disk %s, which is recorded", d->path);
    if (io->req->op == DISK_WRITE)
        sim_tape_done(d->tape, io->tape_n);
    else if (io->req->op == DISK_FLUSH)
        sim_tape_flush(d->tape, d->tape_disk, io->tape_n);
}

/* ---- handles ---- */

int sim_disk_open(struct env *env, const char *path, unsigned flags, struct disk **ret)
{
    struct sim_proc *p = sim_proc_of(env);
    struct sim_call call;
    struct disk_handle *h;
    struct sim_disk *d;
    int rc = sim_call_run(&call, env, sim_disk_delay(p->sim), NULL);

    if (rc < 0)
        return rc;
    d = sim_disk_find(p, path);
    if (!d)
        return err_set(ERR_NOTFOUND, "no disk %s", path);
    if ((flags & DISK_EXCLUSIVE) && d->exclusive > 0)
        return err_set(ERR_BUSY, "disk %s is in use", path);
    h = SIM_NEW(struct disk_handle);
    h->base = (struct disk){.env = env, .loop = co_loop(), .info = d->info};
    h->disk = d;
    h->flags = flags;
    if (flags & DISK_EXCLUSIVE)
        d->exclusive++;
    list_push_back(&p->disk_handles, &h->link);
    *ret = &h->base;
    return 0;
}

static void handle_free(struct disk_handle *h)
{
    if (h->flags & DISK_EXCLUSIVE)
        h->disk->exclusive--;
    list_del(&h->link);
    sim_mem_free(h);
}

void sim_disk_close(struct disk *base)
{
    struct disk_handle *h = CONTAINER_OF(base, struct disk_handle, base);
    struct co_wait wait;

    ASSERT(!h->closer);
    if (h->in_flight > 0) {
        co_wait_init(&wait);
        h->closer = &wait;
        (void)co_suspend(&wait, CO_UNINTERRUPTIBLE);
    }
    handle_free(h);
}

int sim_disk_probe(struct env *env, const char *path)
{
    struct sim_proc *p = sim_proc_of(env);
    uint8_t page[SIM_PAGE];
    struct sim_call call;
    struct sim_disk *d;
    uint64_t last;
    int rc = sim_call_run(&call, env, sim_disk_delay(p->sim), NULL);

    if (rc < 0)
        return rc;
    d = sim_disk_find(p, path);
    if (!d)
        return err_set(ERR_NOTFOUND, "no disk %s", path);
    if (d->failing)
        return err_set(ERR_IO, "disk %s cannot be read", path);
    if (d->exclusive > 0)
        return err_set(ERR_EXISTS, "disk %s is in use", path);
    last = d->info.size_bytes - MIN(d->info.size_bytes, PROBE_BYTES);
    for (uint64_t off = 0; off < d->info.size_bytes; off += SIM_PAGE) {
        if (off == PROBE_BYTES)
            off = MAX(off, ROUND_DOWN(last, SIM_PAGE));
        if (off >= d->info.size_bytes)
            break;
        sim_media_read(&d->media, off / SIM_PAGE, page);
        if (!mem_is_zero(page, SIM_PAGE))
            return err_set(ERR_EXISTS, "disk %s has data at %" PRIu64, path, off);
    }
    return 0;
}

/* ---- requests ---- */

static uint32_t fingerprint(const struct disk_req *r)
{
    uint32_t crc = 0;

#ifdef ZBS_DEBUG
    for (int i = 0; r->op == DISK_WRITE && i < r->iov_count; i++)
        crc = crc32c(crc, r->iov[i].iov_base, r->iov[i].iov_len);
#else
    (void)r;
#endif
    return crc;
}

/* Bytes up to the end of the page that pos lies in, at most `left`. */
static uint32_t page_part(uint64_t pos, size_t left)
{
    return (uint32_t)MIN(left, SIM_PAGE - pos % SIM_PAGE);
}

/* The payload reaches the cache, or the media. */
static void write_apply(struct sim_disk *d, const struct disk_req *r, bool durable, bool torn)
{
    struct sim_write *w = sim_media_begin(&d->media);
    uint64_t pos = r->off;

    for (int i = 0; i < r->iov_count; i++) {
        const uint8_t *src = r->iov[i].iov_base;

        for (size_t off = 0; off < r->iov[i].iov_len;) {
            uint32_t n = page_part(pos, r->iov[i].iov_len - off);

            if (durable && !torn && d->media.packed && pos % SIM_PAGE == 0 &&
                r->iov[i].iov_len - off >= SIM_RUN_BYTES &&
                sim_media_write_run(&d->media, pos / SIM_PAGE, src + off)) {
                pos += SIM_RUN_BYTES;
                off += SIM_RUN_BYTES;
                continue;
            }
            sim_media_write(&d->media, w, pos / SIM_PAGE, (uint32_t)(pos % SIM_PAGE), src + off, n,
                            durable, torn);
            pos += n;
            off += n;
        }
    }
    sim_media_end(w);
    d->bytes_written += r->len;
}

static void read_apply(struct sim_disk *d, const struct disk_req *r)
{
    uint64_t pos = r->off;
    uint8_t page[SIM_PAGE];

    for (int i = 0; i < r->iov_count; i++) {
        for (size_t off = 0; off < r->iov[i].iov_len;) {
            uint32_t n = page_part(pos, r->iov[i].iov_len - off);

            uint8_t *dst = (uint8_t *)r->iov[i].iov_base + off;

            sim_media_read(&d->media, pos / SIM_PAGE, n == SIM_PAGE ? dst : page);
            if (n < SIM_PAGE)
                memcpy(dst, page + pos % SIM_PAGE, n);
            pos += n;
            off += n;
        }
    }
}

/* A write that its process did not live to see: kept, lost or torn. */
static void write_orphaned(struct sim_disk *d, const struct disk_req *r)
{
    uint64_t n = sim_below(d->media.sim, 3);

    if (n > 0)
        write_apply(d, r, r->durable && sim_coin(d->media.sim), n == 2);
}

static int io_apply(struct sim_disk *d, const struct sim_io *io)
{
    struct disk_req *r = io->req;

    if (d->failing || sim_chance(d->media.sim, d->proc->sim->conf.disk_eio_ppm)) {
        if (r->op == DISK_WRITE)
            write_orphaned(d, r); /* nobody knows what a failed write left */
        return ERR_IO;
    }
    switch (r->op) {
    case DISK_READ:
        read_apply(d, r);
        break;
    case DISK_WRITE:
        write_apply(d, r, r->durable, false);
        break;
    case DISK_FLUSH:
        sim_media_flush(&d->media, io->flush_seq);
        break;
    case DISK_DISCARD:
        sim_media_discard(&d->media, r->off / SIM_PAGE, r->len / SIM_PAGE);
        break;
    }
    return 0;
}

static void io_done(struct sim *s, struct sim_event *e)
{
    struct sim_io *io = CONTAINER_OF(e, struct sim_io, ev);
    struct disk_handle *h = io->handle;
    struct sim_disk *d = h->disk;
    struct disk_req *r = io->req;

    (void)s;
    if (r->op == DISK_WRITE || r->op == DISK_DISCARD) {
        uint64_t n = ++d->writes;

        if (d->hook && d->hook(d->hook_arg, d->proc, n)) {
            sim_proc_power_loss(d->proc); /* this request is still in flight */
            return;
        }
    }
    ASSERTF(io->fingerprint == fingerprint(r), "payload changed while in flight to %s at %" PRIu64,
            d->path, r->off);
    r->rc = io_apply(d, io);
    if (d->tape)
        record_done(d, io, r->rc);
    r->latency_ns = sim_clock_local(d->proc) - r->submitted;
    list_del(&io->link);
    sim_mem_free(io);
    h->in_flight--;
    co_resume(&r->wait, r->rc);
    if (h->in_flight == 0 && h->closer)
        co_resume(h->closer, 0);
}

/* When a request that is submitted now completes. A disk with a speed takes one after the other;
 * their latencies overlap. */
static nsec_t io_end(struct sim_disk *d, const struct disk_req *r)
{
    const struct sim_disk_speed *s = &d->speed;
    struct sim *sim = d->proc->sim;

    if (s->bytes_per_sec == 0)
        return sim->now + sim_disk_delay(sim);
    d->busy_until = MAX(d->busy_until, sim->now);
    if (r->op == DISK_READ || r->op == DISK_WRITE)
        d->busy_until +=
            s->per_request + (nsec_t)(r->len * (uint64_t)NSEC_PER_SEC / s->bytes_per_sec);
    return d->busy_until + s->latency;
}

void sim_disk_submit(struct disk_req *r)
{
    struct disk_handle *h = CONTAINER_OF(r->disk, struct disk_handle, base);
    struct sim_proc *p = h->disk->proc;
    struct sim_io *io = SIM_NEW(struct sim_io);

    ASSERTF(r->op == DISK_READ || !(h->flags & DISK_READ_ONLY), "write to read-only disk %s",
            h->disk->path);
    io->handle = h;
    io->req = r;
    io->flush_seq = h->disk->media.last_seq;
    io->fingerprint = fingerprint(r);
    if (h->disk->tape)
        record_submit(h->disk, io);
    h->in_flight++;
    list_push_back(&p->ios, &io->link);
    sim_event_init(&io->ev, SIM_DISK, p, sim_id(p->sim), io_done);
    if (!h->disk->hanging)
        sim_event_arm(p->sim, &io->ev, io_end(h->disk, r));
}

/* Its process has ended, the device's power has not. Nothing is torn on a recorded disk. */
static void io_orphaned(const struct sim_io *io, enum sim_end_how how)
{
    struct sim_disk *d = io->handle->disk;
    struct disk_req *r = io->req;
    bool kept = how == SIM_END_EXIT || (d->tape && sim_coin(d->media.sim));

    if (r->op == DISK_DISCARD && sim_coin(d->media.sim))
        sim_media_discard(&d->media, r->off / SIM_PAGE, r->len / SIM_PAGE);
    if (r->op != DISK_WRITE)
        return;
    if (kept)
        write_apply(d, r, r->durable, false);
    else if (!d->tape)
        write_orphaned(d, r);
    if (d->tape && kept)
        sim_tape_done(d->tape, io->tape_n);
    else if (d->tape)
        sim_tape_drop(d->tape, io->tape_n);
}

void sim_disks_proc_ended(struct sim_proc *p, enum sim_end_how how)
{
    struct list *elem;
    bool reverse = sim_coin(p->sim); /* writes in flight are not ordered */

    while (!list_empty(&p->ios)) {
        struct sim_io *io;

        elem = reverse ? p->ios.prev : p->ios.next;
        list_del(elem);
        io = LIST_ENTRY(elem, struct sim_io, link);
        sim_event_disarm(p->sim, &io->ev);
        io_orphaned(io, how);
        sim_mem_free(io);
    }
    LIST_FOREACH_SAFE (h, &p->disk_handles, struct disk_handle, link)
        handle_free(h);
    LIST_FOREACH (d, &p->disks, struct sim_disk, link) {
        if (how != SIM_END_POWER)
            continue;
        ASSERTF(!d->tape, "disk %s is recorded: a player loses its power, not the disk", d->path);
        sim_media_power_loss(&d->media);
    }
}
