/* SPDX-License-Identifier: Apache-2.0
 *
 * An iSCSI target in the simulator: see iscsiworld.h. */
#include "tests/lib/iscsiworld.h"

#include <string.h>
#include "common/base/assert.h"
#include "tests/lib/frontworld.h"

static co_fn int open_backend(void *arg, uint64_t volume_id, struct block_backend **ret)
{
    struct iscsiworld *w = arg;

    ASSERT(volume_id < IW_VOLUMES);
    if (w->open_takes > 0)
        (void)co_sleep(w->open_takes);
    if (w->opens_to_fail > 0) {
        w->opens_to_fail--;
        return err_set(ERR_AGAIN, "not yet");
    }
    *ret = w->backends[volume_id] = block_backend_mem_new(volume_id, IW_SIZE);
    return 0;
}

void iscsiworld_export(struct iscsiworld *w, bool without_second_lun)
{
    static char iqn[] = IW_IQN, iqn_chap[] = IW_IQN_CHAP, alice[] = "alice",
                secret[] = "secretsecret12", ini[] = IW_INI;
    Zbs__Meta__Lun luns[3], *one[2] = {&luns[0], &luns[1]}, *two[1] = {&luns[2]};
    Zbs__Meta__Target targets[2], *target_ptrs[2] = {&targets[0], &targets[1]};
    static const struct iscsi_portal portals[] = {{.addr = FRONT_HOST ":3260"},
                                                  {.addr = IW_SECOND_PORTAL}};
    Zbs__Meta__ExportsGetReply exports = ZBS__META__EXPORTS_GET_REPLY__INIT;
    char *initiators[1] = {ini};

    for (int i = 0; i < 3; i++)
        zbs__meta__lun__init(&luns[i]);
    luns[1].lun = 1;
    for (uint32_t i = 0; i < 3; i++)
        luns[i].volume_id = i + 1;
    for (int i = 0; i < 2; i++)
        zbs__meta__target__init(&targets[i]);
    targets[0].iqn = iqn;
    targets[0].luns = one;
    targets[0].n_luns = without_second_lun ? 1 : 2;
    targets[1].iqn = iqn_chap;
    targets[1].luns = two;
    targets[1].n_luns = 1;
    targets[1].chap_user = alice;
    targets[1].chap_secret = secret;
    targets[1].initiators = initiators;
    targets[1].n_initiators = 1;
    exports.targets = target_ptrs;
    exports.n_targets = 2;
    iscsi_target_portals_update(w->target, portals, ARRAY_SIZE(portals));
    iscsi_target_exports_update(w->target, &exports);
}

void iscsiworld_export_nothing(struct iscsiworld *w)
{
    Zbs__Meta__ExportsGetReply exports = ZBS__META__EXPORTS_GET_REPLY__INIT;

    iscsi_target_exports_update(w->target, &exports);
}

static co_fn int world_main(void *arg)
{
    struct iscsiworld *w = arg;

    w->conf.listen = FRONT_HOST ":3260";
    w->conf.open = open_backend;
    w->conf.arg = w;
    int rc = iscsi_target_start(&w->conf, &w->target);
    ASSERT(rc == 0);
    w->addr = iscsi_target_addr(w->target);
    iscsiworld_export(w, false);
    ASSERT(co_sleep(NSEC_PER_MSEC) == 0); /* units open */
    w->body(w);
    if (w->target != NULL)
        iscsi_target_stop(w->target);
    return 0;
}

void iscsiworld_run(struct iscsiworld *w)
{
    frontworld_run(w->seed, world_main, w);
}
