/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the files that draw scenarios. x: the state of a generator. */
#ifndef ZBS_TESTS_SIM_SCENARIO_DRAW_H
#define ZBS_TESTS_SIM_SCENARIO_DRAW_H

#include "tests/sim/scenario.h"

uint32_t draw_below(uint64_t *x, uint32_t n);
/* Mostly short, sometimes long enough for every timeout. */
nsec_t draw_span(uint64_t *x);
nsec_t draw_moment(const struct scenario *s, uint64_t *x);
void draw_event(struct fault_event *e, enum fault kind, uint64_t *x);
/* By time: that is how they are carried out, and shortened. */
void draw_insert(struct scenario *s, const struct fault_event *e);
/* Data that only one host has wrong, or does not have, is what replication promises to survive:
 * so it is always the same host of a seed. */
bool draw_needs_others(enum fault f);
uint32_t draw_weak_host(const struct scenario *s, uint64_t *x);

/* Faults that follow from one another (scenario_aim.c). */
void aims_draw(struct scenario *s, uint64_t x);

#endif
