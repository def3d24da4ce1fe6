/* SPDX-License-Identifier: Apache-2.0
 *
 * Write leases (meta/decide_file_lease.c). While meta counts one as ours and our session lives, the
 * file is not cut: what the lease's answer said of that goes on holding, and a write within the
 * file asks nobody. A lease ends here before meta hears of it, and a write that finds none in the
 * end asks as if there had never been one; so nobody has to wait for writes in flight. */
#include "access/nfs/file_int.h"

#define RECALL_PAUSE (5 * NSEC_PER_MSEC) /* between questions whether they are back */

/* Its number, for meta; 0: there was none. */
static uint64_t lease_end(struct file *f)
{
    uint64_t lease = f->lease;

    f->lease = 0;
    f->asked = 0;
    f->lease_over = MAX(f->lease_over, lease);
    return lease;
}

co_fn bool file_leased(struct file *f)
{
    uint64_t lease = f->lease;
    int rc = lease != 0 ? file_session_lives(f, f->lease_session) : 0;

    if (rc == ERR_EXPIRED && f->lease == lease)
        (void)lease_end(f);
    return lease != 0 && rc == 0 && f->lease == lease;
}

co_fn int file_get_lease(struct file *f)
{
    uint64_t session = f->files->backend.session(f->files->backend.arg), lease = 0;
    int rc;

    if (f->lease != 0 || session == 0 || ++f->asked < FILE_ASKED || co_now() < f->lease_from)
        return file_get(f);
    rc = file_ask_lease(f, session, &lease);
    /* It may have been recalled before we heard of it. */
    if (rc == 0 && lease > f->lease_over) {
        f->lease = lease;
        f->lease_session = session;
    }
    return rc;
}

/* If meta can't be told it will ask for it. */
co_fn void file_lease_return(struct file *f)
{
    uint64_t lease = lease_end(f);

    if (lease != 0)
        (void)!file_tell_return(f, lease);
}

/* ---- recalled ---- */

static co_fn int return_main(void *arg)
{
    struct file *f = arg;

    (void)!file_tell_return(f, f->lease_over);
    file_put(f);
    return 0;
}

void nfs_files_recalled(struct nfs_files *files, uint64_t inode_id, uint64_t lease)
{
    struct file *f;

    if (files->closing)
        return;
    f = file_use(files, inode_id);
    (void)lease_end(f);
    f->lease_over = MAX(f->lease_over, lease);
    f->lease_from = co_now() + FILE_RECALLED;
    co_spawn_detached_deadline(&files->bg, "nfs-return", return_main, f);
}

/* ---- recalling ---- */

static co_fn int recall(struct file *f)
{
    uint32_t writers = 0;
    int rc;

    file_lease_return(f);
    f->lease_from = co_now() + FILE_RECALLED;
    rc = file_ask_recall(f, &writers);
    while (rc == 0 && writers > 0) {
        rc = co_sleep(RECALL_PAUSE);
        if (rc == 0)
            rc = file_ask_recall(f, &writers);
    }
    return rc;
}

co_fn int nfs_file_make_way(struct nfs_files *files, uint64_t inode_id)
{
    nsec_t former = co_deadline_push(co_now() + FILE_CALL_TIME);
    struct file *f = file_use(files, inode_id);
    int rc = recall(f);

    if (rc == 0)
        rc = file_zero(f);
    co_deadline_restore(former);
    file_put(f);
    return rc;
}
