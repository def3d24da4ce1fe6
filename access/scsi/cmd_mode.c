/* SPDX-License-Identifier: Apache-2.0
 *
 * MODE SENSE and MODE SELECT. Pages: caching, control, informational exceptions, and of those the
 * logical block provisioning subpage (SBC-3 6.5.9) with the threshold of scsi_target_space_changed,
 * which is the cluster's setting. What can be changed: D_SENSE and SWP of the control page; neither
 * is saved, both fall back at a reset of the unit and hold for this access server only. */
#include <string.h>
#include "access/scsi/scsi_int.h"

enum { PAGE_CACHING = 0x08, PAGE_CONTROL = 0x0a, PAGE_EXCEPTIONS = 0x1c, PAGE_ALL = 0x3f };
enum { CONTROL_D_SENSE = 0x04, CONTROL_SWP = 0x08 };
enum { SUBPAGE_PROVISIONING = 0x02, SUBPAGE_ALL = 0xff };
enum { PAGE_SPF = 0x40 };            /* a subpage, with a header of four bytes */
enum { THRESHOLD_ENABLED = 0x80 };   /* soft, when the resource decreases to it */
enum { THRESHOLD_AVAILABLE = 0x01 }; /* the resource: as log parameter 1 of page 0Ch */

struct mode_page {
    uint8_t code, subpage, len; /* len: of the whole page, with its header */
    uint8_t defaults[24], changeable[24];
};

static const struct mode_page mode_pages[] = {
    /* WCE 0: what is acknowledged is durable. DRA 1 would forbid read-ahead: 0. */
    {.code = PAGE_CACHING, .len = 20, .defaults = {0x08, 18}, .changeable = {0x08, 18}},
    /* QUEUE ALGORITHM MODIFIER 1: reordering is allowed. BUSY TIMEOUT unlimited. */
    {.code = PAGE_CONTROL,
     .len = 12,
     .defaults = {0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff},
     .changeable = {0x0a, 10, CONTROL_D_SENSE, 0, CONTROL_SWP}},
    /* DEXCPT: no informational exceptions are reported. */
    {.code = PAGE_EXCEPTIONS, .len = 12, .defaults = {0x1c, 10, 0x08}, .changeable = {0x1c, 10}},
    /* SITUA 0: every initiator is told. One threshold. */
    {.code = PAGE_EXCEPTIONS,
     .subpage = SUBPAGE_PROVISIONING,
     .len = 24,
     .defaults = {PAGE_SPF | 0x1c, 0x02, 0, 20, [17] = THRESHOLD_AVAILABLE},
     .changeable = {PAGE_SPF | 0x1c, 0x02, 0, 20}},
};

/* A page is found by its code and its subpage, or all subpages of a page, or all pages. */
static bool page_wanted(const struct mode_page *page, uint8_t code, uint8_t subpage)
{
    return (code == PAGE_ALL || code == page->code) &&
           (subpage == SUBPAGE_ALL || subpage == page->subpage);
}

static void page_current(const struct scsi_lun *lun, const struct mode_page *page, uint8_t *dst)
{
    memcpy(dst, page->defaults, page->len);
    if (page->code == PAGE_CONTROL) {
        dst[2] |= lun->d_sense ? CONTROL_D_SENSE : 0;
        dst[4] |= lun->swp ? CONTROL_SWP : 0;
    }
    if (page->subpage == SUBPAGE_PROVISIONING && lun->info.space_warn_bytes != 0) {
        dst[16] |= THRESHOLD_ENABLED;
        put_be32(dst + 20, scsi_space_sets(lun->info.space_warn_bytes));
    }
}

static bool is_mode_10(const struct scsi_cmd *c)
{
    return c->row->cdb_len == 10;
}

static uint32_t block_descriptor(struct scsi_cmd *c, uint8_t *p)
{
    uint64_t blocks = c->lun->blocks;

    if (c->cdb[1] & 0x08) /* DBD */
        return 0;
    if (is_mode_10(c) && (c->cdb[1] & 0x10)) { /* LLBAA */
        put_be64(p, blocks);
        put_be32(p + 12, SCSI_BLOCK_BYTES);
        return 16;
    }
    put_be32(p, (uint32_t)MIN(blocks, UINT32_MAX));
    put_be24(p + 5, SCSI_BLOCK_BYTES);
    return 8;
}

