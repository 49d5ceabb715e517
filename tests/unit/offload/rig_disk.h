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
/* A sequence of 27 blocks where 18 are in memory, a short one beside it; cuts in blocks that are there and
 * in one that is not; a copy; a step that mixes both kinds; random rows. Writes RIG_DISK_FLOATS floats. */
enum {
    RIG_DISK_PREFILL = 400,
    RIG_DISK_DECODE = 30,
    RIG_DISK_FLOATS = (RIG_DISK_PREFILL + 37) * RIG_OUT +
                      (2 * RIG_DISK_DECODE + 60 + 51 + 40) * RIG_LAYERS * RIG_OUT
};
size_t rig_disk_run(struct rig *rig, float *out);
/* The same of a cache that has memory for all of it. out [RIG_DISK_FLOATS] */
void rig_disk_reference(const struct rig_options *options, float *out);
void rig_verify(const struct qy_sequence *seq);
/* Frames, places in the file and ids are all accounted for. */
void rig_expect_disk_sound(const struct qy_cache *cache);

#endif
