/* SPDX-License-Identifier: Apache-2.0
 *
 * A meta server's life: configuration, store, RPC, and the change between standby and leader. */
#include "meta/server.h"

#include <inttypes.h>
#include <string.h>
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/name.h"
#include "common/env/env.h"
#include "meta/check.h"
#include "meta/codec.h"
#include "meta/lead.h"

#define PAUSE_MAX_MS 3000u /* PROTOCOL 12: of I/O, for any one failure */

/* ---- sizes of log entries ---- */

void log_sizes_add(struct log_sizes *l, uint64_t index, size_t bytes)
{
    if (l->count > 0 && index < l->first + l->count)
        return; /* known */
    if (l->count == 0 || index > l->first + l->count) {
        l->count = 0;
        l->sum = 0;
        l->first = index;
    }
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 1024 : l->cap * 2;
        l->sizes = mem_realloc(l->sizes, l->cap * sizeof(*l->sizes));
    }
    l->sizes[l->count++] = (uint32_t)bytes;
    l->sum += bytes;
}

void log_sizes_trim(struct log_sizes *l, uint64_t below)
{
    uint32_t n = below > l->first ? (uint32_t)MIN(below - l->first, (uint64_t)l->count) : 0;

    for (uint32_t i = 0; i < n; i++)
        l->sum -= l->sizes[i];
    l->count -= n;
    memmove(l->sizes, l->sizes + n, l->count * sizeof(*l->sizes));
    l->first += n;
}

void log_sizes_fini(struct log_sizes *l)
{
    mem_free(l->sizes);
    *l = (struct log_sizes){0};
}

/* ---- configuration ---- */

static void conf_default(uint32_t *value, uint32_t otherwise)
{
    if (*value == 0)
        *value = otherwise;
}

static int conf_check(struct metad_conf *c)
{
    uint32_t worst;
    int rc = name_check("name", c->name, NAME_BYTES_MAX);

    if (rc == 0)
        rc = check_addr("listen", c->listen);
    if (rc < 0)
        return rc;
    conf_default(&c->zk_session_ms, 1500);
    conf_default(&c->beat_ms, 200);
    conf_default(&c->takeover_ms, 800);
    conf_default(&c->authority_ms, 800);
    conf_default(&c->session_ttl_ms, 1000);
    conf_default(&c->chunk_dead_ms, 1000);
    conf_default(&c->log_keep, 1000);
    if (c->takeover_ms < 3 * c->beat_ms || c->authority_ms < 3 * c->beat_ms)
        return err_set(ERR_INVAL,
                       "takeover_ms %u and authority_ms %u must be at least three times beat_ms %u",
                       c->takeover_ms, c->authority_ms, c->beat_ms);
    worst = c->takeover_ms + c->beat_ms / 2 + c->authority_ms +
            MAX(c->session_ttl_ms, c->chunk_dead_ms);
    if (worst > PAUSE_MAX_MS)
        return err_set(ERR_INVAL,
                       "after the loss of a host I/O could stop for %u ms, more than %u: lower "
                       "takeover_ms %u, authority_ms %u, session_ttl_ms %u or chunk_dead_ms %u",
                       worst, PAUSE_MAX_MS, c->takeover_ms, c->authority_ms, c->session_ttl_ms,
                       c->chunk_dead_ms);
    return 0;
}

/* ---- store ---- */

co_fn int metad_load(struct metad *m)
{
    int rc;

    state_fini(&m->st);
    rc = codec_load(m->kv, &m->st, &m->applied);
    if (rc < 0)
        return err_prefix(rc, "%s", m->conf.data_dir);
    m->loading = false;
    m->entry_term = m->st.term;
    return 0;
}

static co_fn int store_open(struct metad *m)
{
    char *path = mem_printf("%s/kv", m->conf.data_dir);
    char *lock = mem_printf("%s/lock", m->conf.data_dir);
    bool loading = false;
    int rc = env_lock_file(lock);

    if (rc == ERR_BUSY)
        err_set(rc, "%s is in use by another meta server", m->conf.data_dir);
    if (rc == 0)
        rc = kv_open(path, &m->kv);
    mem_free(path);
    mem_free(lock);
    if (rc < 0)
        return rc;
    rc = codec_is_loading(m->kv, &loading);
    if (rc == 0 && loading)
        rc = kv_clear(m->kv); /* it was not loaded to its end; the log or another server has it */
    if (rc == 0)
        rc = metad_load(m);
    if (rc == 0)
        log_info("store.open", "dir=%s applied=%" PRIu64 " mutations=%" PRIu64 " volumes=%u",
                 m->conf.data_dir, m->applied, m->st.next_mutation - 1, m->st.n_volumes);
    return rc;
}

/* ---- life ---- */

void metad_set_ready(struct metad *m)
{
    if (m->is_ready)
        return;
    m->is_ready = true;
    log_info("metad.ready", "listen=%s", m->conf.listen);
    if (m->conf.ready != NULL)
        m->conf.ready(m->conf.ready_arg, m->conf.listen);
}

static co_fn int rpc_start(struct metad *m)
{
    struct rpc_service *s = m->services;
    struct rpc_server_conf conf = {
        .addr = m->conf.listen,
        .self = m->conf.name,
        .cluster_id = "",
        .incarnation = env_random(),
        .services = m->instances,
    };

    s[0] = (struct rpc_service){
        .descriptor = &zbs__meta__meta__descriptor, .methods = svc_meta_methods, .ctx = m};
    s[1] = (struct rpc_service){
        .descriptor = &zbs__meta__meta_peer__descriptor, .methods = svc_peer_methods, .ctx = m};
    m->instances[0] = s;

    return rpc_server_start(&conf, &m->rpc);
}

static co_fn void metad_roles(struct metad *m)
{
    struct zk_term term;
    nsec_t since;

    while (!co_canceled()) {
        if (follow_run(m, &term, &since) == 0)
            lead_run(m, &term, since);
    }
}

static co_fn void metad_close(struct metad *m)
{
    struct co_shield shield;

    co_shield_begin(&shield);
    if (m->rpc != NULL)
        rpc_server_stop(m->rpc);
    if (m->snapshots != NULL)
        snapshots_close(m->snapshots);
    peers_close(m);
    zk_close(m);
    if (m->kv != NULL)
        kv_close(m->kv);
    state_fini(&m->st);
    log_sizes_fini(&m->log_sizes);
    co_shield_end(&shield);
}

co_fn int metad_main(const struct metad_conf *conf)
{
    struct metad *m = MEM_NEW(struct metad);
    int rc;

    m->conf = *conf;
    state_init(&m->st);
    co_cond_init(&m->changed);
    rc = conf_check(&m->conf);
    if (rc == 0)
        rc = store_open(m);
    if (rc == 0)
        rc = peers_init(m);
    if (rc == 0) {
        m->snapshots = snapshots_new();
        rc = rpc_start(m);
    }
    if (rc == 0) {
        log_info("metad.start", "name=%s listen=%s peers=%s", m->conf.name, m->conf.listen,
                 m->conf.peers);
        metad_roles(m);
    }
    metad_close(m);
    mem_free(m);
    return rc;
}
