/* SPDX-License-Identifier: Apache-2.0 */
/* Monotonic time. It does not tell the time of day. */
#include "runtime/runtime.h"

#include <time.h>

uint64_t qy_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock and a valid pointer */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
