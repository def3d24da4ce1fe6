/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening, describing and probing disks of the real environment. A disk is a block device or a
 * preallocated file, always with O_DIRECT. */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/env/real/disk_real.h"

#define DISK_UNIT       4096u /* of offsets, lengths and memory (env.h) */
#define PROBE_EDGE_SIZE (1024u * 1024)
#define SYSFS_TEXT_MAX  64u

/* ---- what the kernel says about a device ---- */

/* Reads one attribute of a block device's queue or device folder; a partition has them at its
 * parent. False if there is none. */
static bool sysfs_read(dev_t dev, const char *attr, char text[SYSFS_TEXT_MAX])
{
    static const char *const ups[] = {"", "../"};
    char path[PATH_MAX];
    ssize_t n = -1;

    for (size_t i = 0; i < ARRAY_SIZE(ups) && n < 0; i++) {
        int fd;

        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s%s", major(dev), minor(dev), ups[i],
                 attr);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        n = read(fd, text, SYSFS_TEXT_MAX - 1);
        close(fd);
    }
    if (n < 0)
        return false;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    text[n] = '\0';
    return true;
}

static bool sysfs_nonzero(dev_t dev, const char *attr)
{
    char text[SYSFS_TEXT_MAX];

    return sysfs_read(dev, attr, text) && strcmp(text, "") != 0 && strcmp(text, "0") != 0;
}

/* 0: there is none. */
static uint32_t sysfs_number(dev_t dev, const char *attr)
{
    char text[SYSFS_TEXT_MAX];

    return sysfs_read(dev, attr, text) ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

static int block_info(int fd, const char *path, dev_t dev, struct disk_info *info)
{
    char model[SYSFS_TEXT_MAX];
    uint64_t size;
    unsigned physical;
    int sector;

    if (ioctl(fd, BLKGETSIZE64, &size) < 0)
        return err_from_errno(errno, "size of %s", path);
    if (ioctl(fd, BLKSSZGET, &sector) < 0)
        return err_from_errno(errno, "sector size of %s", path);
    if (sector <= 0 || (uint32_t)sector > DISK_UNIT)
        return err_set(ERR_UNSUPPORTED, "%s has sectors of %d bytes, at most %u are supported",
                       path, sector, DISK_UNIT);
    if (ioctl(fd, BLKPBSZGET, &physical) < 0)
        physical = (unsigned)sector;
    info->size_bytes = ROUND_DOWN(size, DISK_UNIT);
    info->block_bytes = (uint32_t)sector;
    info->physical_bytes = MAX((uint32_t)physical, info->block_bytes);
    info->rotational = sysfs_nonzero(dev, "queue/rotational");
    info->discard = sysfs_nonzero(dev, "queue/discard_max_bytes");
    if (sysfs_read(dev, "device/model", model))
        memcpy(info->model, model, sizeof(info->model));
    return 0;
}

_Static_assert(sizeof(((struct disk_info *)0)->model) == SYSFS_TEXT_MAX, "model text");

/* The smallest direct access that a file admits. */
static uint32_t file_sector(int fd)
{
    void *page = mem_alloc_aligned(DISK_UNIT, DISK_UNIT);
    bool small = pread(fd, page, 512, 512) >= 0;

    mem_free(page);
    return small ? 512 : DISK_UNIT;
}

static void file_info(int fd, const struct stat *st, bool read_only, struct disk_info *info)
{
    info->is_file = true;
    info->size_bytes = ROUND_DOWN((uint64_t)st->st_size, DISK_UNIT);
    info->block_bytes = file_sector(fd);
    info->physical_bytes =
        MAX(info->block_bytes, sysfs_number(st->st_dev, "queue/physical_block_size"));
    info->rotational = sysfs_nonzero(st->st_dev, "queue/rotational");
    /* A hole beyond the end changes nothing and tells whether holes are supported. */
    info->discard =
        !read_only && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (off_t)ROUND_UP(info->size_bytes + 1, DISK_UNIT), DISK_UNIT) == 0;
    strcpy(info->model, "file");
}

/* ---- open and close ---- */

struct open_job {
    const char *path;
    unsigned flags;
    int fd;
    struct disk_info info;
};

