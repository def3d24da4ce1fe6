/* SPDX-License-Identifier: Apache-2.0
 *
 * A state with servers on four hosts, a pool and a volume; decisions are applied to it. */
#ifndef ZBS_TESTS_UNIT_META_DECIDE_RIG_H
#define ZBS_TESTS_UNIT_META_DECIDE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/base/units.h"
#include "meta/apply.h"
#include "meta/decide.h"

#define HOSTS 4u

struct fixture {
    struct state st;
    struct world w;
    struct pad pad;
    struct place_chunk chunks[16];
    uint64_t volume_id, sessions[HOSTS];
};

UNUSED static int act(struct fixture *f, decide_fn fn, ProtobufCMessage *rq)
{
    struct decide d = {.st = &f->st, .w = &f->w, .rq = rq, .pad = &f->pad};
    Zbs__Metalog__Record *r = NULL;
    struct packed reply;
    int rc = fn(&d, &r);

    if (rc == 0 && r != NULL)
        assert_int_equal(apply_record(&f->st, r, NULL, &f->pad, &reply), 0);
    return rc;
}

UNUSED static void add_chunk(struct fixture *f, uint32_t i, const char *host, const char *rack)
{
    Zbs__Meta__ChunkRegisterRequest rq = ZBS__META__CHUNK_REGISTER_REQUEST__INIT;
    uint8_t uuid[16] = {(uint8_t)(i + 1)};
    struct chunk *c;

    rq.uuid = (ProtobufCBinaryData){.data = uuid, .len = 16};
    rq.addr = pad_printf(&f->pad, "127.0.0.1:%u", 7200 + i);
    rq.host = (char *)host;
    rq.rack = (char *)rack;
    rq.workers = 1;
    assert_int_equal(act(f, decide_chunk_register, &rq.base), 0);
    c = state_chunk_by_uuid(&f->st, uuid);
    f->chunks[f->w.n_chunks++] = (struct place_chunk){.id = c->id,
                                                      .host = c->host,
                                                      .rack = c->rack,
                                                      .zone = c->zone,
                                                      .free_bytes = 100 * GIB,
                                                      .alive = true,
                                                      .heard = true};
}

UNUSED static uint64_t add_session(struct fixture *f, const char *name, const char *host)
{
    Zbs__Meta__SessionOpenRequest rq = ZBS__META__SESSION_OPEN_REQUEST__INIT;

    rq.name = (char *)name;
    rq.host = (char *)host;
    rq.addr = (char *)"127.0.0.1:7300";
    rq.incarnation = f->st.next_mutation;
    assert_int_equal(act(f, decide_session_open, &rq.base), 0);
    return state_session_by_name(&f->st, name)->id;
}

UNUSED static int add_pool(struct fixture *f, const char *name, uint32_t replicas, uint32_t min)
{
    Zbs__Meta__PoolCreateRequest rq = ZBS__META__POOL_CREATE_REQUEST__INIT;

    rq.name = (char *)name;
    rq.replicas = replicas;
    rq.min_replicas = min;
    return act(f, decide_pool_create, &rq.base);
}

UNUSED static int add_volume(struct fixture *f, const char *pool, const char *name,
                             uint64_t size_bytes)
{
    Zbs__Meta__VolumeCreateRequest rq = ZBS__META__VOLUME_CREATE_REQUEST__INIT;

    rq.pool = (char *)pool;
    rq.name = (char *)name;
    rq.size_bytes = size_bytes;
    return act(f, decide_volume_create, &rq.base);
}

UNUSED static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    state_init(&f->st);
    pad_init(&f->pad);
    f->w = (struct world){.chunks = f->chunks, .session_ttl_ms = 1000, .random = 7};
    for (uint32_t i = 0; i < HOSTS; i++) {
        char *host = pad_printf(&f->pad, "host-%u", i);

        add_chunk(f, i, host, i < 2 ? "left" : "right");
        f->sessions[i] = add_session(f, pad_printf(&f->pad, "access-%u", i), host);
    }
    assert_int_equal(add_pool(f, "p", 3, 0), 0);
    assert_int_equal(add_volume(f, "p", "v", 64 * GIB), 0);
    f->volume_id = pool_volume(state_pool(&f->st, "p"), "v")->id;
    *state = f;
    return 0;
}

UNUSED static int tear_down(void **state)
{
    struct fixture *f = *state;

    state_fini(&f->st);
    pad_fini(&f->pad);
    free(f);
    return 0;
}

UNUSED static int acquire(struct fixture *f, uint64_t session, uint32_t first, uint32_t count,
                          bool allocate, bool new_epoch)
{
    Zbs__Meta__LeaseAcquireRequest rq = ZBS__META__LEASE_ACQUIRE_REQUEST__INIT;

    rq.session_id = session;
    rq.volume_id = f->volume_id;
    rq.first_slot = first;
    rq.count = count;
    rq.allocate = allocate;
    rq.new_epoch = new_epoch;
    return act(f, decide_lease_acquire, &rq.base);
}

UNUSED static struct slot *slot_at(struct fixture *f, uint32_t number)
{
    return volume_slot(state_volume(&f->st, f->volume_id), number);
}

UNUSED static struct extent *extent_at(struct fixture *f, uint32_t number)
{
    return volume_extent(state_volume(&f->st, f->volume_id), number);
}

struct change {
    uint32_t n_remove, n_add;
    uint32_t remove[SLOT_REPLICAS_MAX], add[SLOT_REPLICAS_MAX];
    int64_t epoch_off, set_off;
};

UNUSED static int change(struct fixture *f, uint64_t session, const struct extent *e,
                         struct change c)
{
    Zbs__Meta__ReplicaChangeRequest rq = ZBS__META__REPLICA_CHANGE_REQUEST__INIT;

    rq.session_id = session;
    rq.volume_id = f->volume_id;
    rq.slot = e->slot;
    rq.extent_id = e->id;
    rq.epoch = e->epoch + (uint64_t)c.epoch_off;
    rq.set_number = e->set_number + (uint64_t)c.set_off;
    rq.remove = c.remove;
    rq.n_remove = c.n_remove;
    rq.add = c.add;
    rq.n_add = c.n_add;
    return act(f, decide_replica_change, &rq.base);
}

#endif
