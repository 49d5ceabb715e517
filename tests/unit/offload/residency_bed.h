/* SPDX-License-Identifier: Apache-2.0 */
/* An open residency cache, for the tests of it. */
#ifndef QY_TESTS_OFFLOAD_RESIDENCY_BED_H
#define QY_TESTS_OFFLOAD_RESIDENCY_BED_H

#include "tests/support/test.h"

#include "offload/tier/residency.h"

enum { RESIDENCY_FIRST = 100 }; /* number of its first slot */

static inline struct qyi_residency *residency_bed(enum qy_eviction eviction, uint32_t n_sets,
                                                  uint32_t n_heads, uint32_t max_tokens,
                                                  uint32_t slots)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct qyi_residency_params params = {.n_sets = n_sets,
                                                .n_heads = n_heads,
                                                .max_tokens = max_tokens,
                                                .slots_per_set = slots,
                                                .first_slot = RESIDENCY_FIRST,
                                                .eviction = eviction};
    struct qyi_residency *r = NULL;

    assert_int_equal(qyi_residency_open(&mem, &params, &r, NULL), QY_OK);
    assert_true(qyi_residency_sound(r));
    return r;
}

#endif
