/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A word that one thread changes and one other waits on: it spins shortly, then sleeps on a futex.
 * Private to gpu/host/.
 */
#ifndef QY_GPU_HOST_WAKE_H
#define QY_GPU_HOST_WAKE_H

#include <stdatomic.h>
#include <stdint.h>

#define QYI_NEVER UINT64_MAX

/* On a line of its own, so that spinning on one does not disturb another. */
struct qyi_wake {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t sleeping;
};

/* What was written before the change that made it so is then visible. */
static inline uint32_t qyi_wake_value(const struct qyi_wake *wake)
{
    /* acquire: pairs with the release half of qyi_wake_set */
    return atomic_load_explicit(&wake->value, memory_order_acquire);
}

static inline void qyi_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* By the one thread that changes the word. Enters the kernel only if the other sleeps. */
void qyi_wake_set(struct qyi_wake *wake, uint32_t value);
/* To the next value. */
void qyi_wake_ring(struct qyi_wake *wake);
/* By the other: returns when the word differs from old, or by the clock at deadline_ns. May return
 * early: look again. */
void qyi_wake_wait(struct qyi_wake *wake, uint32_t old, uint64_t spin_ns, uint64_t deadline_ns);

#endif