void scsi_check_mode_sense(struct scsi_cmd *c)
{
    uint8_t control = c->cdb[2] >> 6, code = c->cdb[2] & 0x3f, subpage = c->cdb[3];
    uint32_t header = is_mode_10(c) ? 8 : 4, desc, len;
    bool code_known = code == PAGE_ALL, found = false;

    c->alloc_len = is_mode_10(c) ? get_be16(c->cdb + 7) : c->cdb[4];
    if (control == 3) {
        sense_saving_not_supported(c);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(mode_pages); i++) {
        code_known = code_known || mode_pages[i].code == code;
        found = found || page_wanted(&mode_pages[i], code, subpage);
    }
    if (!found || (code == PAGE_ALL && subpage != 0 && subpage != SUBPAGE_ALL)) {
        sense_invalid_cdb_field(c, code_known ? 3 : 2, code_known ? 8 : 5);
        return;
    }
    struct buf *b = scsi_answer_buf(256);
    uint8_t *p = b->data;
    desc = block_descriptor(c, p + header);
    len = header + desc;
    for (size_t i = 0; i < ARRAY_SIZE(mode_pages); i++) {
        const struct mode_page *page = &mode_pages[i];

        if (!page_wanted(page, code, subpage))
            continue;
        if (control == 0)
            page_current(c->lun, page, p + len);
        else
            memcpy(p + len, control == 1 ? page->changeable : page->defaults, page->len);
        len += page->len;
    }
    uint8_t specific = (uint8_t)(0x10 | (scsi_lun_protected(c->lun) ? 0x80 : 0)); /* DPOFUA, WP */
    if (is_mode_10(c)) {
        put_be16(p, (uint16_t)(len - 2));
        p[3] = specific;
        p[4] = desc == 16; /* LONGLBA */
        put_be16(p + 6, (uint16_t)desc);
    } else {
        p[0] = (uint8_t)(len - 1);
        p[2] = specific;
        p[3] = (uint8_t)desc;
    }
    scsi_cmd_answer(c, b, len);
}

void scsi_check_mode_select(struct scsi_cmd *c)
{
    uint32_t len = is_mode_10(c) ? get_be16(c->cdb + 7) : c->cdb[4];

    if (!(c->cdb[1] & 0x10)) { /* PF: only the standard's format is understood */
        sense_invalid_cdb_field(c, 1, 4);
        return;
    }
    if (c->cdb[1] & 0x01) { /* SP: nothing is saved */
        sense_invalid_cdb_field(c, 1, 0);
        return;
    }
    c->wanted = len;
    if (len == 0) {
        c->done = true;
        return;
    }
    if (c->out_expected < len) {
        sense_parameter_list_length(c);
        return;
    }
    c->out_len = len;
}

/* One page of the list at p + at: checked against what is current; *lun takes the new values.
 * Its length, or 0 with sense set. */
static uint32_t mode_select_page(struct scsi_cmd *c, const uint8_t *p, uint32_t at, uint32_t len,
                                 struct scsi_lun *new_values)
{
    const struct mode_page *page = NULL;
    uint8_t current[sizeof(page->defaults)];

    if (len - at < 2) {
        sense_parameter_list_length(c);
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(mode_pages); i++) {
        /* the second byte is the length or, of a subpage, its number */
        if (mode_pages[i].defaults[0] == (p[at] & 0x7f) &&
            (mode_pages[i].subpage == 0 || mode_pages[i].subpage == p[at + 1]))
            page = &mode_pages[i];
    }
    if (page == NULL || p[at + 1] != page->defaults[1]) {
        sense_invalid_parameter(c, page == NULL ? at : at + 1, 8);
        return 0;
    }
    if (len - at < page->len) {
        sense_parameter_list_length(c);
        return 0;
    }
    page_current(c->lun, page, current);
    for (uint32_t i = 2; i < page->len; i++) {
        if ((p[at + i] ^ current[i]) & ~page->changeable[i]) {
            sense_invalid_parameter(c, at + i, 8);
            return 0;
        }
    }
    if (page->code == PAGE_CONTROL) {
        new_values->d_sense = p[at + 2] & CONTROL_D_SENSE;
        new_values->swp = p[at + 4] & CONTROL_SWP;
    }
    return page->len;
}

co_fn void scsi_run_mode_select(struct scsi_cmd *c)
{
    const uint8_t *p = c->out->data;
    uint32_t header = is_mode_10(c) ? 8 : 4, len = c->out_len, at, n;
    struct scsi_lun new_values = {.d_sense = c->lun->d_sense, .swp = c->lun->swp};

    if (len < header) {
        sense_parameter_list_length(c);
        return;
    }
    at = header + (is_mode_10(c) ? get_be16(p + 6) : p[3]);
    if (at > len) {
        sense_parameter_list_length(c);
        return;
    }
    for (; at < len; at += n) {
        n = mode_select_page(c, p, at, len, &new_values);
        if (n == 0)
            return;
    }
    if (new_values.d_sense != c->lun->d_sense || new_values.swp != c->lun->swp) {
        c->lun->d_sense = new_values.d_sense;
        c->lun->swp = new_values.swp;
        scsi_target_attention(c->lun->target, c->lun, SCSI_UA_MODE, c->nexus);
    }
}
