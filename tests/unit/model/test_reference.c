/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real model against reference values (f32 weights and KV, an independent implementation):
 * log-probabilities of two texts of 8,192 tokens, logits at 16 positions, greedy continuations,
 * and sequences of different lengths in one batch.
 *
 * Tolerances. f16 rows alone move single logits by up to 0.03 (mean 0.0014) on this model, so 0.05
 * and 0.01 leave room for nothing but the order of sums; f32 rows must be ten times closer. A
 * greedy id may differ only after a step whose two best logits were within 0.05.
 *
 * usage: test_reference rows|short
 */
#include "tests/support/test.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "tests/support/real_model.h"

enum { CHUNK = 128, N_TOKENS = 8192, F32_TOKENS = 2048, FROM = 512 };

struct rig {
    struct qy_runtime rt;
    struct qy_device *dev;
    struct qy_gguf *gguf;
    struct qy_model *model;
    struct qy_cache *cache;
    float *logits;
    uint32_t n_vocab;
};

struct reference {
    uint32_t n, rows, columns;
    uint16_t *ids;
    float *logprobs;
    uint32_t *positions, *sampled;
    float *logits;
};

static void rig_open(struct rig *rig, enum qy_row_type rows, uint32_t sequences, uint32_t tokens)
{
    struct qy_error err = {0};
    memset(rig, 0, sizeof *rig);
    rig->rt.mem = qy_allocator_system();
    rig->rt.log = qy_log_stderr(QY_LOG_WARN);
    qy_cpu_detect(&rig->rt.cpu);
    const struct qy_team_params team = {.n_threads = 2, .spin_us = 50};
    assert_int_equal(qy_team_open(&rig->rt.mem, &team, &rig->rt.team, &err), QY_OK);
    const struct qy_device_params dev = {.spec = "host", .max_m = CHUNK};
    assert_int_equal(qy_device_open(&rig->rt, &dev, &rig->dev, &err), QY_OK);
    assert_int_equal(qy_gguf_open(&rig->rt.mem, real_model_path(), &rig->gguf, &err), QY_OK);
    const struct qy_model_params model = {
        .rt = &rig->rt, .dev = rig->dev, .max_step_tokens = CHUNK, .max_logits = CHUNK};
    if (qy_model_open(&model, rig->gguf, &rig->model, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    const struct qy_cache_params cache = {
        .rt = &rig->rt,
        .dev = rig->dev,
        .shape = qy_model_kv_shape(rig->model),
        .rope = qy_model_rope(rig->model),
        .settings = {.block_tokens = 128, .sinks = 8, .window = 64, .row_type = (int)rows},
        .policy = qy_policy_find("dense"),
        .budget = {.ratio = 1.0},
        .max_sequences = sequences,
        .max_tokens = tokens,
        .max_step_tokens = CHUNK};
    if (qy_cache_open(&cache, &rig->cache, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    rig->n_vocab = qy_model_info(rig->model)->n_vocab;
    rig->logits = malloc((size_t)CHUNK * rig->n_vocab * sizeof(float));
    assert_non_null(rig->logits);
}

static void rig_close(struct rig *rig)
{
    free(rig->logits);
    qy_cache_close(rig->cache);
    qy_model_close(rig->model);
    qy_gguf_close(rig->gguf);
    qy_device_close(rig->dev);
    qy_team_close(rig->rt.team);
}

static void read_exact(FILE *file, void *out, size_t bytes)
{
    assert_int_equal(fread(out, 1, bytes, file), bytes);
}

static void *read_array(FILE *file, size_t bytes)
{
    void *out = malloc(bytes);
    assert_non_null(out);
    read_exact(file, out, bytes);
    return out;
}

static void reference_open(struct reference *r, int text)
{
    char path[64];
    snprintf(path, sizeof path, "tests/data/reference/text%d.bin", text);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    read_exact(file, &r->n, 4);
    read_exact(file, &r->rows, 4);
    read_exact(file, &r->columns, 4);
    assert_int_equal(r->n, N_TOKENS);
    r->ids = read_array(file, r->n * 2u);
    r->logprobs = read_array(file, r->n * 4u);
    r->positions = read_array(file, r->rows * 4u);
    r->sampled = read_array(file, r->columns * 4u);
    r->logits = read_array(file, (size_t)r->rows * r->columns * 4u);
    fclose(file);
}

static void reference_close(struct reference *r)
{
    free(r->ids);
    free(r->logprobs);
    free(r->positions);
    free(r->sampled);
    free(r->logits);
}

struct difference {
    double logit_sum, logit_max, logprob_sum, nll, reference_nll;
    uint64_t logits, logprobs, scored;
};

/* Books the rows of one chunk that starts at position `at`. */
static void compare_chunk(const struct rig *rig, const struct reference *r, uint32_t at, uint32_t n,
                          uint32_t n_tokens, struct difference *d)
{
    for (uint32_t i = 0; i < n; i++) {
        const float *row = rig->logits + (size_t)i * rig->n_vocab;
        for (uint32_t p = 0; p < r->rows; p++) {
            for (uint32_t c = 0; r->positions[p] == at + i && c < r->columns; c++) {
                const double diff =
                    fabs((double)row[r->sampled[c]] - (double)r->logits[p * r->columns + c]);
                assert_false(isnan(diff));
                d->logit_max = fmax(d->logit_max, diff);
                d->logit_sum += diff;
                d->logits++;
            }
        }
        const uint32_t next = at + i + 1;
        if (next < n_tokens) {
            const double lp = qy_log_prob(row, rig->n_vocab, r->ids[next]);
            assert_false(isnan(lp));
            d->logprob_sum += fabs(lp - (double)r->logprobs[next]);
            d->logprobs++;
            if (next >= FROM) {
                d->nll -= lp;
                d->reference_nll -= (double)r->logprobs[next];
                d->scored++;
            }
        }
    }
}

static void compare_text(enum qy_row_type rows, int text, uint32_t n_tokens, double closer)
{
    struct rig rig;
    struct reference r;
    struct difference d = {0};
    struct qy_error err = {0};
    rig_open(&rig, rows, 1, N_TOKENS);
    reference_open(&r, text);
    struct qy_sequence *seq = NULL;
    assert_int_equal(qy_sequence_open(rig.cache, &seq, &err), QY_OK);
    for (uint32_t at = 0; at < n_tokens; at += CHUNK) {
        int32_t ids[CHUNK];
        uint32_t all[CHUNK];
        for (uint32_t i = 0; i < CHUNK; i++) {
            ids[i] = r.ids[at + i];
            all[i] = i;
        }
        const struct qy_step_slice slice = {
            .seq = seq, .n_tokens = CHUNK, .ids = ids, .mode = QY_ATTEND_DENSE};
        if (qy_model_forward(rig.model, rig.cache, &slice, 1, all, CHUNK, rig.logits, &err) !=
            QY_OK) {
            fail_msg("%s", err.text);
        }
        compare_chunk(&rig, &r, at, CHUNK, n_tokens, &d);
    }
    assert_int_equal(qy_sequence_verify(seq, &err), QY_OK);
    const double ppl = exp(d.nll / (double)d.scored);
    const double reference_ppl = exp(d.reference_nll / (double)d.scored);
    printf(
        "text %d, %s rows: ppl %.4f (reference %.4f), log-probability differs by %.6f on average, "
        "logits by %.6f on average and %.6f at most\n",
        text, rows == QY_ROW_F16 ? "f16" : "f32", ppl, reference_ppl,
        d.logprob_sum / (double)d.logprobs, d.logit_sum / (double)d.logits, d.logit_max);
    assert_int_equal(d.logits, (uint64_t)(n_tokens == N_TOKENS ? r.rows : 8) * r.columns);
    assert_int_equal(d.scored, n_tokens - FROM);
    assert_true(fabs(ppl / reference_ppl - 1.0) <= 0.003 / closer);
    assert_true(d.logprob_sum / (double)d.logprobs <= 0.01 / closer);
    assert_true(d.logit_sum / (double)d.logits <= 0.01 / closer);
    assert_true(d.logit_max <= 0.05 / closer);
    qy_sequence_close(seq);
    reference_close(&r);
    rig_close(&rig);
}

static void logits_with_f16_rows_are_near_the_reference(void **state)
{
    (void)state;
    compare_text(QY_ROW_F16, 1, N_TOKENS, 1.0);
    compare_text(QY_ROW_F16, 2, N_TOKENS, 1.0);
}

static void logits_with_f32_rows_are_ten_times_nearer(void **state)
{
    (void)state;
    compare_text(QY_ROW_F32, 1, F32_TOKENS, 10.0);
    compare_text(QY_ROW_F32, 2, F32_TOKENS, 10.0);
}

/* Feeds ids densely; the logits of the last one are in rig->logits. */
static void feed(struct rig *rig, struct qy_sequence *seq, const int32_t *ids, uint32_t n)
{
    struct qy_error err = {0};
    const uint32_t last = n - 1;
    const struct qy_step_slice slice = {
        .seq = seq, .n_tokens = n, .ids = ids, .mode = QY_ATTEND_DENSE};
    if (qy_model_forward(rig->model, rig->cache, &slice, 1, &last, 1, rig->logits, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

static int32_t best(const float *logits, uint32_t n)
{
    uint32_t at = 0;
    for (uint32_t i = 1; i < n; i++) {
        at = logits[i] > logits[at] ? i : at;
    }
    return (int32_t)at;
}

static cJSON *read_greedy(void)
{
    FILE *file = fopen("tests/data/reference/greedy.json", "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    cJSON *all = cJSON_Parse(text);
    free(text);
    assert_non_null(all);
    return all;
}

static void greedy_ids_follow_the_reference_to_the_first_small_gap(void **state)
{
    (void)state;
    struct rig rig;
    struct qy_error err = {0};
    rig_open(&rig, QY_ROW_F16, 1, 512);
    cJSON *all = read_greedy();
    int compared = 0;
    const cJSON *one = NULL;
    cJSON_ArrayForEach(one, all)
    {
        int32_t prompt[CHUNK];
        uint32_t n = 0;
        const cJSON *id = NULL, *gaps = cJSON_GetObjectItem(one, "f32_gap");
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(one, "prompt_ids"))
        {
            assert_true(n < CHUNK);
            prompt[n++] = id->valueint;
        }
        struct qy_sequence *seq = NULL;
        assert_int_equal(qy_sequence_open(rig.cache, &seq, &err), QY_OK);
        feed(&rig, seq, prompt, n);
        int step = 0;
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(one, "f32_ids"))
        {
            if (cJSON_GetArrayItem(gaps, step)->valuedouble < 0.05) {
                break;
            }
            const int32_t got = best(rig.logits, rig.n_vocab);
            assert_int_equal(got, id->valueint);
            feed(&rig, seq, &got, 1);
            step++;
            compared++;
        }
        printf("%s: %d ids equal\n", cJSON_GetObjectItem(one, "kind")->valuestring, step);
        qy_sequence_close(seq);
    }
    assert_true(compared >= 100);
    cJSON_Delete(all);
    rig_close(&rig);
}

/* Each of four sequences of different lengths gives in a batch what it gives alone. */
static void batch_of_four_lengths_gives_each_its_own_answer(void **state)
{
    enum { N = 4, STEPS = 8 };
    static const uint32_t lengths[N] = {1, 37, 300, 129};
    (void)state;
    struct rig rig;
    struct reference r;
    struct qy_error err = {0};
    rig_open(&rig, QY_ROW_F16, 2 * N, 512);
    reference_open(&r, 2);
    struct qy_sequence *seqs[2 * N]; /* N for the batch, N alone */
    int32_t ids[512];
    float *alone = malloc((size_t)N * rig.n_vocab * sizeof(float));
    assert_non_null(alone);
    for (uint32_t i = 0; i < 512; i++) {
        ids[i] = r.ids[i];
    }
    for (uint32_t s = 0; s < 2 * N; s++) {
        assert_int_equal(qy_sequence_open(rig.cache, &seqs[s], &err), QY_OK);
        for (uint32_t at = 0; at < lengths[s % N]; at += CHUNK) {
            const uint32_t left = lengths[s % N] - at;
            feed(&rig, seqs[s], ids + at, left < CHUNK ? left : CHUNK);
        }
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        struct qy_step_slice slices[N];
        uint32_t rows[N];
        for (uint32_t s = 0; s < N; s++) {
            const int32_t *next = ids + lengths[s] + step;
            feed(&rig, seqs[N + s], next, 1);
            memcpy(alone + (size_t)s * rig.n_vocab, rig.logits, rig.n_vocab * sizeof(float));
            slices[s] = (struct qy_step_slice){
                .seq = seqs[s], .n_tokens = 1, .ids = next, .mode = QY_ATTEND_DENSE};
            rows[s] = s;
        }
        assert_int_equal(
            qy_model_forward(rig.model, rig.cache, slices, N, rows, N, rig.logits, &err), QY_OK);
        for (size_t i = 0; i < (size_t)N * rig.n_vocab; i++) {
            assert_true(fabsf(rig.logits[i] - alone[i]) <= 1e-3f);
        }
    }
    for (uint32_t s = 0; s < 2 * N; s++) {
        qy_sequence_close(seqs[s]);
    }
    free(alone);
    reference_close(&r);
    rig_close(&rig);
}

int main(int argc, char **argv)
{
    if (real_model_path() == NULL) {
        printf("skipped: the real model is not there; scripts/fetch-model gets it\n");
        return 77;
    }
    const char *part = argc > 1 ? argv[1] : "";
    const struct CMUnitTest rows[] = {
        cmocka_unit_test(logits_with_f16_rows_are_near_the_reference),
        cmocka_unit_test(logits_with_f32_rows_are_ten_times_nearer),
    };
    const struct CMUnitTest short_tests[] = {
        cmocka_unit_test(greedy_ids_follow_the_reference_to_the_first_small_gap),
        cmocka_unit_test(batch_of_four_lengths_gives_each_its_own_answer),
    };
    if (strcmp(part, "rows") == 0) {
        return cmocka_run_group_tests(rows, NULL, NULL);
    }
    return cmocka_run_group_tests(short_tests, NULL, NULL);
}
