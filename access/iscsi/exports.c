/* SPDX-License-Identifier: Apache-2.0
 *
 * The export table: targets and units follow meta's. Each unit has a coroutine that opens its
 * back end, waits for the unit's end, and closes it; each removed target has one that waits for
 * its last session and unit. */
#include <string.h>
#include <strings.h>
#include "access/iscsi/iscsi_int.h"

/* ---- lookups ---- */

struct iscsi_node *iscsi_node_find(struct iscsi_target *t, const char *iqn)
{
    LIST_FOREACH (n, &t->nodes, struct iscsi_node, link) {
        if (strcasecmp(n->iqn, iqn) == 0)
            return n;
    }
    return NULL;
}

bool iscsi_node_allows(const struct iscsi_node *n, const char *initiator)
{
    for (size_t i = 0; i < n->n_initiators; i++) {
        if (strcasecmp(n->initiators[i], initiator) == 0)
            return true;
    }
    return n->n_initiators == 0;
}

/* ---- units ---- */

/* The back end of the unit's volume, and its reservations. */
static co_fn int lun_try(struct iscsi_lun *lun, struct block_backend **ret, struct pr_unit **ret_pr)
{
    const struct iscsi_conf *conf = &lun->t->conf;
    int rc = conf->open(conf->arg, lun->volume_id, ret);

    *ret_pr = NULL;
    if (rc < 0 || !conf->reservations)
        return rc;
    rc = pr_unit_get(&lun->t->reservations, lun->volume_id, ret_pr);
    if (rc < 0)
        (*ret)->ops->close(*ret);
    return rc;
}

/* Opens the back end, again every second until it succeeds. NULL: the unit was removed first. */
static co_fn struct block_backend *lun_open(struct iscsi_lun *lun, struct pr_unit **ret_pr)
{
    bool said = false;

    while (!lun->gone.set) {
        struct block_backend *b;
        int rc = lun_try(lun, &b, ret_pr);

        if (rc == 0)
            return b;
        if (!said)
            log_warn("iscsi.lun", "target=%s lun=%u volume=%llu why=\"%s\"", lun->node->iqn,
                     lun->scsi->number, (unsigned long long)lun->volume_id, err_text(rc));
        said = true;
        co_event_set(&lun->tried, 0);
        nsec_t former = co_deadline_push(co_now() + NSEC_PER_SEC);
        (void)co_event_wait(&lun->gone);
        co_deadline_restore(former);
    }
    return NULL;
}

static co_fn int lun_main(void *arg)
{
    struct iscsi_lun *lun = arg;
    struct pr_unit *pr = NULL;
    struct block_backend *b = lun_open(lun, &pr);

    if (b != NULL)
        scsi_lun_attach(lun->scsi, b, pr);
    co_event_set(&lun->tried, 0);
    co_event_wait_always(&lun->gone);
    scsi_lun_remove(lun->scsi);
    co_wg_done(&lun->node->users);
    mem_free(lun);
    return 0;
}

struct iscsi_lun *iscsi_lun_find(struct iscsi_node *n, uint32_t number)
{
    LIST_FOREACH (lun, &n->luns, struct iscsi_lun, link) {
        if (lun->scsi->number == number)
            return lun;
    }
    return NULL;
}

static void lun_add(struct iscsi_node *n, uint32_t number, uint64_t volume_id)
{
    struct iscsi_lun *lun = MEM_NEW(struct iscsi_lun);

    lun->t = n->t;
    lun->node = n;
    lun->volume_id = volume_id;
    co_event_init(&lun->tried);
    co_event_init(&lun->gone);
    lun->scsi = scsi_lun_add(&n->scsi, (uint16_t)number);
    list_push_back(&n->luns, &lun->link);
    co_wg_add(&n->users, 1);
    co_spawn_detached_deadline(&n->t->group, "iscsi-lun", lun_main, lun);
}

static void lun_remove(struct iscsi_lun *lun)
{
    list_del(&lun->link);
    scsi_lun_unlink(lun->scsi);
    co_event_set(&lun->gone, 0);
}

static bool target_has_lun(const Zbs__Meta__Target *def, uint32_t number, uint64_t volume_id)
{
    for (size_t i = 0; i < def->n_luns; i++) {
        if (def->luns[i]->lun == number && def->luns[i]->volume_id == volume_id)
            return true;
    }
    return false;
}

