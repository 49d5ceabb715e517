/* SPDX-License-Identifier: Apache-2.0 */
/* Caches over a disk, for tests. */
#ifndef QY_TESTS_OFFLOAD_RIG_DISK_H
#define QY_TESTS_OFFLOAD_RIG_DISK_H

#include "tests/unit/offload/rig.h"

/* What the tests have in common; rig_on_disk gives it host memory for RIG_DISK_FRAMES blocks: 3 sequences of
 * a block of sinks, 2 of window and an open one, 5 of a step, and one more. */
enum { RIG_DISK_FRAMES = 18 };
static const struct rig_options rig_disk_base = {.policy = "quest",
                                                 .budget = "0.1",
                                                 .f16 = 1,
                                                 .threads = 2,
                                                 .max_sequences = 3,
                                                 .max_step_tokens = 64,
                                                 .plan = QY_PLAN_PULL};

/* The same with the least device memory, host memory for one block more than must be, and a disk for
 * all. */
struct rig_options rig_on_disk(const struct rig_options *options);
void rig_verify(const struct qy_sequence *seq);
/* Frames, places in the file and ids are all accounted for. */
void rig_expect_disk_sound(const struct qy_cache *cache);

#endif
