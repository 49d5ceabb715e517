/* SPDX-License-Identifier: Apache-2.0 */
/* Text that the model writes itself, for a codebook without any data: a batch of sequences, each
 * from nothing, at temperature 1. Source: data-free calibration, as LLM-QAT, arXiv 2305.17888. */
#include <string.h>

#include "serve/calibrate/calibrate.h"

struct writers {
    struct qy_sequence *seq[QYI_WRITERS];
    struct qy_sampler *sampler[QYI_WRITERS];
    struct qy_step_slice slice[QYI_WRITERS];
    int32_t last[QYI_WRITERS];
    uint32_t row[QYI_WRITERS];
};

static enum qy_status open_writers(struct qyi_engine *engine, uint64_t seed,
                                   struct writers *writers, struct qy_error *err)
{
    const uint32_t n_vocab = qy_model_info(engine->model)->n_vocab;
    int32_t first = qy_tokenizer_bos(engine->tokenizer);
    enum qy_status st = QY_OK;
    first = first >= 0 ? first : qy_tokenizer_eos(engine->tokenizer);
    for (uint32_t i = 0; st == QY_OK && i < QYI_WRITERS; i++) {
        const struct qy_sampler_params params = {
            .temperature = 1, .top_p = 1, .seed = seed * QYI_WRITERS + i};
        writers->last[i] = first >= 0 ? first : 0;
        writers->row[i] = i;
        st = qy_sampler_open(&engine->app->rt.mem, n_vocab, &params, &writers->sampler[i], err);
        if (st == QY_OK) {
            st = qy_sequence_open(engine->cache, &writers->seq[i], err);
        }
        writers->slice[i] = (struct qy_step_slice){.seq = writers->seq[i],
                                                   .n_tokens = 1,
                                                   .ids = &writers->last[i],
                                                   .mode = QY_ATTEND_DENSE};
    }
    return st;
}

/* One token of each; those of writer i go to ids[i * each + at], as far as that is below n. */
static enum qy_status write_step(struct qyi_engine *engine, struct writers *writers, size_t each,
                                 size_t at, size_t n, int32_t *ids, struct qy_error *err)
{
    const uint32_t n_vocab = qy_model_info(engine->model)->n_vocab;
    const enum qy_status st =
        qyi_engine_forward(engine, writers->slice, QYI_WRITERS, writers->row, QYI_WRITERS, err);
    if (st != QY_OK) {
        return st == QY_AGAIN
                   ? qy_error_set(err, QY_ERR_NOMEM, "calibrate: no room for the text to write")
                   : st;
    }
    for (uint32_t i = 0; i < QYI_WRITERS; i++) {
        const int32_t id =
            qy_sampler_next(writers->sampler[i], engine->logits + (size_t)i * n_vocab, NULL);
        if (id < 0) {
            return qy_error_set(err, QY_ERR_CORRUPT,
                                "calibrate: the model's logits are not finite");
        }
        writers->last[i] = id;
        if (i * each + at < n) {
            ids[i * each + at] = id;
        }
    }
    return QY_OK;
}

enum qy_status qyi_contexts_write(struct qyi_engine *engine, uint64_t seed, size_t n, int32_t *ids,
                                  struct qy_error *err)
{
    const size_t each = (n + QYI_WRITERS - 1) / QYI_WRITERS;
    struct writers writers = {0};
    struct qyi_progress progress;
    qyi_progress_start(&progress, "the model writes", "tokens", n);
    enum qy_status st = open_writers(engine, seed, &writers, err);
    for (size_t at = 0; st == QY_OK && at < each; at++) {
        st = write_step(engine, &writers, each, at, n, ids, err);
        qyi_progress_update(&progress, (at + 1) * n / each);
        if (st == QY_OK && qyi_interrupted()) {
            st = qy_error_set(err, QY_AGAIN, "calibrate: interrupted; nothing was kept yet");
        }
    }
    if (st == QY_OK) {
        qyi_progress_end(&progress, n);
    }
    for (uint32_t i = 0; i < QYI_WRITERS; i++) {
        qy_sequence_close(writers.seq[i]);
        qy_sampler_close(writers.sampler[i]);
    }
    return st;
}
