/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench decode --shape: what the measurement and its report share. */
#ifndef QY_SERVE_BENCH_SHAPE_H
#define QY_SERVE_BENCH_SHAPE_H

#include "serve/bench.h"

/* One of the two modes of attention. */
struct qyi_shape_side {
    uint64_t *samples; /* [steps] ns of a step */
    uint64_t stage_ns[QY_STAGE_COUNT];
};

struct qyi_shape_bench {
    struct qyi_app *app;
    struct qy_kv_shape shape;
    const struct qy_policy_ops *policy;
    struct qy_retrieval_settings settings;
    struct qy_budget budget;
    struct qy_device *dev;
    struct qy_codebook *codebook;
    struct qy_cache *cache;
    struct qy_sequence **seqs;
    struct qy_step_slice *slices;
    float *inv_freq, *fresh, *qkv, *out; /* fresh: random, copied to qkv for each layer */
    struct qyi_shape_side dense, sparse;
    uint64_t n; /* rounds timed */
    uint64_t random;
};

/* Prints the rounds that were timed, at least one. */
void qyi_shape_report(struct qyi_shape_bench *bench);

#endif
