/* SPDX-License-Identifier: Apache-2.0
 *
 * zbs-accessd --config FILE. */
#include "access/accessd.h"
#include "common/env/service.h"

#define FIELD(f) .section = "access", .key = #f, .offset = offsetof(struct accessd_conf, f)

static const char *const nbd_tls_choices[] = {"off", "allowed", "required", NULL}; /* nbd_tls */

static const struct conf_key keys[] = {
    {FIELD(name), .type = CONF_NAME, .min = 1, .max = 63, .example = "access-1",
     .help = "Name of this access server, unique among them"},
    {FIELD(listen), .type = CONF_ADDRESS, .min = 1, .example = "10.0.0.1:7300",
     .help = "RPC address, as the other access servers reach it"},
    {FIELD(data_dir), .type = CONF_PATH, .otherwise = "/var/lib/zbs/access", .min = 1, .max = 1024,
     .help = "Folder of the lock file"},
    {FIELD(meta), .type = CONF_ADDRESS_LIST, .min = 1,
     .example = "10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100",
     .help = "RPC addresses of all meta servers"},
    {FIELD(host), .type = CONF_NAME, .min = 1, .max = 63, .example = "host-1",
     .help = "Name of this host, the same as its chunk server's: reads go to that one first"},
    {FIELD(rack), .type = CONF_NAME, .otherwise = "", .max = 63, .example = "rack-1",
     .help = "Failure domain above the host; empty: none"},
    {FIELD(zone), .type = CONF_NAME, .otherwise = "", .max = 63, .example = "zone-1",
     .help = "Failure domain above the rack; empty: none"},
    {FIELD(iscsi_listen), .type = CONF_ADDRESS, .otherwise = "", .example = "10.0.0.1:3260",
     .usual = true, .help = "iSCSI portal, as initiators reach it; empty: no iSCSI"},
    {FIELD(iscsi_virtual), .type = CONF_ADDRESS, .otherwise = "", .example = "10.0.0.100:3260",
     .help =
         "iSCSI portal at an address that moves between hosts, the same for all access servers, "
         "from which initiators are sent on; empty: none"},
    {FIELD(iscsi_connections), .type = CONF_U32, .otherwise = "256", .min = 1, .max = 65536,
     .help = "iSCSI connections at most"},
    {FIELD(nbd_listen_unix), .type = CONF_ADDRESS_UNIX, .otherwise = "",
     .example = "unix:/run/zbs-access/nbd",
     .help = "Socket for NBD clients of this host (QEMU, libnbd). Whoever may open it reads and "
             "writes every volume of the cluster; empty: none"},
    {FIELD(nbd_listen), .type = CONF_ADDRESS, .otherwise = "", .example = "10.0.0.1:10809",
     .help = "NBD over TCP. Unless nbd_tls is required, with nbd_tls_ca, whoever reaches the "
             "address reads and writes every volume of the cluster; empty: none"},
    {FIELD(nbd_tls), .type = CONF_CHOICE, .otherwise = "off", .choices = nbd_tls_choices,
     .help = "TLS for nbd_listen: off, allowed (clients choose) or required. Certificates are read "
             "at the start: restart the service for new ones"},
    {FIELD(nbd_tls_cert), .type = CONF_PATH, .otherwise = "", .max = 1024,
     .example = "/etc/zbs/tls/server-cert.pem",
     .help = "PEM file with this server's certificate, then those between it and its authority"},
    {FIELD(nbd_tls_key), .type = CONF_PATH, .otherwise = "", .max = 1024,
     .example = "/etc/zbs/tls/server-key.pem",
     .help = "PEM file with its private key, without a password, for the service's user alone"},
    {FIELD(nbd_tls_ca), .type = CONF_PATH, .otherwise = "", .max = 1024,
     .example = "/etc/zbs/tls/ca-cert.pem",
     .help = "PEM file with authorities: TLS clients must show a certificate of one of them; "
             "empty: they need none"},
    {FIELD(nfs_listen), .type = CONF_ADDRESS_LISTEN, .otherwise = "", .example = "10.0.0.1:2049",
     .help = "NFS version 3, over TCP, for the shares, and MOUNT and locks, also over UDP; "
             "0.0.0.0:2049 if clients use an address that keepalived moves; empty: none"},
    {FIELD(portmap_listen), .type = CONF_ADDRESS_LISTEN, .otherwise = "", .example = "10.0.0.1:111",
     .help =
         "Portmapper for NFS clients that ask one for the port (ESXi, and Linux without options "
         "port and mountport). Where rpcbind runs, that has to give way; empty: none"},
    {FIELD(nfs_client_portmap), .type = CONF_U32, .otherwise = "111", .min = 1, .max = 65535,
     .help = "Port at which the portmappers of NFS clients listen: they are asked for the client's "
             "lock manager when a lock is there that it waits for"},
    {FIELD(member_deadline_ms), .type = CONF_U32, .otherwise = "1000", .min = 50, .max = 2000,
     .help = "A replica that does not confirm a write for so long is taken out of service until "
             "it has caught up, in milliseconds"},
};

static co_fn int run(void *arg)
{
    return accessd_main(arg);
}

int main(int argc, char **argv)
{
    struct accessd_conf conf = {.ready = service_ready};
    struct service service = {
        .name = "zbs-accessd",
        .what = "the access server (iSCSI, NBD, NFS)",
        .keys = keys,
        .key_count = ARRAY_SIZE(keys),
        .settings = &conf,
        .data_dir = (char **)&conf.data_dir,
        .arena_bytes = UINT64_C(1) << 30, /* addresses, not memory: that has its own limits */
        .run = run,
        .arg = &conf,
    };

    conf.ready_arg = &service;
    return service_main(&service, argc, argv);
}
