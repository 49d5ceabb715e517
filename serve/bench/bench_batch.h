/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch of sequences of one length, decoded together: --batch sequences of --context tokens. KV comes
 * from one prefill of -f FILE copied to every sequence, or from random rows (speed only).
 */
#ifndef QY_SERVE_BENCH_BATCH_H
#define QY_SERVE_BENCH_BATCH_H

#include "serve/bench/bench.h"

struct qyi_bench_batch {
    int is_open;
    struct qyi_engine engine;
    struct qy_sequence **seqs;
    int32_t *next; /* [batch] token fed next */
    int32_t *text; /* [n_text] of -f FILE, or NULL; what follows the context is fed */
    size_t n_text;
    uint64_t n_fed;
    uint64_t prefill_ns;
};

/* The options of a batch. QY_ERR_CONFIG names them. */
QY_MUST enum qy_status qyi_bench_check(const struct qyi_args *args, struct qy_error *err);
/* Steps before those timed, --warm-up: at most, and on a device. */
uint64_t qyi_bench_most_warm_up(const struct qyi_args *args);
uint64_t qyi_bench_warm_up(const struct qyi_args *args, struct qy_device *dev);
/* Opens model, device and cache for sequences of up to most_tokens, and fills them. Closed also after
 * a failure; a zero batch may be closed. */
QY_MUST enum qy_status qyi_bench_batch_open(struct qyi_app *app, uint64_t most_tokens,
                                            struct qyi_bench_batch *batch, struct qy_error *err);
void qyi_bench_batch_close(struct qyi_bench_batch *batch);
/* One token of every sequence; *ns: what it took. batch: struct qyi_bench_batch. */
QY_MUST enum qy_status qyi_bench_batch_step(void *batch, uint64_t *ns, struct qy_error *err);

#endif
