/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-metad --config FILE. */
#include "common/env/service.h"
#include "meta/metad.h"

#define FIELD(f) .section = "meta", .key = #f, .offset = offsetof(struct metad_conf, f)

static const struct conf_key keys[] = {
    {FIELD(name), .type = CONF_NAME, .min = 1, .max = 63, .example = "meta-1",
     .help = "Name of this meta server, unique among them"},
    {FIELD(listen), .type = CONF_ADDRESS, .min = 1, .example = "10.0.0.1:7100",
     .help = "RPC address, as it stands in peers"},
    {FIELD(data_dir), .type = CONF_PATH, .otherwise = "/var/lib/zbs/meta", .min = 1, .max = 1024,
     .help = "Folder of the metadata store"},
    {FIELD(zookeeper), .type = CONF_ADDRESS_LIST, .min = 1,
     .example = "10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181",
     .help = "ZooKeeper servers, numeric addresses, the same on all meta servers"},
    {FIELD(zk_root), .type = CONF_PATH, .otherwise = "/zbs", .min = 1, .max = 255,
     .help = "Node in ZooKeeper that holds this cluster: clusters can share a ZooKeeper"},
    {FIELD(peers), .type = CONF_ADDRESS_LIST, .otherwise = "",
     .example = "10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100", .usual = true,
     .help = "RPC addresses of all meta servers, this one too; empty: there is only this one"},
    {FIELD(zk_session_ms), .type = CONF_U32, .otherwise = "1500", .min = 400, .max = 60000,
     .help = "How soon a silent ZooKeeper server is given up for another, in milliseconds"},
    {FIELD(beat_ms), .type = CONF_U32, .otherwise = "200", .min = 10, .max = 1000,
     .help = "The leader's heartbeat. This and the times below are the same on all meta servers; "
             "their sum bounds the pause after the loss of a host and may not exceed 3 seconds"},
    {FIELD(takeover_ms), .type = CONF_U32, .otherwise = "800", .min = 30, .max = 3000,
     .help = "Silence of the leader before a standby takes over"},
    {FIELD(authority_ms), .type = CONF_U32, .otherwise = "800", .min = 30, .max = 3000,
     .help = "How long a leader may answer after its last write to ZooKeeper"},
    {FIELD(session_ttl_ms), .type = CONF_U32, .otherwise = "1000", .min = 40, .max = 3000,
     .help = "Silence after which an access server's leases end"},
    {FIELD(chunk_dead_ms), .type = CONF_U32, .otherwise = "1000", .min = 40, .max = 3000,
     .help = "Silence after which a chunk server counts as dead"},
    {FIELD(log_keep), .type = CONF_U32, .otherwise = "1000", .min = 1, .max = 100000,
     .help = "Log entries kept in ZooKeeper beyond what standbys still need"},
};

static co_fn int run(void *arg)
{
    return metad_main(arg);
}

int main(int argc, char **argv)
{
    struct metad_conf conf = {.ready = service_ready};
    struct service service = {
        .name = "zbs-metad",
        .what = "the meta server",
        .keys = keys,
        .key_count = ARRAY_SIZE(keys),
        .settings = &conf,
        .data_dir = (char **)&conf.data_dir,
        .run = run,
        .arg = &conf,
    };

    conf.ready_arg = &service;
    return service_main(&service, argc, argv);
}
