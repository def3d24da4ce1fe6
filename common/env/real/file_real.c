/* SPDX-License-Identifier: Apache-2.0
 *
 * Lock files and small files of the real environment. Everything blocks, so it runs in the pool. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/base/mem.h"
#include "common/env/real/real.h"

struct file_job {
    struct real_env *env;
    const char *path;
    const void *data; /* write */
    char *ret;        /* read */
    size_t len;
};

/* ---- lock ---- */

/* A lock of the open file description, not of the process: another handle of this process
 * conflicts too, and closing an unrelated descriptor of the file does not drop it. */
static int lock_blocking(void *arg)
{
    struct file_job *job = arg;
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(job->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_from_errno(errno, "lock file %s", job->path);
    if (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
        int errnum = errno;

        close(fd);
        if (errnum == EAGAIN || errnum == EACCES)
            return err_set(ERR_BUSY, "%s is locked by another process", job->path);
        return err_from_errno(errnum, "locking %s", job->path);
    }
    pthread_mutex_lock(&job->env->lock);
    job->env->lock_fds =
        mem_realloc(job->env->lock_fds, sizeof(int) * ((size_t)job->env->lock_count + 1));
    job->env->lock_fds[job->env->lock_count++] = fd;
    pthread_mutex_unlock(&job->env->lock);
    return 0;
}

int real_lock_file(struct env *env, const char *path)
{
    struct file_job job = {.env = CONTAINER_OF(env, struct real_env, base), .path = path};

    return real_blocking(NULL, lock_blocking, &job);
}

/* ---- read ---- */

static int read_all(int fd, struct file_job *job, size_t size)
{
    while (job->len < size) {
        ssize_t n = read(fd, job->ret + job->len, size - job->len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_from_errno(errno, "reading %s", job->path);
        if (n == 0)
            break;
        job->len += (size_t)n;
    }
    return 0;
}

static int read_blocking(void *arg)
{
    struct file_job *job = arg;
    struct stat st;
    int fd, rc;

    fd = open(job->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_from_errno(errno, "%s", job->path);
    if (fstat(fd, &st) < 0)
        rc = err_from_errno(errno, "%s", job->path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(ERR_INVAL, "%s is not a regular file", job->path);
    else if (st.st_size > (off_t)REAL_FILE_BYTES_MAX)
        rc = err_set(ERR_TOO_LARGE, "%s is larger than %u bytes", job->path, REAL_FILE_BYTES_MAX);
    else {
        job->ret = mem_alloc((size_t)st.st_size + 1);
        rc = read_all(fd, job, (size_t)st.st_size);
    }
    close(fd);
    return rc;
}

int real_file_read(struct env *env, const char *path, char **ret, size_t *ret_len)
{
    struct file_job job = {.env = CONTAINER_OF(env, struct real_env, base), .path = path};
    int rc = real_blocking(NULL, read_blocking, &job);

    if (rc < 0) {
        mem_free(job.ret);
        return rc;
    }
    job.ret[job.len] = '\0';
    *ret = job.ret;
    if (ret_len != NULL)
        *ret_len = job.len;
    return 0;
}

/* ---- write ---- */

static int write_all(int fd, const struct file_job *job)
{
    const char *p = job->data;
    size_t left = job->len;

    while (left > 0) {
        ssize_t n = write(fd, p, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_from_errno(errno, "writing %s", job->path);
        p += n;
        left -= (size_t)n;
    }
    if (fsync(fd) < 0)
        return err_from_errno(errno, "syncing %s", job->path);
    return 0;
}

static int folder_sync(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd, rc = 0;

    if (slash == NULL)
        strcpy(folder, ".");
    else
        snprintf(folder, sizeof(folder), "%.*s", (int)MAX(slash - path, 1), path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_from_errno(errno, "folder %s", folder);
    if (fsync(fd) < 0)
        rc = err_from_errno(errno, "syncing folder %s", folder);
    close(fd);
    return rc;
}

static int write_replace(const struct file_job *job)
{
    char tmp[PATH_MAX];
    int fd, rc;

    if (snprintf(tmp, sizeof(tmp), "%s.tmp", job->path) >= (int)sizeof(tmp))
        return err_set(ERR_INVAL, "path of %zu bytes is too long", strlen(job->path));
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_from_errno(errno, "%s", tmp);
    rc = write_all(fd, job);
    if (close(fd) < 0 && rc == 0)
        rc = err_from_errno(errno, "closing %s", tmp);
    if (rc == 0 && rename(tmp, job->path) < 0)
        rc = err_from_errno(errno, "renaming %s", tmp);
    if (rc < 0) {
        unlink(tmp);
        return rc;
    }
    return folder_sync(job->path);
}

static int write_blocking(void *arg)
{
    struct file_job *job = arg;
    int rc;

    /* One at a time, because two writers of one path would share the temporary file. */
    pthread_mutex_lock(&job->env->lock);
    rc = write_replace(job);
    pthread_mutex_unlock(&job->env->lock);
    return rc;
}

int real_file_write(struct env *env, const char *path, const void *data, size_t len)
{
    struct file_job job = {
        .env = CONTAINER_OF(env, struct real_env, base), .path = path, .data = data, .len = len};

    if (len > REAL_FILE_BYTES_MAX)
        return err_set(ERR_TOO_LARGE, "%zu bytes for %s: at most %u", len, path,
                       REAL_FILE_BYTES_MAX);
    return real_blocking(NULL, write_blocking, &job);
}
