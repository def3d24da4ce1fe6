/* SPDX-License-Identifier: Apache-2.0
 *
 * A recording of what happened to the disks of a simulated process, and its playback: the content
 * that a power loss could have left at any moment of it is built in microseconds, without running
 * anything again. All disks are in one image, one behind the other as they were created.
 *
 * While disks are recorded, their tape gets every write with its data when it is submitted and when
 * it is completed, every flush, and marks by which the recorder dates what it knows itself. A
 * player holds what is durable at one place of the tape, and the *open* writes: completed but not
 * flushed, or still in flight. A power loss keeps each of them, loses it or tears it.
 *
 * Pages are shared between tape, players and images, never copied, so the tape must outlive the
 * players made from it, and a player the images. Nothing here takes virtual time; use it outside
 * coroutines (sim_tape_mark: anywhere). */
#ifndef ZBS_ENV_SIM_TAPE_H
#define ZBS_ENV_SIM_TAPE_H

#include <stdbool.h>
#include "common/base/attr.h"

struct sim_proc;

/* ---- content of disks ---- */

struct sim_image {
    uint64_t pages;       /* of 4 KiB */
    const uint8_t **page; /* NULL: zeroes */
    void *own;            /* pages made for this image */
    uint64_t sum;         /* of the content: images of one size that have the same are equal */
};
struct sim_image *sim_image_of(struct sim_proc *p);            /* its disks as read now */
struct sim_image *sim_image_copy(const struct sim_image *img); /* shares the pages */
void sim_image_set(struct sim_image *img, uint64_t page, const void *src);
void sim_image_free(struct sim_image *img);
/* A disk with the content of these pages; the image must outlive the disk and not change. What is
 * written to the disk stays with the disk. */
void sim_disk_create_from(struct sim_proc *p, const char *path, const struct sim_image *img,
                          uint64_t first_page, uint64_t pages);

/* ---- recording ---- */

enum sim_tape_kind {
    SIM_TAPE_SUBMIT, /* a write is in flight: n is its number */
    SIM_TAPE_DONE,   /* write n is completed */
    SIM_TAPE_DROP,   /* write n did not survive the end of its process */
    SIM_TAPE_FLUSH,  /* those of the first n completed writes that went to `disk` are durable */
    SIM_TAPE_MARK,   /* n: the recorder's */
};
struct sim_tape_event {
    enum sim_tape_kind kind;
    uint32_t disk;
    uint64_t n;
};
struct sim_tape_write {
    uint32_t disk;
    uint64_t off; /* in the image */
    uint32_t len; /* both multiples of 512 */
    bool durable; /* once completed */
    uint8_t *data;
};
struct sim_tape {
    struct sim_tape_event *ev;
    struct sim_tape_write *w;
    uint64_t n_ev, n_w, n_done, bytes;
    uint64_t cap_ev, cap_w;
};
/* Records all disks of the process from now on, until sim_tape_stop. No request may be in flight
 * at either, and discards and injected errors are not for disks that are recorded (asserted). */
struct sim_tape *sim_tape_start(struct sim_proc *p);
void sim_tape_mark(struct sim_tape *t, uint64_t n);
void sim_tape_stop(struct sim_proc *p);
void sim_tape_free(struct sim_tape *t);

/* ---- playback ---- */

struct sim_player;
/* Before the first event; start is the disk's content there. */
struct sim_player *sim_player_new(const struct sim_image *start);
struct sim_player *sim_player_copy(const struct sim_player *pl);
void sim_player_free(struct sim_player *pl);
void sim_player_event(struct sim_player *pl, const struct sim_tape *t,
                      const struct sim_tape_event *ev);
uint32_t sim_player_open(const struct sim_player *pl); /* how many writes are open */
/* The process is killed here, the device keeps its power: what is completed stays in its cache,
 * what is in flight gets there or not. The player can go on with the tape of the next start. */
void sim_player_kill(struct sim_player *pl, uint64_t seed);

enum sim_outcome {
    SIM_ALL_LOST,
    SIM_ALL_KEPT,
    SIM_SUBSET, /* each write kept, lost, or kept up to one of its pages */
    SIM_TORN,   /* each sector of each write kept or lost; some writes are spared */
    SIM_OUTCOMES
};
/* What a power loss here leaves. The seed decides what is left to chance. */
struct sim_image *sim_player_crash(const struct sim_player *pl, enum sim_outcome how,
                                   uint64_t seed);

#endif