static void node_update_luns(struct iscsi_node *n, const Zbs__Meta__Target *def)
{
    LIST_FOREACH_SAFE (lun, &n->luns, struct iscsi_lun, link) {
        if (!target_has_lun(def, lun->scsi->number, lun->volume_id))
            lun_remove(lun);
    }
    for (size_t i = 0; i < def->n_luns; i++) {
        const Zbs__Meta__Lun *l = def->luns[i];

        if (l->lun >= SCSI_LUNS_MAX) {
            log_error("iscsi.lun", "target=%s lun=%u why=\"numbers go to %u\"", n->iqn, l->lun,
                      SCSI_LUNS_MAX - 1);
            continue;
        }
        if (iscsi_lun_find(n, l->lun) == NULL)
            lun_add(n, l->lun, l->volume_id);
    }
}

/* ---- targets ---- */

static void node_free_access(struct iscsi_node *n)
{
    for (size_t i = 0; i < n->n_initiators; i++)
        mem_free(n->initiators[i]);
    mem_free(n->initiators);
    if (n->chap_secret != NULL)
        explicit_bzero(n->chap_secret, strlen(n->chap_secret));
    mem_free(n->chap_secret);
    mem_free(n->chap_user);
}

/* Who may log in. A session that is no longer allowed ends. */
static void node_update_access(struct iscsi_node *n, const Zbs__Meta__Target *def)
{
    node_free_access(n);
    n->chap_user = mem_strdup(def->chap_user);
    n->chap_secret = mem_strdup(def->chap_secret);
    n->n_initiators = def->n_initiators;
    n->initiators = MEM_NEW_ARRAY(char *, MAX(def->n_initiators, 1u));
    for (size_t i = 0; i < def->n_initiators; i++)
        n->initiators[i] = mem_strdup(def->initiators[i]);
    LIST_FOREACH (s, &n->sessions, struct iscsi_session, link) {
        if (!iscsi_node_allows(n, s->initiator))
            session_break(s, "the initiator is not on the target's list any more");
    }
}

static struct iscsi_node *node_new(struct iscsi_target *t, const char *iqn)
{
    struct iscsi_node *n = MEM_NEW(struct iscsi_node);

    n->t = t;
    strcpy(n->iqn, iqn);
    scsi_target_init(&n->scsi, iqn);
    scsi_target_set_ports(&n->scsi, t->ports);
    list_init(&n->luns);
    list_init(&n->sessions);
    co_wg_init(&n->users);
    list_push_back(&t->nodes, &n->link);
    return n;
}

static co_fn int node_reap_main(void *arg)
{
    struct iscsi_node *n = arg;

    co_wg_wait(&n->users);
    scsi_target_fini(&n->scsi);
    node_free_access(n);
    mem_free(n);
    return 0;
}

static void node_remove(struct iscsi_node *n)
{
    list_del(&n->link);
    n->removed = true;
    LIST_FOREACH_SAFE (lun, &n->luns, struct iscsi_lun, link)
        lun_remove(lun);
    LIST_FOREACH (s, &n->sessions, struct iscsi_session, link)
        session_break(s, "the target was removed");
    co_spawn_detached_deadline(&n->t->group, "iscsi-reap", node_reap_main, n);
}

void iscsi_target_exports_update(struct iscsi_target *t, const Zbs__Meta__ExportsGetReply *exports)
{
    LIST_FOREACH (n, &t->nodes, struct iscsi_node, link)
        n->marked = false;
    for (size_t i = 0; i < exports->n_targets; i++) {
        const Zbs__Meta__Target *def = exports->targets[i];
        size_t len = strlen(def->iqn);
        struct iscsi_node *n;

        if (len == 0 || len > ISCSI_NAME_MAX) {
            log_error("iscsi.target", "name=\"%.64s\" why=\"not an iSCSI name\"", def->iqn);
            continue;
        }
        n = iscsi_node_find(t, def->iqn);
        if (n == NULL)
            n = node_new(t, def->iqn);
        n->marked = true;
        node_update_access(n, def);
        node_update_luns(n, def);
    }
    LIST_FOREACH_SAFE (n, &t->nodes, struct iscsi_node, link) {
        if (!n->marked)
            node_remove(n);
    }
}
