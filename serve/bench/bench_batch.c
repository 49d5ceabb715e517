/* SPDX-License-Identifier: Apache-2.0 */
/* See bench_batch.h. */
#include "serve/bench/bench_batch.h"

#include <stdlib.h>

/* chosen: what bench residency shows of a new device: hit rates settle within some 30 steps */
enum { WARM_UP = 2, WARM_UP_DISCRETE = 32 };

/* Tokens of text that a sequence needs for a place of its own. */
enum { TEXT_EACH = 64 };

/* The first sequence: --context tokens of the file, or random rows. */
static enum qy_status fill_first(struct qyi_bench_batch *b, struct qy_error *err)
{
    struct qyi_engine *engine = &b->engine;
    const struct qyi_args *args = engine->app->args;
    if (args->file == NULL) {
        const enum qy_status st = qy_sequence_fill_random(b->seqs[0], (uint32_t)args->context,
                                                          (uint64_t)engine->app->program.seed + 1);
        return st == QY_OK ? QY_OK
                           : qy_error_set(err, QY_ERR_NOMEM, "cache: no room for --context");
    }
    size_t done = 0;
    enum qy_status st = qyi_read_ids(engine, args->file, &b->text, &b->n_text, err);
    if (st == QY_OK && b->n_text < args->context) {
        st = qy_error_set(err, QY_ERR_CONFIG, "file '%s': has %zu tokens, --context asks for %llu",
                          args->file, b->n_text, (unsigned long long)args->context);
    }
    if (st == QY_OK) {
        const uint64_t begin = qy_clock_ns();
        st = qyi_engine_prefill(engine, b->seqs[0], b->text, args->context, 0, NULL, &done, err);
        b->prefill_ns = qy_clock_ns() - begin;
    }
    return st;
}

static enum qy_status fill_all(struct qyi_bench_batch *b, struct qy_error *err)
{
    const uint64_t batch = b->engine.app->args->batch;
    enum qy_status st = QY_OK;
    for (uint64_t i = 0; st == QY_OK && i < batch; i++) {
        st = qy_sequence_open(b->engine.cache, &b->seqs[i], err);
    }
    if (st == QY_OK) {
        st = fill_first(b, err);
    }
    for (uint64_t i = 1; st == QY_OK && i < batch; i++) {
        st = qyi_engine_copy(&b->engine, b->seqs[i], b->seqs[0], err);
        if (st == QY_AGAIN) {
            st = qy_error_set(
                err, QY_ERR_NOMEM,
                "cache: room for %llu of %llu sequences; raise cache.host_bytes or lower "
                "--batch",
                (unsigned long long)i, (unsigned long long)batch);
        }
    }
    return st;
}

/* The link is slow for the steps alone: a context read over it may take hours, and is not what is
 * measured here. */
static enum qy_status fill(struct qyi_bench_batch *b, struct qy_error *err)
{
    const struct qy_link slow = qyi_link(b->engine.app), fast = {0};
    enum qy_status st = qy_device_set_link(b->engine.dev, &fast, err);
    if (st == QY_OK) {
        st = fill_all(b, err);
    }
    return st == QY_OK ? qy_device_set_link(b->engine.dev, &slow, err) : st;
}

/* Where in the text sequence i goes on. They share what follows the context, each from a place of its
 * own: sequences that read the same would choose the same, and all move rows at the same moment, which
 * users do not. */
static size_t place(const struct qyi_bench_batch *b, uint32_t i, uint32_t batch)
{
    const uint64_t context = b->engine.app->args->context;
    const uint64_t rest = b->n_text > context ? b->n_text - context : 0;
    const int is_short = rest / batch < TEXT_EACH;

    return is_short ? (size_t)((context + b->n_fed) % b->n_text)
                    : (size_t)(context + (i * (rest / batch) + b->n_fed) % rest);
}

