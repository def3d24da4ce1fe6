/* SPDX-License-Identifier: Apache-2.0
 *
 * LOG SENSE (SPC-4 6.11): which pages there are, and the logical block provisioning page (SBC-3
 * 6.4.5), which shows how much room is left where the unit's blocks come from. */
#include "access/scsi/scsi_int.h"

enum { PAGE_SUPPORTED = 0x00, PAGE_PROVISIONING = 0x0c };

#define SUBPAGE_SUPPORTED 0xffu
#define LOG_DS            0x80u /* not saved */
#define LOG_SPF           0x40u /* a subpage */
#define HEADER_BYTES      4u
#define RESOURCE_BYTES    12u
#define RESOURCE_SHARED   0x02u /* scope: not of this unit alone */
#define PARAMETER_LIST    0x03u /* format: a binary list */

struct log_page {
    uint8_t code, subpage;
    uint16_t last_parameter;
    uint32_t (*fill)(const struct scsi_cmd *c, uint8_t *p); /* bytes behind the header */
};

static uint32_t fill_supported(const struct scsi_cmd *c, uint8_t *p);
static uint32_t fill_provisioning(const struct scsi_cmd *c, uint8_t *p);

static const struct log_page log_pages[] = {
    {PAGE_SUPPORTED, 0, 0, fill_supported},
    {PAGE_SUPPORTED, SUBPAGE_SUPPORTED, 0, fill_supported},
    {PAGE_PROVISIONING, 0, 2, fill_provisioning},
};

static uint16_t log_pointer(const struct scsi_cmd *c)
{
    return get_be16(c->cdb + 5);
}

/* Without subpages, or all of them as pairs. */
static uint32_t fill_supported(const struct scsi_cmd *c, uint8_t *p)
{
    bool pairs = c->cdb[3] == SUBPAGE_SUPPORTED;
    uint32_t len = 0;

    for (size_t i = 0; i < ARRAY_SIZE(log_pages); i++) {
        if (!pairs && log_pages[i].subpage != 0)
            continue;
        p[len++] = log_pages[i].code;
        if (pairs)
            p[len++] = log_pages[i].subpage;
    }
    return len;
}

static uint32_t resource_put(const struct scsi_cmd *c, uint16_t code, uint64_t bytes, uint8_t *p)
{
    if (code < log_pointer(c))
        return 0;
    put_be16(p, code);
    p[2] = PARAMETER_LIST;
    p[3] = RESOURCE_BYTES - HEADER_BYTES;
    put_be32(p + 4, scsi_space_sets(bytes));
    p[8] = RESOURCE_SHARED;
    return RESOURCE_BYTES;
}

/* Available, and used by whatever shares the room. Nothing as long as it is not known. */
static uint32_t fill_provisioning(const struct scsi_cmd *c, uint8_t *p)
{
    struct block_backend_info info;
    uint32_t len;

    c->lun->backend->ops->info(c->lun->backend, &info);
    if (info.space_bytes == 0)
        return 0;
    len = resource_put(c, 1, info.space_free_bytes, p);
    return len + resource_put(c, 2, info.space_bytes - info.space_free_bytes, p + len);
}

static const struct log_page *log_page_find(uint8_t code, uint8_t subpage, bool *ret_code_known)
{
    *ret_code_known = false;
    for (size_t i = 0; i < ARRAY_SIZE(log_pages); i++) {
        if (log_pages[i].code != code)
            continue;
        *ret_code_known = true;
        if (log_pages[i].subpage == subpage)
            return &log_pages[i];
    }
    return NULL;
}

void scsi_check_log_sense(struct scsi_cmd *c)
{
    bool code_known;
    const struct log_page *page = log_page_find(c->cdb[2] & 0x3f, c->cdb[3], &code_known);

    c->alloc_len = get_be16(c->cdb + 7);
    if (page == NULL) {
        sense_invalid_cdb_field(c, code_known ? 3 : 2, code_known ? 8 : 5);
        return;
    }
    if (log_pointer(c) > page->last_parameter) {
        sense_invalid_cdb_field(c, 5, 8);
        return;
    }
    struct buf *b = scsi_answer_buf(HEADER_BYTES + 2 * RESOURCE_BYTES);
    uint32_t len = page->fill(c, b->data + HEADER_BYTES);
    b->data[0] = (uint8_t)(LOG_DS | (page->subpage != 0 ? LOG_SPF : 0) | page->code);
    b->data[1] = page->subpage;
    put_be16(b->data + 2, (uint16_t)len);
    scsi_cmd_answer(c, b, HEADER_BYTES + len);
}
