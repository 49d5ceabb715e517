/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench decode --shape: what the measurement, its steps and its report share. */
#ifndef QY_SERVE_BENCH_SHAPE_H
#define QY_SERVE_BENCH_SHAPE_H

#include "serve/bench/bench.h"

/* Dense attention to the same rows, on a unified device: a step before each timed one. */
struct qyi_shape_dense {
    uint64_t *samples; /* [steps] ns of a step */
    uint64_t n;
    uint64_t stage_ns[QY_STAGE_COUNT];
};

struct qyi_shape_bench {
    struct qyi_app *app;
    struct qy_kv_shape shape;
    double drift; /* --query-drift */
    const struct qy_policy_ops *policy;
    struct qy_retrieval_settings settings;
    struct qy_budget budget;
    const char *budget_text;
    struct qy_device *dev;
    struct qy_codebook *codebook;
    struct qy_cache *cache;
    struct qy_sequence **seqs;
    struct qy_step_slice *slices;
    float *inv_freq, *fresh, *qkv, *out; /* fresh: q, k, v of the next step, for each layer */
    float *own;      /* the part of each query that stays                                       */
    uint64_t *sweep; /* bytes that fill the caches between steps */
    struct qyi_bench_steps steps;
    struct qyi_shape_dense dense;
    uint64_t checksum; /* of all outputs of steps by the policy, in whatever order */
    uint64_t random;
};

/* The named shape, changed by --layers, --heads, --kv-heads and --head-dim. QY_ERR_CONFIG: there is none. */
QY_MUST enum qy_status qyi_shape_choose(const struct qyi_args *args, const char *name,
                                        struct qy_kv_shape *shape, struct qy_error *err);
/* Elements of one sequence's q, k and v. */
static inline size_t qyi_shape_row(const struct qyi_shape_bench *b)
{
    return (size_t)(b->shape.n_heads + 2 * b->shape.n_kv_heads) * b->shape.head_dim;
}

/* bench_shape_step.c: q, k, v of the first step, and memory for what goes between steps. */
QY_MUST enum qy_status qyi_shape_steps_open(struct qyi_shape_bench *bench, struct qy_error *err);
/* struct qyi_bench_steps.step; data is the bench. */
QY_MUST enum qy_status qyi_shape_step(void *data, uint64_t *ns, struct qy_error *err);

/* Prints the steps that were timed, at least one. */
void qyi_shape_report(struct qyi_shape_bench *bench);

#endif
