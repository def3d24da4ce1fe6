/* SPDX-License-Identifier: Apache-2.0
 *
 * INQUIRY: standard data and vital product data pages. */
#include <stdio.h>
#include <string.h>
#include "access/scsi/scsi_int.h"

#define VENDOR   "ZBS     "
#define PRODUCT  "VOLUME          "
#define REVISION "0001"

/* A company id with the "locally administered" bit: we own no registered one. The unit is told
 * apart by the 100 bits of the volume's uuid that follow. */
#define NAA_COMPANY 0x025a42u

/* TPGS: asymmetric access, by itself and by SET TARGET PORT GROUPS */
enum { TPGS_IMPLICIT = 0x10, TPGS_EXPLICIT = 0x20 };

#define QUALIFIER_NO_UNIT 0x7f /* no unit can be here, unknown type */

static void uuid_hex(const uint8_t uuid[16], char dst[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(dst + 2 * i, 3, "%02x", uuid[i]);
}

static uint32_t inquiry_standard(struct scsi_cmd *c, uint8_t *p)
{
    static const uint16_t versions[] = {0x0080 /* SAM-4 */, 0x0460 /* SPC-4 */, 0x04c0 /* SBC-3 */,
                                        0x0960 /* iSCSI */};

    if (c->lun == NULL)
        p[0] = QUALIFIER_NO_UNIT;
    p[2] = 0x06; /* SPC-4 */
    p[3] = 0x12; /* HISUP, response data format 2 */
    p[4] = 96 - 5;
    p[5] = 0x08 | TPGS_IMPLICIT; /* 3PC: EXTENDED COPY */
    if (c->lun != NULL && (c->lun->pr != NULL || c->lun->backend == NULL))
        p[5] |= TPGS_EXPLICIT;
    p[6] = 0x10; /* MULTIP */
    p[7] = 0x02; /* CMDQUE */
    memcpy(p + 8, VENDOR, 8);
    memcpy(p + 16, PRODUCT, 16);
    memcpy(p + 32, REVISION, 4);
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
        put_be16(p + 58 + 2 * i, versions[i]);
    return 96;
}

/* ---- vital product data; each returns the number of bytes after the 4-byte header ---- */

static uint32_t vpd_serial(struct scsi_cmd *c, uint8_t *p)
{
    char hex[33];

    uuid_hex(c->lun->info.uuid, hex);
    memcpy(p, hex, 32);
    return 32;
}

/* Puts one designator: code set, association and type, then the bytes; returns what follows. */
static uint8_t *designator(uint8_t *p, uint8_t code_set, uint8_t assoc_type, const void *bytes,
                           uint8_t len)
{
    p[0] = code_set;
    p[1] = assoc_type;
    p[3] = len;
    memcpy(p + 4, bytes, len);
    return p + 4 + len;
}

/* A SCSI name string is padded with NULs to a multiple of four. */
static uint8_t *designator_name(uint8_t *p, uint8_t assoc_type, const char *name)
{
    char padded[256] = {0};
    size_t len = strnlen(name, 244);

    memcpy(padded, name, len);
    return designator(p, 3, assoc_type, padded, (uint8_t)ROUND_UP(len + 1, 4));
}

/* NAA 6h: 4 bits of type, 24 of company, 100 of ours */
void scsi_lun_naa(const struct scsi_lun *lun, uint8_t naa[SCSI_NAA_BYTES])
{
    const uint8_t *uuid = lun->info.uuid;

    naa[0] = (uint8_t)(0x60 | NAA_COMPANY >> 20);
    naa[1] = (uint8_t)(NAA_COMPANY >> 12);
    naa[2] = (uint8_t)(NAA_COMPANY >> 4);
    naa[3] = (uint8_t)((NAA_COMPANY & 0xf) << 4 | uuid[12] >> 4);
    memcpy(naa + 4, uuid, 12);
}

static uint32_t vpd_identification(struct scsi_cmd *c, uint8_t *start)
{
    const uint8_t *uuid = c->lun->info.uuid;
    uint8_t *p = start, naa[SCSI_NAA_BYTES], port[4] = {0};
    char text[8 + 33], name[256];

    scsi_lun_naa(c->lun, naa);
    p = designator(p, 1, 0x03, naa, sizeof(naa));

    memcpy(text, VENDOR, 8);
    uuid_hex(uuid, text + 8);
    p = designator(p, 2, 0x01, text, 40); /* T10 vendor identification */

    put_be16(port + 2, c->nexus->port);
    p = designator(p, 1, 0x94, port, 4); /* relative target port (iSCSI) */
    p = designator(p, 1, 0x95, port, 4); /* target port group */
    snprintf(name, sizeof(name), "%.230s,t,0x%04x", c->nexus->target->name, c->nexus->port);
    p = designator_name(p, 0x98, name);                   /* target port */
    p = designator_name(p, 0xa8, c->nexus->target->name); /* target device */
    /* protocol identifier 5 (iSCSI) where PIV is set */
    for (uint8_t *d = start; d < p; d += 4 + d[3]) {
        if (d[1] & 0x80)
            d[0] |= 0x50;
    }
    return (uint32_t)(p - start);
}

static uint32_t vpd_extended(struct scsi_cmd *c, uint8_t *p)
{
    (void)c;
    p[1] = 0x07; /* HEADSUP, ORDSUP, SIMPSUP */
    p[3] = 0x01; /* LUICLR: unit attentions are cleared per nexus */
    return 60;
}

static uint32_t vpd_block_limits(struct scsi_cmd *c, uint8_t *page)
{
    uint8_t *p = page - 4; /* offsets below are the standard's */

    (void)c;
    p[5] = 1; /* COMPARE AND WRITE: one block */
    put_be16(p + 6, SCSI_BLOCKS_PER_PHYS);
    put_be32(p + 8, SCSI_TRANSFER_BLOCKS_MAX);
    put_be32(p + 12, SCSI_TRANSFER_BLOCKS_OPTIMAL);
    put_be32(p + 20, SCSI_UNMAP_BLOCKS_MAX);
    put_be32(p + 24, SCSI_UNMAP_DESCRIPTORS_MAX);
    put_be32(p + 28, 512);         /* optimal UNMAP granularity: a 256 KiB block is freed */
    put_be32(p + 32, 0x80000000u); /* its alignment, valid: 0 */
    put_be64(p + 36, SCSI_WRITE_SAME_BLOCKS_MAX);
    return 60;
}

static uint32_t vpd_characteristics(struct scsi_cmd *c, uint8_t *p)
{
    (void)c;
    put_be16(p, 1); /* does not rotate */
    return 60;
}

static uint32_t vpd_provisioning(struct scsi_cmd *c, uint8_t *p)
{
    (void)c;
    p[0] = SCSI_THRESHOLD_EXPONENT;
    p[1] = 0x80 | 0x40 | 0x20 | 0x04; /* LBPU, LBPWS, LBPWS10, LBPRZ */
    p[2] = 2;                         /* thin */
    return 4;
}

static const struct {
    uint8_t code;
    uint32_t (*fill)(struct scsi_cmd *c, uint8_t *p);
} vpd_pages[] = {
    {0x00, NULL},
    {0x80, vpd_serial},
    {0x83, vpd_identification},
    {0x86, vpd_extended},
    {0xb0, vpd_block_limits},
    {0xb1, vpd_characteristics},
    {0xb2, vpd_provisioning},
};

static void inquiry_vpd(struct scsi_cmd *c)
{
    struct buf *b;
    uint32_t len = 0;
    size_t i = 0;

    while (i < ARRAY_SIZE(vpd_pages) && vpd_pages[i].code != c->cdb[2])
        i++;
    if (i == ARRAY_SIZE(vpd_pages) || (c->lun == NULL && i > 0)) {
        sense_invalid_cdb_field(c, 2, 8);
        return;
    }
    if (c->lun != NULL && c->lun->backend == NULL && (c->cdb[2] == 0x80 || c->cdb[2] == 0x83)) {
        sense_becoming_ready(c); /* a false identity would be worse than none */
        return;
    }
    b = scsi_answer_buf(1024);
    b->data[0] = c->lun == NULL ? QUALIFIER_NO_UNIT : 0;
    b->data[1] = c->cdb[2];
    if (i > 0) {
        len = vpd_pages[i].fill(c, b->data + 4);
    } else {
        uint32_t n = c->lun == NULL ? 1 : ARRAY_SIZE(vpd_pages);

        for (len = 0; len < n; len++)
            b->data[4 + len] = vpd_pages[len].code;
    }
    put_be16(b->data + 2, (uint16_t)len);
    scsi_cmd_answer(c, b, 4 + len);
}

void scsi_check_inquiry(struct scsi_cmd *c)
{
    c->alloc_len = get_be16(c->cdb + 3);
    if (c->cdb[1] & 0x01) {
        inquiry_vpd(c);
        return;
    }
    if (c->cdb[2] != 0) {
        sense_invalid_cdb_field(c, 2, 8);
        return;
    }
    struct buf *b = scsi_answer_buf(96);
    scsi_cmd_answer(c, b, inquiry_standard(c, b->data));
}
