/* SPDX-License-Identifier: Apache-2.0
 *
 * What was done to an initiator port at a target, and how long ago: a table of the latest ones. An
 * entry is a hash of the three names; one that is taken for another costs a move, no more. */
#include <ctype.h>
#include "access/iscsi/iscsi_int.h"

static uint64_t hash_byte(uint64_t h, uint8_t byte)
{
    return (h ^ byte) * 1099511628211u; /* FNV-1a */
}

/* Names are compared regardless of case. */
static uint64_t hash_name(uint64_t h, const char *name)
{
    for (; *name != '\0'; name++)
        h = hash_byte(h, (uint8_t)tolower((unsigned char)*name));
    return hash_byte(h, 0);
}

uint64_t seen_key(const char *iqn, const char *initiator, const uint8_t isid[6])
{
    uint64_t h = hash_name(hash_name(14695981039346656037u, iqn), initiator);

    for (int i = 0; i < 6; i++)
        h = hash_byte(h, isid[i]);
    return h;
}

void seen_init(struct iscsi_seen *seen)
{
    for (size_t i = 0; i < ARRAY_SIZE(seen->list); i++)
        seen->list[i].at = INT64_MIN / 2; /* never */
}

bool seen_lately(const struct iscsi_seen *seen, uint64_t key, nsec_t span)
{
    for (size_t i = 0; i < ARRAY_SIZE(seen->list); i++) {
        if (seen->list[i].key == key && co_now() - seen->list[i].at < span)
            return true;
    }
    return false;
}

void seen_note(struct iscsi_seen *seen, uint64_t key)
{
    size_t at = 0;

    for (size_t i = 0; i < ARRAY_SIZE(seen->list); i++) {
        if (seen->list[i].key == key) {
            at = i;
            break;
        }
        if (seen->list[i].at < seen->list[at].at)
            at = i;
    }
    seen->list[at].key = key;
    seen->list[at].at = co_now();
}

void seen_forget(struct iscsi_seen *seen, uint64_t key)
{
    for (size_t i = 0; i < ARRAY_SIZE(seen->list); i++) {
        if (seen->list[i].key == key)
            seen->list[i].at = INT64_MIN / 2;
    }
}
