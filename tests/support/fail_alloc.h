/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An allocator that fails one call, for the loop that every open gets:
 *
 *   for (long n = 0;; n++) {
 *       struct fail_alloc f = {.fail_at = n};
 *       struct qy_allocator mem = fail_alloc_make(&f);
 *       if (qy_x_open(&mem, ..., &x, NULL) == QY_OK) { qy_x_close(x); break; }
 *       assert_int_equal(f.live, 0);
 *   }
 *
 * After the close, live must be 0 as well. For one thread at a time.
 */
#ifndef QY_TESTS_SUPPORT_FAIL_ALLOC_H
#define QY_TESTS_SUPPORT_FAIL_ALLOC_H

#include "runtime/runtime.h"

struct fail_alloc {
    long fail_at; /* number of the call that gets NULL, from 0; -1 = none        */
    long calls;   /* allocations asked for so far, the failed one included       */
    long live;    /* allocations not freed yet                                   */
};

/* The allocator; f is kept until everything from it is freed. */
struct qy_allocator fail_alloc_make(struct fail_alloc *f);

#endif