static int open_lock(const struct open_job *job, bool is_file)
{
    if (!is_file || !(job->flags & DISK_EXCLUSIVE))
        return 0;
    if (flock(job->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(ERR_BUSY, "%s is in use by another program", job->path);
    return err_from_errno(errno, "locking %s", job->path);
}

static int open_describe(struct open_job *job)
{
    struct stat st;
    int rc;

    if (fstat(job->fd, &st) < 0)
        return err_from_errno(errno, "%s", job->path);
    rc = open_lock(job, S_ISREG(st.st_mode));
    if (rc < 0)
        return rc;
    if (S_ISBLK(st.st_mode))
        rc = block_info(job->fd, job->path, st.st_rdev, &job->info);
    else
        file_info(job->fd, &st, job->flags & DISK_READ_ONLY, &job->info);
    if (rc == 0 && job->info.size_bytes == 0)
        rc = err_set(ERR_INVAL, "%s is smaller than %u bytes", job->path, DISK_UNIT);
    return rc;
}

/* Looked at before it is opened, because opening something else may block or have effects. */
static int path_is_block(const char *path, bool *ret_block)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return err_from_errno(errno, "disk %s", path);
    if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
        return err_set(ERR_INVAL, "%s is neither a block device nor a file", path);
    *ret_block = S_ISBLK(st.st_mode);
    return 0;
}

static int open_blocking(void *arg)
{
    struct open_job *job = arg;
    int how = O_DIRECT | O_CLOEXEC, rc;
    bool is_block;

    rc = path_is_block(job->path, &is_block);
    if (rc < 0)
        return rc;
    how |= job->flags & DISK_READ_ONLY ? O_RDONLY : O_RDWR;
    /* O_EXCL claims a block device; for a file it would mean something else. */
    if ((job->flags & DISK_EXCLUSIVE) && is_block)
        how |= O_EXCL;
    job->fd = open(job->path, how);
    if (job->fd < 0 && errno == EBUSY)
        return err_set(ERR_BUSY, "%s is in use: mounted or held by another program", job->path);
    if (job->fd < 0)
        return err_from_errno(errno, "disk %s", job->path);
    rc = open_describe(job);
    if (rc < 0)
        close(job->fd);
    return rc;
}

int real_disk_open(struct env *env, const char *path, unsigned flags, struct disk **ret)
{
    struct open_job job = {.path = path, .flags = flags};
    struct disk_real *d;
    int rc;

    rc = real_ring_get(real_loop_self());
    if (rc < 0)
        return rc;
    rc = real_blocking(NULL, open_blocking, &job);
    if (rc < 0)
        return rc;
    d = MEM_NEW(struct disk_real);
    d->base.env = env;
    d->base.loop = co_loop();
    d->base.info = job.info;
    d->fd = job.fd;
    d->path = mem_strdup(path);
    d->delay = real_disk_delay();
    *ret = &d->base;
    return 0;
}

static int close_blocking(void *arg)
{
    close(*(int *)arg);
    return 0;
}

void real_disk_close(struct disk *disk)
{
    struct disk_real *d = CONTAINER_OF(disk, struct disk_real, base);
    struct co_wait w;

    if (d->in_flight > 0) {
        co_wait_init(&w);
        d->closer = &w;
        (void)co_suspend(&w, CO_UNINTERRUPTIBLE);
    }
    (void)real_blocking(NULL, close_blocking, &d->fd);
    mem_free(d->path);
    mem_free(d);
}

/* ---- probe ---- */

static const char *probe_value(blkid_probe pr, const char *name)
{
    const char *value;

    return blkid_probe_lookup_value(pr, name, &value, NULL) == 0 ? value : NULL;
}

/* Known signatures: file systems, swap, RAID and LVM members, partition tables. */
static int probe_signature(blkid_probe pr, const char *path)
{
    const char *type, *label;
    int rc;

    blkid_probe_enable_superblocks(pr, 1);
    blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL |
                                              BLKID_SUBLKS_USAGE | BLKID_SUBLKS_MAGIC);
    blkid_probe_enable_partitions(pr, 1);
    rc = blkid_do_safeprobe(pr);
    if (rc == 1)
        return 0;
    if (rc == -2)
        return err_set(ERR_EXISTS, "%s carries several contradictory signatures", path);
    if (rc < 0)
        return err_set(ERR_IO, "%s cannot be searched for signatures", path);
    type = probe_value(pr, "TYPE");
    label = probe_value(pr, "LABEL");
    if (type != NULL)
        return err_set(ERR_EXISTS, "%s carries %s%s%s", path, type, label ? " labelled " : "",
                       label ? label : "");
    type = probe_value(pr, "PTTYPE");
    return err_set(ERR_EXISTS, "%s carries a partition table%s%s", path, type ? " of type " : "",
                   type ? type : "");
}

static int probe_edge(int fd, const char *path, uint64_t off, size_t len, const char *which)
{
    char *data = mem_alloc_aligned(DISK_UNIT, len);
    size_t done = 0;
    int rc = 0;

    while (done < len && rc == 0) {
        ssize_t n = pread(fd, data + done, len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            rc = n < 0 ? err_from_errno(errno, "reading %s", path)
                       : err_set(ERR_IO, "%s ends early", path);
        else
            done += (size_t)n;
    }
    if (rc == 0 && !mem_is_zero(data, len))
        rc = err_set(ERR_EXISTS, "%s carries unknown data in its %s MiB", path, which);
    mem_free(data);
    return rc;
}

static int probe_fd(int fd, const char *path)
{
    blkid_probe pr = blkid_new_probe();
    uint64_t size, edge;
    int rc;

    if (pr == NULL)
        return err_set(ERR_IO, "%s: no probe", path);
    if (blkid_probe_set_device(pr, fd, 0, 0) != 0) {
        rc = err_set(ERR_IO, "%s cannot be probed", path);
        goto out;
    }
    size = (uint64_t)blkid_probe_get_size(pr);
    edge = MIN(size, PROBE_EDGE_SIZE);
    rc = probe_signature(pr, path);
    if (rc == 0)
        rc = probe_edge(fd, path, 0, edge, "first");
    if (rc == 0)
        rc = probe_edge(fd, path, size - edge, edge, "last");
out:
    blkid_free_probe(pr);
    return rc;
}

static int probe_blocking(void *arg)
{
    const char *path = arg;
    bool is_block;
    int fd, rc;

    rc = path_is_block(path, &is_block);
    if (rc < 0)
        return rc;
    fd = open(path, O_RDONLY | O_CLOEXEC | (is_block ? O_EXCL : 0));
    if (fd < 0 && errno == EBUSY)
        return err_set(ERR_EXISTS, "%s is in use: mounted or held by another program", path);
    if (fd < 0)
        return err_from_errno(errno, "disk %s", path);
    if (is_block || flock(fd, LOCK_EX | LOCK_NB) == 0)
        rc = probe_fd(fd, path);
    else if (errno == EWOULDBLOCK)
        rc = err_set(ERR_EXISTS, "%s is in use by another program", path);
    else
        rc = err_from_errno(errno, "locking %s", path);
    close(fd);
    return rc;
}

int real_disk_probe(struct env *env, const char *path)
{
    (void)env;
    return real_blocking(NULL, probe_blocking, (void *)(uintptr_t)path);
}
