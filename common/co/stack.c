/* SPDX-License-Identifier: Apache-2.0
 *
 * Stacks: mapping, guard, cache, census, and the explanation of an overflow. A mapping is
 *     guard (no access) | stack, growing down | struct co | colour
 * where the colour shifts the hot end of each stack by some cache lines, because the tops of
 * equally aligned stacks would otherwise fight for the same cache sets. */
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common/base/assert.h"
#include "common/base/spin.h"
#include "common/co/co_impl.h"

#define STACK_MAP_BYTES     ((size_t)CO_GUARD_BYTES + CO_STACK_BYTES_DEFAULT)
#define STACK_CACHE_MAX     1024u /* idle stacks kept for the whole process */
#define STACK_COLOURS       16u
#define STACK_COLOUR_BYTES  192u /* three cache lines: spreads over the sets of a 4 KiB way */
#define STACK_PAINT         0xC5u
#define FAULT_STACK_BYTES   (64u * 1024)
#define BACKTRACE_DEPTH_MAX 48

#if defined(ZBS_DEBUG) && !defined(ZBS_FAST) && !CO_ASAN && !CO_TSAN
#define STACK_PAINTED 1
#else
#define STACK_PAINTED 0
#endif

static struct {
    struct spin lock;
    struct co *idle;
    uint32_t idle_count;
    uint32_t made; /* ever, for the colour */
} cache = {.lock = SPIN_INIT};

#ifdef ZBS_CO_PORTABLE
void co_ctx_portable_start(unsigned hi, unsigned lo)
{
    struct co_ctx *self = (struct co_ctx *)(uintptr_t)((uint64_t)hi << 32 | lo);

    self->entry(self->from, self);
}
#endif

static uint8_t *stack_bottom(const struct co *co)
{
    return (uint8_t *)co->map + CO_GUARD_BYTES;
}

static size_t stack_bytes(const struct co *co)
{
    return (size_t)((const uint8_t *)co - stack_bottom(co));
}

static struct co *stack_map(uint32_t colour)
{
    uint8_t *map = mmap(NULL, STACK_MAP_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    uintptr_t at;
    struct co *co;

    if (map == MAP_FAILED || mprotect(map, CO_GUARD_BYTES, PROT_NONE) < 0)
        assert_fail("stack", __FILE__, __LINE__,
                    "cannot map a coroutine stack: %s (too many coroutines? see vm.max_map_count)",
                    strerror(errno));
    at = (uintptr_t)map + STACK_MAP_BYTES - sizeof(struct co) -
         (size_t)(colour % STACK_COLOURS) * STACK_COLOUR_BYTES;
    co = (struct co *)(at & ~(uintptr_t)63);
    co->map = map;
    if (STACK_PAINTED)
        memset(stack_bottom(co), STACK_PAINT, stack_bytes(co));
    co_san_stack_new(&co->san, stack_bottom(co), stack_bytes(co));
    return co;
}

const void *co_stack_end(const struct co *co)
{
    return co;
}

struct co *co_stack_new(co_ctx_entry entry)
{
    uint32_t colour = 0;
    struct co *co;

    spin_lock(&cache.lock);
    co = cache.idle;
    if (co != NULL) {
        cache.idle = co->next;
        cache.idle_count--;
    } else {
        colour = cache.made++;
    }
    spin_unlock(&cache.lock);
    if (co != NULL)
        return co;
    co = stack_map(colour);
    co_ctx_make(&co->sw, stack_bottom(co), stack_bytes(co), entry);
    return co;
}

void co_stack_free(struct co *co)
{
    bool keep;

    spin_lock(&cache.lock);
    keep = cache.idle_count < STACK_CACHE_MAX;
    if (keep) {
        co->next = cache.idle;
        cache.idle = co;
        cache.idle_count++;
    }
    spin_unlock(&cache.lock);
    if (keep)
        return;
    co_san_stack_free(&co->san);
    ASSERT(munmap(co->map, STACK_MAP_BYTES) == 0);
}

void co_stack_abandon(struct co *co, co_ctx_entry entry)
{
    co_san_stack_reset(&co->san);
    co_ctx_make(&co->sw, stack_bottom(co), stack_bytes(co), entry);
}

size_t co_stack_used(const struct co *co)
{
#if STACK_PAINTED
    const uint8_t *p = stack_bottom(co);
    const uint8_t *end = p + stack_bytes(co);
    uint64_t paint;

    if (CO_ON_VALGRIND) /* objects to reads below the stack pointer */
        return 0;
    memset(&paint, STACK_PAINT, sizeof(paint));
    for (; p + sizeof(paint) <= end; p += sizeof(paint)) {
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        if (word != paint)
            break;
    }
    return (size_t)(end - p);
#else
    (void)co;
    return 0;
#endif
}

/* ---- overflow ---- */

static struct sigaction fault_former;

/* Runs on the thread's fault stack. A hit of the running coroutine's guard is an overflow; any
 * other fault goes to whoever handled faults before. */
static void fault_handler(int sig, siginfo_t *info, void *ucontext)
{
    const struct thread_ctx *ctx = thread_ctx_get();
    const uint8_t *at = info->si_addr;
    void *frames[BACKTRACE_DEPTH_MAX];

    (void)ucontext;
    if (ctx != NULL && ctx->co != NULL) {
        const uint8_t *guard = ctx->co->map;

        if (at >= guard && at < guard + CO_GUARD_BYTES) {
            char text[256]; /* dprintf would allocate, which a signal handler may not */
            int len = snprintf(text, sizeof(text),
                               "stack overflow in coroutine %s, loop %s: more than %zu bytes\n",
                               ctx->co_name, ctx->loop_name, stack_bytes(ctx->co));

            if (write(STDERR_FILENO, text, MIN((size_t)len, sizeof(text) - 1)) < 0)
                abort();
            backtrace_symbols_fd(frames, backtrace(frames, BACKTRACE_DEPTH_MAX), STDERR_FILENO);
            abort();
        }
    }
    (void)sigaction(sig, &fault_former, NULL); /* the instruction runs and faults again */
}

static void fault_handler_install_once(void)
{
    struct sigaction sa;
    void *frame;

    (void)backtrace(&frame, 1); /* loads its library now, not in the handler */
    memset(&sa, 0, sizeof(sa));
    sa.sa_sigaction = fault_handler;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    (void)sigemptyset(&sa.sa_mask);
    ASSERT(sigaction(SIGSEGV, &sa, &fault_former) == 0);
}

void co_fault_handler_install(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, fault_handler_install_once);
}

static pthread_key_t fault_stack_key;

static void fault_stack_free(void *mem)
{
    stack_t off = {.ss_flags = SS_DISABLE};

    (void)sigaltstack(&off, NULL);
    (void)munmap(mem, FAULT_STACK_BYTES);
}

static void fault_stack_key_make(void)
{
    ASSERT(pthread_key_create(&fault_stack_key, fault_stack_free) == 0);
}

NOINLINE void co_fault_stack_install(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static __thread bool installed;
    stack_t ss = {.ss_size = FAULT_STACK_BYTES}, now;

    if (LIKELY(installed))
        return;
    installed = true;
    if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) == 0)
        return; /* a sanitizer's, which it will free itself */
    (void)pthread_once(&once, fault_stack_key_make);
    ss.ss_sp =
        mmap(NULL, FAULT_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(ss.ss_sp != MAP_FAILED);
    ASSERT(sigaltstack(&ss, NULL) == 0);
    (void)pthread_setspecific(fault_stack_key, ss.ss_sp);
}
