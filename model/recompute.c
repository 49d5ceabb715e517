/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a sequence computed again from its token ids: what damage left is thrown away, and the
 * same steps are taken once more.
 */
#include "model/decoder.h"

#include <string.h>

/* Tokens of the next step: a run of a chunk, or one. No last token of a run is left alone. */
static uint32_t run_length(const uint8_t *origins, uint32_t at, uint32_t n, uint32_t most)
{
    uint32_t run = 0;

    while (at + run < n && origins[at + run] == QY_TOKEN_CHUNK && run < most + 1) {
        run++;
    }
    if (run == most + 1 && most > 2) {
        const int one_left = at + run == n || origins[at + run] != QY_TOKEN_CHUNK;

        return one_left ? most - 1 : most;
    }
    run = run < most ? run : most;
    return run > 0 ? run : 1;
}

enum qy_status qy_model_replay(struct qy_model *model, struct qy_cache *cache,
                               struct qy_sequence *seq, const int32_t *ids, const uint8_t *origins,
                               uint32_t n, struct qy_error *err)
{
    const uint32_t first = qy_sequence_tokens(seq);
    enum qy_status st = QY_OK;

    if (first > n || memchr(origins + first, QY_TOKEN_RANDOM, n - first) != NULL) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "recompute: token %u of %u; its rows must come from token ids, not be "
                            "random",
                            first, n);
    }
    for (uint32_t at = first; st == QY_OK && at < n;) {
        const uint32_t take = run_length(origins, at, n, model->params.max_step_tokens);
        const struct qy_step_slice slice = {
            .seq = seq,
            .n_tokens = take,
            .ids = ids + at,
            .mode = origins[at] == QY_TOKEN_POLICY ? QY_ATTEND_POLICY : QY_ATTEND_DENSE};

        st = qy_model_forward(model, cache, &slice, 1, NULL, 0, NULL, err);
        at += take;
    }
    return st;
}

enum qy_status qy_model_recompute(struct qy_model *model, struct qy_cache *cache,
                                  struct qy_sequence *seq, uint32_t first, struct qy_error *err)
{
    const struct qy_allocator *mem = &model->params.rt->mem;
    const uint32_t n = qy_sequence_tokens(seq);

    if (first > n || memchr(qy_sequence_origins(seq) + first, QY_TOKEN_RANDOM, n - first) != NULL) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "recompute: token %u of %u; its rows must come from token ids, not be "
                            "random",
                            first, n);
    }
    int32_t *ids = qy_alloc_zero(mem, (size_t)n * sizeof *ids + 1);
    uint8_t *origins = qy_alloc_zero(mem, (size_t)n + 1);
    enum qy_status st = QY_OK;
    if (ids == NULL || origins == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "recompute: out of memory for %u token ids", n);
    }
    if (st == QY_OK) {
        memcpy(ids, qy_sequence_ids(seq), n * sizeof *ids);
        memcpy(origins, qy_sequence_origins(seq), n);
        st = qy_sequence_truncate(seq, first);
        if (st != QY_OK) {
            st = qy_error_set(err, st, "recompute: the sequence could not be cut at token %u: %s",
                              first, qy_status_name(st));
        }
    }
    if (st == QY_OK) {
        st = qy_model_replay(model, cache, seq, ids, origins, n, err);
    }
    qy_free(mem, origins);
    qy_free(mem, ids);
    return st;
}
