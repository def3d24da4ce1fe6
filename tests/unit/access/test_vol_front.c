/* SPDX-License-Identifier: Apache-2.0
 *
 * The access server as a whole, through its iSCSI portals, in a simulated cluster: exports that
 * are used as soon as they are confirmed, two paths while a server is stopped, and what the status
 * call says of initiators. */
#include "tests/lib/iscsi_ini.h"
#include "tests/unit/access/vol_world.h"

#define IQN    "iqn.2024-01.example:front"
#define INI    "iqn.2024-01.example:initiator"
#define NORMAL "MaxRecvDataSegmentLength=65536\nInitialR2T=No\nImmediateData=Yes\n"

static char portals[HOSTS][32];

static void world_with_portals(struct vworld *w, uint64_t seed)
{
    struct sim_conf conf = {.seed = seed};

    world_init(w, &conf, 512 * MIB);
    for (uint32_t i = 0; i < HOSTS; i++) {
        snprintf(portals[i], sizeof(portals[i]), "127.1.0.%u:3260", i + 1);
        w->nodes[i].access.iscsi_listen = portals[i];
    }
}

static void target_make(struct vworld *w, const char *name)
{
    Zbs__Meta__TargetCreateRequest q = ZBS__META__TARGET_CREATE_REQUEST__INIT;
    Zbs__Meta__Target t = ZBS__META__TARGET__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char *iqn = mem_strdup(name);
    struct rpc_reply r;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.target = &t;
    t.iqn = iqn;
    CHECK(meta_ask(w, META_TARGET_CREATE, &q.base, &r) == 0);
    rpc_reply_free(&r);
    mem_free(iqn);
}

static void lun_make(struct vworld *w, const char *name, uint32_t lun)
{
    Zbs__Meta__LunAddRequest q = ZBS__META__LUN_ADD_REQUEST__INIT;
    Zbs__Meta__Mutation m = ZBS__META__MUTATION__INIT;
    char *iqn = mem_strdup(name), pool[] = "pool", volume[] = "volume";
    struct rpc_reply r;

    meta_client_mutation(w->mc, &m);
    q.mutation = &m;
    q.iqn = iqn;
    q.pool = pool;
    q.volume = volume;
    q.lun = lun;
    CHECK(meta_ask(w, META_LUN_ADD, &q.base, &r) == 0);
    rpc_reply_free(&r);
    mem_free(iqn);
}

static void world_prepare(struct vworld *w)
{
    wait_ready(w);
    CHECK(volume_make(w, 3, 256 * MIB) == 0);
    (void)co_sleep(MSEC(500)); /* two renewals: all have heard of all portals */
}

static void login(struct ini *i, uint32_t node, const char *initiator, const char *iqn)
{
    ini_connect(i, portals[node]);
    CHECK(ini_login(i, initiator, iqn, NORMAL) == 0);
    ini_clear_attentions(i);
}

/* Which path is the short one changes with the access servers that there are; whoever is told so
 * repeats his command. */
static bool told_of_paths(const struct ini_result *r)
{
    return r->key == 0x6 && r->asc == 0x2a && r->ascq == 0x06;
}

static void write_byte(struct ini *i, uint32_t lba, uint8_t value)
{
    uint8_t data[4096];
    struct ini_result r;

    memset(data, value, sizeof(data));
    do {
        r = ini_write(i, lba, data, sizeof(data));
    } while (told_of_paths(&r));
    CHECK(r.status == 0);
}

static uint8_t read_byte(struct ini *i, uint32_t lba)
{
    uint8_t data[4096];
    struct ini_result r;

    do {
        r = ini_read(i, lba, data, sizeof(data));
    } while (told_of_paths(&r));
    CHECK(r.status == 0);
    for (uint32_t k = 1; k < sizeof(data); k++)
        CHECK(data[k] == data[0]);
    return data[0];
}

/* ---- exports ---- */

static int script_exports(struct vworld *w)
{
    struct ini i[HOSTS];

    world_prepare(w);
    for (uint32_t round = 0; round < 5; round++) {
        char iqn[64];

        snprintf(iqn, sizeof(iqn), IQN "-%u", round);
        target_make(w, iqn);
        lun_make(w, iqn, 0);
        for (uint32_t n = 0; n < HOSTS; n++) {
            login(&i[n], n, INI, iqn);
            write_byte(&i[n], 8 * n, (uint8_t)(10 * round + n + 1));
        }
        /* one more unit while they are logged in */
        lun_make(w, iqn, 1);
        for (uint32_t n = 0; n < HOSTS; n++) {
            i[n].lun = 1;
            ini_clear_attentions(&i[n]);
            CHECK(read_byte(&i[n], 8 * n) == 10 * round + n + 1);
            ini_close(&i[n]);
        }
    }
    return 0;
}

static void exports_are_there_once_confirmed(void **state)
{
    struct vworld w;

    (void)state;
    world_with_portals(&w, 11);
    world_run(&w, script_exports, SEC(120));
    world_fini(&w);
}

/* ---- status ---- */

