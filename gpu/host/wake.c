/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting on a word with a deadline. No wake-up is lost: the sleeper raises `sleeping` and then
 * looks at the word (the kernel looks once more), the waker changes the word and then looks at
 * `sleeping`, all four sequentially consistent, so that at least one sees the other.
 */
#include "gpu/host/wake.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/runtime.h"

enum { POLLS_PER_CLOCK = 16, NS_PER_S = 1000000000 };

void qyi_wake_set(struct qyi_wake *wake, uint32_t value)
{
    /* seq_cst: releases what was written before, and orders us before the look at `sleeping` */
    atomic_store_explicit(&wake->value, value, memory_order_seq_cst);
    if (atomic_load_explicit(&wake->sleeping, memory_order_seq_cst) != 0) {
        syscall(SYS_futex, &wake->value, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

void qyi_wake_ring(struct qyi_wake *wake)
{
    /* relaxed: nobody else changes it */
    qyi_wake_set(wake, atomic_load_explicit(&wake->value, memory_order_relaxed) + 1);
}

/* 1: the word changed, or the deadline is over. */
static int spin(const struct qyi_wake *wake, uint32_t old, uint64_t spin_ns, uint64_t deadline_ns)
{
    const uint64_t begin = qy_clock_ns();
    const uint64_t end = deadline_ns - begin < spin_ns ? deadline_ns : begin + spin_ns;
    uint64_t now = begin;
    if (begin >= deadline_ns) {
        return 1;
    }
    while (now < end) {
        for (int poll = 0; poll < POLLS_PER_CLOCK; poll++) {
            if (qyi_wake_value(wake) != old) {
                return 1;
            }
            qyi_relax();
        }
        sched_yield(); /* whom we wait for may want this very processor */
        now = qy_clock_ns();
    }
    return now >= deadline_ns;
}

void qyi_wake_wait(struct qyi_wake *wake, uint32_t old, uint64_t spin_ns, uint64_t deadline_ns)
{
    if (qyi_wake_value(wake) != old || spin(wake, old, spin_ns, deadline_ns)) {
        return;
    }
    const struct timespec until = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                   .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    /* seq_cst: must be seen by a waker that does not see us look; see the top of the file */
    atomic_store_explicit(&wake->sleeping, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&wake->value, memory_order_seq_cst) == old) {
        /* BITSET: its time is a point of the monotonic clock, not a span */
        syscall(SYS_futex, &wake->value, FUTEX_WAIT_BITSET_PRIVATE, old,
                deadline_ns == QYI_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
    }
    /* relaxed: a waker that still sees it makes one needless wake-up, nothing else */
    atomic_store_explicit(&wake->sleeping, 0, memory_order_relaxed);
}