/*
 * The text's own continuation (from its beginning after its end), because queries of random tokens
 * look elsewhere; random rows have none, and each sequence gets another token at every step.
 */
static void feed(struct qyi_bench_batch *b, uint32_t batch, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < batch; i++) {
        b->next[i] = b->text != NULL
                         ? b->text[place(b, i, batch)]
                         : (int32_t)((uint32_t)(b->next[i] * 31 + 7 * (int32_t)i + 1) % n_vocab);
    }
    b->n_fed++;
}

enum qy_status qyi_bench_batch_step(void *data, uint64_t *ns, struct qy_error *err)
{
    enum { MAX_BATCH = 1024 };
    struct qyi_bench_batch *b = data;
    const uint32_t batch = (uint32_t)b->engine.app->args->batch;
    const uint64_t begin = qy_clock_ns();
    struct qy_step_slice slices[MAX_BATCH];
    uint32_t rows[MAX_BATCH];
    feed(b, batch, qy_model_info(b->engine.model)->n_vocab);
    for (uint32_t i = 0; i < batch; i++) {
        slices[i] = (struct qy_step_slice){
            .seq = b->seqs[i], .n_tokens = 1, .ids = &b->next[i], .mode = QY_ATTEND_POLICY};
        rows[i] = i;
    }
    const enum qy_status st = qyi_engine_forward(&b->engine, slices, batch, rows, batch, err);
    *ns = qy_clock_ns() - begin;
    return st;
}

uint64_t qyi_bench_most_warm_up(const struct qyi_args *args)
{
    return args->warm_up == UINT64_MAX ? WARM_UP_DISCRETE : args->warm_up;
}

uint64_t qyi_bench_warm_up(const struct qyi_args *args, struct qy_device *dev)
{
    const int unified = qy_device_caps(dev)->unified;
    return args->warm_up == UINT64_MAX && unified ? WARM_UP : qyi_bench_most_warm_up(args);
}

enum qy_status qyi_bench_check(const struct qyi_args *args, struct qy_error *err)
{
    if (args->batch < 1 || args->batch > 1024 || args->context < 1 || args->steps < 1 ||
        args->steps > 100000 || qyi_bench_most_warm_up(args) > 100000 ||
        args->context > (1u << 26)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "bench %s: --batch 1 to 1024, --context 1 to 67108864, --steps 1 to 100000 and "
            "--warm-up 0 to 100000 are accepted",
            args->topic);
    }
    return QY_OK;
}

enum qy_status qyi_bench_batch_open(struct qyi_app *app, uint64_t most_tokens,
                                    struct qyi_bench_batch *b, struct qy_error *err)
{
    const struct qyi_args *args = app->args;
    const uint32_t chunk = (uint32_t)app->program.chunk, batch = (uint32_t)args->batch;
    const struct qyi_engine_params params = {.max_sequences = batch,
                                             .max_tokens = (uint32_t)most_tokens,
                                             .max_step_tokens = chunk > batch ? chunk : batch,
                                             .max_logits = batch};
    enum qy_status st = qyi_engine_open_file(app, &b->engine, err);
    if (st != QY_OK) {
        return st;
    }
    b->is_open = 1;
    b->seqs = calloc(batch, sizeof(struct qy_sequence *));
    b->next = calloc(batch, sizeof *b->next);
    if (b->seqs == NULL || b->next == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench %s: out of memory", args->topic);
    }
    st = qyi_engine_open_model(&b->engine, &params, err);
    return st == QY_OK ? fill(b, err) : st;
}

void qyi_bench_batch_close(struct qyi_bench_batch *b)
{
    if (!b->is_open) {
        return;
    }
    for (uint64_t i = 0; b->seqs != NULL && i < b->engine.app->args->batch; i++) {
        qy_sequence_close(b->seqs[i]);
    }
    qy_free(&b->engine.app->rt.mem, b->text);
    free(b->seqs);
    free(b->next);
    qyi_engine_close(&b->engine);
}
