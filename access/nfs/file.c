/* SPDX-License-Identifier: Apache-2.0
 *
 * The copies of inodes, their open volumes, and the background that tells what was put off. */
#include "access/nfs/file_int.h"

#include "common/base/log.h"

/* ---- files that are in use ---- */

static struct file *file_new(struct nfs_files *files, uint64_t inode_id)
{
    struct file *f = MEM_NEW(struct file);

    f->files = files;
    list_init(&f->link);
    list_init(&f->owe);
    co_mutex_init(&f->opening);
    co_mutex_init(&f->changing);
    co_mutex_init(&f->zeroing);
    htab_insert(&files->by_id, &f->by_id, inode_id);
    files->count++;
    return f;
}

/* Nobody uses it. */
static co_fn void file_free(struct file *f)
{
    ASSERT(f->users == 0 && f->next == NULL && list_empty(&f->owe));
    list_del(&f->link);
    htab_remove(&f->files->by_id, &f->by_id);
    f->files->count--;
    if (!f->files->closing) /* then our session ends */
        file_lease_return(f);
    if (f->volume != NULL)
        f->volume->ops->close(f->volume);
    mem_free(f->data);
    mem_free(f);
}

struct file *file_use(struct nfs_files *files, uint64_t inode_id)
{
    struct file *f = HTAB_FIND(&files->by_id, inode_id, struct file, by_id);

    if (f == NULL)
        f = file_new(files, inode_id);
    list_del(&f->link);
    f->users++;
    return f;
}

co_fn void file_put(struct file *f)
{
    struct nfs_files *files = f->files;
    struct file *oldest;

    ASSERT(f->users > 0);
    if (--f->users > 0)
        return;
    f->left = co_now();
    list_push_back(&files->idle, &f->link);
    oldest = LIST_FIRST(&files->idle, struct file, link);
    if (f->gone)
        file_free(f);
    else if (files->count > FILES_IDLE_MAX)
        file_free(oldest);
}

static uint64_t backend_bytes(struct block_backend *b)
{
    struct block_backend_info info;

    b->ops->info(b, &info);
    return info.size_bytes;
}

co_fn int file_volume(struct file *f, struct block_backend **ret)
{
    struct nfs_backend *b = &f->files->backend;
    int rc = co_mutex_lock(&f->opening);

    if (rc < 0)
        return rc;
    if (f->volume == NULL)
        rc = b->open(b->arg, f->volume_id, &f->volume);
    if (rc == 0 && backend_bytes(f->volume) < f->volume_bytes && f->volume->ops->refresh != NULL)
        rc = f->volume->ops->refresh(f->volume);
    co_mutex_unlock(&f->opening);
    *ret = f->volume;
    return rc;
}

/* ---- the background ---- */

void file_owe(struct file *f)
{
    if (!list_empty(&f->owe))
        return;
    file_use(f->files, f->by_id.key);
    list_push_back(&f->files->owing, &f->owe);
}

/* Does what is due for a file, or all (at the end). True: nothing is left to do. */
static co_fn bool pay(struct file *f, bool all)
{
    bool told;

    if (all || (f->zero_owed && file_zero(f) == 0)) /* at the end others may: our session ends */
        f->zero_owed = false;
    told = f->mtime_ns == 0 || f->gone;
    if (!told && (all || co_now() >= f->mtime_due))
        told = file_tell_written(f, 0, 0) == 0;
    return f->gone || (told && !f->zero_owed);
}

static co_fn void pay_all(struct nfs_files *files, bool all)
{
    struct list todo;

    list_init(&todo);
    list_splice_back(&todo, &files->owing);
    while (!list_empty(&todo)) {
        struct file *f = LIST_FIRST(&todo, struct file, owe);
        nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
        bool paid;

        list_del(&f->owe);
        list_push_back(&files->owing, &f->owe);
        paid = pay(f, all);
        co_deadline_restore(former);
        if (!paid && !all)
            continue;
        if (!paid)
            log_warn("nfs.mtime", "inode=%llu why=\"meta can't be told when it was modified\"",
                     (unsigned long long)f->by_id.key);
        list_del(&f->owe);
        file_put(f);
    }
}

static co_fn void close_idle(struct nfs_files *files)
{
    for (;;) {
        struct file *f = LIST_FIRST(&files->idle, struct file, link);

        if (f == NULL || co_now() - f->left < FILE_IDLE_TIME)
            return;
        file_free(f);
    }
}

static co_fn int background(void *arg)
{
    struct nfs_files *files = arg;

    while (co_sleep(FILE_TICK) == 0) {
        pay_all(files, false);
        close_idle(files);
    }
    return 0;
}

/* ---- life ---- */

struct nfs_files *nfs_files_new(const struct nfs_backend *backend)
{
    struct nfs_files *files = MEM_NEW(struct nfs_files);

    files->backend = *backend;
    htab_init(&files->by_id);
    list_init(&files->idle);
    list_init(&files->owing);
    co_group_init(&files->bg);
    co_spawn_detached_deadline(&files->bg, "nfs-files", background, files);
    return files;
}

co_fn void nfs_files_free(struct nfs_files *files)
{
    struct co_shield shield;
    struct file *f;

    co_shield_begin(&shield);
    files->closing = true;
    (void)co_group_close(&files->bg);
    pay_all(files, true);
    while ((f = LIST_FIRST(&files->idle, struct file, link)) != NULL)
        file_free(f);
    ASSERT(files->count == 0);
    htab_fini(&files->by_id);
    mem_free(files);
    co_shield_end(&shield);
}

/* ---- what others learn, and tell us ---- */

void nfs_files_learn(struct nfs_files *files, const Zbs__Meta__Inode *inode)
{
    struct file *f = HTAB_FIND(&files->by_id, inode->id, struct file, by_id);

    if (f != NULL)
        file_learn(f, inode, co_now());
}

void file_attr(const struct file *f, struct nfs_attr *ret)
{
    *ret = f->attr;
    if (f->mtime_ns > ret->mtime_ns) {
        ret->mtime_ns = f->mtime_ns;
        ret->ctime_ns = MAX(ret->ctime_ns, f->mtime_ns);
    }
}

void nfs_files_amend(struct nfs_files *files, struct nfs_attr *attr)
{
    struct file *f = HTAB_FIND(&files->by_id, attr->inode_id, struct file, by_id);

    if (f != NULL && f->mtime_ns > attr->mtime_ns) {
        attr->mtime_ns = f->mtime_ns;
        attr->ctime_ns = MAX(attr->ctime_ns, f->mtime_ns);
    }
}

/* What it is now, and whether it is there, is asked before it is used again. */
void nfs_files_volume_changed(struct nfs_files *files, uint64_t volume_id)
{
    HTAB_FOREACH (f, &files->by_id, struct file, by_id) {
        if (f->volume_id == volume_id)
            f->told = 0;
    }
}