static int script_status(struct vworld *w)
{
    Zbs__Access__StatusRequest q = ZBS__ACCESS__STATUS_REQUEST__INIT;
    struct rpc_client *c = rpc_client_new(&(struct rpc_client_conf){
        .addr = w->nodes[1].listen[ACCESS], .self = "script", .cluster_id = ""});
    struct rpc_reply r;
    struct ini a, b;

    world_prepare(w);
    target_make(w, IQN);
    lun_make(w, IQN, 0);
    login(&a, 1, INI "-a", IQN);
    login(&b, 1, INI "-b", IQN);
    for (uint32_t k = 0; k < 3; k++)
        write_byte(&a, 8 * k, 1);
    (void)read_byte(&b, 0);
    rpc_reply_init(&r);
    CHECK(rpc_call(c, &zbs__access__access__descriptor, 1, &q.base, NULL, &r) == 0);
    const Zbs__Access__StatusReply *s = (const Zbs__Access__StatusReply *)r.msg;
    CHECK(s->session_id != 0 && s->longest_write_ns > 0 && s->n_initiators == 2);
    for (size_t k = 0; k < 2; k++) {
        const Zbs__Access__InitiatorSession *v = s->initiators[k];
        bool writer = strcmp(v->initiator, INI "-a") == 0;

        CHECK(writer || strcmp(v->initiator, INI "-b") == 0);
        CHECK(strcmp(v->target, IQN) == 0);
        CHECK(strncmp(v->address, CONTROL ":", sizeof(CONTROL)) == 0);
        CHECK(v->writes == (writer ? 3 : 0) && v->write_bytes == (writer ? 3 * 4096 : 0));
        CHECK(v->reads == (writer ? 0 : 1) && v->read_bytes == (writer ? 0 : 4096));
    }
    rpc_reply_free(&r);
    rpc_client_close(c);
    ini_close(&a);
    ini_close(&b);
    return 0;
}

static void status_counts_what_initiators_did(void **state)
{
    struct vworld w;

    (void)state;
    world_with_portals(&w, 12);
    world_run(&w, script_status, SEC(120));
    world_fini(&w);
}

/* ---- two paths ---- */

static void send_write(struct ini *i, uint32_t lba, uint8_t value)
{
    uint8_t cdb[10] = {0x2a, [8] = 8}, bhs[BHS_BYTES], data[4096];

    put_be32(cdb + 2, lba);
    memset(data, value, sizeof(data));
    ini_cmd_bhs(i, bhs, FLAG_FINAL | FLAG_WRITE, cdb, 10, sizeof(data));
    CHECK(ini_send(i, bhs, data, sizeof(data)) == 0);
}

/* A server is stopped with writes in its socket. The initiator repeats them over another path and
 * writes newer data; when the server goes on, it must not execute what it finds. Half of the
 * writes are to extents that the stopped server owned, half to those of another. */
static int script_stopped(struct vworld *w)
{
    struct ini one, two;
    struct ini_pdu p;

    world_prepare(w);
    target_make(w, IQN);
    lun_make(w, IQN, 0);
    login(&one, 0, INI, IQN);
    login(&two, 1, INI, IQN);
    for (uint32_t round = 0; round < 6; round++) {
        uint8_t base = (uint8_t)(1 + 10 * round);
        nsec_t pause = round < 3 ? SEC(5) : MSEC(900) + MSEC(100) * (nsec_t)round;

        for (uint32_t k = 0; k < 8; k++) /* stripes of 256 KiB: several slots */
            write_byte(k % 2 ? &one : &two, 512 * k, base);
        sim_proc_pause(w->nodes[0].procs[ACCESS]);
        for (uint32_t k = 0; k < 8; k++)
            send_write(&one, 512 * k, (uint8_t)(base + 1));
        (void)co_sleep(pause);
        for (uint32_t k = 0; k < 8; k++)
            write_byte(&two, 512 * k, (uint8_t)(base + 1));
        for (uint32_t k = 0; k < 8; k++)
            write_byte(&two, 512 * k, (uint8_t)(base + 2));
        sim_proc_resume(w->nodes[0].procs[ACCESS]);
        CHECK(ini_recv(&one, &p) == ERR_CLOSED); /* and no answer before */
        ini_close(&one);
        (void)co_sleep(SEC(3));
        login(&one, 0, INI, IQN);
        for (uint32_t k = 0; k < 8; k++) {
            CHECK(read_byte(&two, 512 * k) == base + 2);
            CHECK(read_byte(&one, 512 * k) == base + 2);
        }
    }
    ini_close(&one);
    ini_close(&two);
    return 0;
}

static void a_stopped_server_forgets_what_it_was_asked(void **state)
{
    struct vworld w;

    (void)state;
    for (uint64_t seed = 21; seed < 26; seed++) {
        world_with_portals(&w, seed);
        world_run(&w, script_stopped, SEC(300));
        world_fini(&w);
    }
}

/* Writes go on when meta comes back, on the same connection: a late renewal is no expired one. */
static int script_no_meta(struct vworld *w)
{
    struct ini i;

    world_prepare(w);
    target_make(w, IQN);
    lun_make(w, IQN, 0);
    login(&i, 0, INI, IQN);
    write_byte(&i, 0, 1);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t n = 0; n < HOSTS; n++)
            sim_proc_pause(w->nodes[n].procs[META]);
        (void)co_sleep(SEC(2));
        CHECK(read_byte(&i, 0) == round + 1);
        send_write(&i, 0, (uint8_t)(round + 2));
        (void)co_sleep(SEC(1));
        for (uint32_t n = 0; n < HOSTS; n++)
            sim_proc_resume(w->nodes[n].procs[META]);
        struct ini_pdu p;
        ini_expect(&i, OP_SCSI_RESPONSE, &p);
        CHECK(p.bhs[3] == 0);
        ini_pdu_free(&p);
        CHECK(read_byte(&i, 0) == round + 2);
    }
    ini_close(&i);
    return 0;
}

static void a_late_renewal_only_delays(void **state)
{
    struct vworld w;

    (void)state;
    world_with_portals(&w, 31);
    world_run(&w, script_no_meta, SEC(120));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exports_are_there_once_confirmed),
        cmocka_unit_test(status_counts_what_initiators_did),
        cmocka_unit_test(a_stopped_server_forgets_what_it_was_asked),
        cmocka_unit_test(a_late_renewal_only_delays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
