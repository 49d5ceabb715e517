/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the device tier share: their options, and two caches in step. */
#ifndef QY_TESTS_OFFLOAD_TIER_RIG_H
#define QY_TESTS_OFFLOAD_TIER_RIG_H

#include "tests/unit/offload/rig.h"

extern const struct rig_options tier_base;

/* The least device_bytes that a cache opens with. */
uint64_t tier_least_bytes(const struct rig_options *options);

/* A unified cache and a discrete one, both with two sequences of the same tokens. */
struct tier_pair {
    struct rig good, bad;
    struct qy_sequence *seqs[2][2]; /* of good, of bad */
};
/* options: of the discrete one. n: tokens that each sequence begins with. */
void tier_pair_open(struct tier_pair *pair, const struct rig_options *options, const uint32_t n[2]);
void tier_pair_close(struct tier_pair *pair);

/* A step of one token of each of two sequences; the status of the layer that fails, or of its end. */
enum { TIER_STEP_FLOATS = RIG_LAYERS * 2 * RIG_OUT };
enum qy_status tier_try_step(struct rig *rig, struct qy_sequence *const *seqs,
                             float out[TIER_STEP_FLOATS]);

/* Single tokens of two sequences, of any lengths: n of streams `stream` and the next. out [2 * n][layers]
 * of each, turn by turn. */
void tier_decode(struct rig *rig, struct qy_sequence *const *seqs, uint32_t stream, uint32_t n,
                 float *out);

#endif
