/* SPDX-License-Identifier: Apache-2.0
 *
 * What coroutines cost, beside the two ways that the C library offers. All numbers come from one
 * run on one thread; each is the best of several rounds. */
#ifndef ZBS_TOOLS_BENCH_CO_H
#define ZBS_TOOLS_BENCH_CO_H

struct bench_co {
    double switch_in_out_ns;      /* co.switch_in_out_ns: the switch alone, there and back */
    double yield_ns;              /* co.yield_ns: co_yield through the run queue */
    double create_destroy_ns;     /* co.create_destroy_ns: spawn, run an empty function, end */
    double sjlj_switch_in_out_ns; /* sjlj.switch_in_out_ns: sigsetjmp + siglongjmp, no mask */
    double swapcontext_switch_in_out_ns; /* swapcontext.switch_in_out_ns */
};

/* Takes about half a second. Called outside coroutines. */
void bench_co_run(struct bench_co *ret);

#endif
