/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tiny models against llama.cpp: each architecture, tensor type, head dimension and RoPE
 * convention, with rows in f32 and f16, in chunks of 1, 7 and all tokens, in blocks of 16 and 128,
 * with every kernel set that the machine has, on one thread and on two.
 *
 * Tolerances, as a share of the largest logit: 1e-3 with f32 rows (llama.cpp itself is within 2e-6
 * of an f64 evaluation here; the rest is room for other orders of summation), 1e-2 with f16 rows
 * (rounding K and V).
 */
#include "tests/support/test.h"

#include "model/model.h"
#include "tests/support/tiny_models.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char references[] = "tests/data/tiny";

/* A model opened from its bytes, with a cache of one kind of row. */
struct setup {
    struct qy_runtime rt;
    struct qy_error err;
    uint8_t *bytes;
    struct qy_gguf *gguf;
    struct qy_device *dev;
    struct qy_model *model;
    struct qy_cache *cache;
};

#define MUST(s, call)                                                                              \
    do {                                                                                           \
        if ((call) != QY_OK) {                                                                     \
            fail_msg("%s: %s", #call, (s)->err.text);                                              \
        }                                                                                          \
    } while (0)

static void open_model(struct setup *s, const struct tiny_spec *spec, enum qy_cpu_level level,
                       uint32_t n_threads)
{
    const struct qy_team_params team = {.n_threads = n_threads};
    size_t n;

    memset(s, 0, sizeof(*s));
    s->rt.mem = qy_allocator_system();
    s->rt.log = qy_log_stderr(QY_LOG_WARN);
    qy_cpu_detect(&s->rt.cpu);
    MUST(s, qy_cpu_choose(&s->rt.cpu, qy_cpu_level_name(level), &s->err));
    if (n_threads > 1) {
        MUST(s, qy_team_open(&s->rt.mem, &team, &s->rt.team, &s->err));
    }
    s->bytes = tiny_build(spec, &n);
    MUST(s, qy_gguf_open_memory(&s->rt.mem, s->bytes, n, spec->name, &s->gguf, &s->err));
    const struct qy_device_params device = {.spec = "host", .max_m = 64};
    MUST(s, qy_device_open(&s->rt, &device, &s->dev, &s->err));
    const struct qy_model_params model = {
        .rt = &s->rt, .dev = s->dev, .max_step_tokens = 64, .max_logits = 64};
    MUST(s, qy_model_open(&model, s->gguf, &s->model, &s->err));
}

static void open_cache(struct setup *s, enum qy_row_type rows, int64_t block_tokens)
{
    const struct qy_cache_params params = {
        .rt = &s->rt,
        .dev = s->dev,
        .shape = qy_model_kv_shape(s->model),
        .rope = qy_model_rope(s->model),
        .scale = qy_model_scale(s->model),
        .settings = {.block_tokens = block_tokens, .sinks = 4, .window = 8, .row_type = (int)rows},
        .policy = qy_policy_find("dense"),
        .budget = {.ratio = 1.0},
        .max_sequences = 4,
        .max_tokens = 64,
        .max_step_tokens = 64,
    };
    MUST(s, qy_cache_open(&params, &s->cache, &s->err));
}

static void close_cache(struct setup *s)
{
    qy_cache_close(s->cache);
    s->cache = NULL;
}

static void close_model(struct setup *s)
{
    qy_model_close(s->model);
    qy_device_close(s->dev);
    qy_team_close(s->rt.team);
    qy_gguf_close(s->gguf);
    free(s->bytes);
}

/* Logits of every position, the ids given in chunks. */
static void evaluate(struct setup *s, const int32_t *ids, uint32_t n, uint32_t chunk,
                     uint32_t n_vocab, float *logits)
{
    struct qy_sequence *seq = NULL;
    uint32_t rows[64];

    for (uint32_t i = 0; i < 64; i++) {
        rows[i] = i;
    }
    MUST(s, qy_sequence_open(s->cache, &seq, &s->err));
    for (uint32_t at = 0; at < n; at += chunk) {
        const uint32_t m = n - at < chunk ? n - at : chunk;
        const struct qy_step_slice slice = {
            .seq = seq, .n_tokens = m, .ids = ids + at, .mode = QY_ATTEND_POLICY};
        MUST(s, qy_model_forward(s->model, s->cache, &slice, 1, rows, m,
                                 logits + (size_t)at * n_vocab, &s->err));
    }
    assert_int_equal(qy_sequence_tokens(seq), n);
    qy_sequence_close(seq);
}

/* Largest difference as a share of the largest logit. */
static double distance(const float *logits, const float *expected, size_t n)
{
    double largest = 0.0;
    double diff = 0.0;

    for (size_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        const double d = fabs((double)logits[i] - (double)expected[i]);
        diff = d <= diff ? diff : d; /* a NaN is kept */
    }
    return diff / largest;
}

/* One kind of row and one block size; every chunk size. */
static void check_rows(struct setup *s, const struct tiny_reference *ref, enum qy_row_type rows,
                       int64_t block_tokens, double tolerance)
{
    const uint32_t chunks[] = {ref->n_ids, 7, 1};
    const size_t n_logits = (size_t)ref->n_ids * ref->n_vocab;
    const size_t skip = (size_t)ref->first_position * ref->n_vocab;
    float *logits = malloc(n_logits * sizeof(*logits));

    assert_non_null(logits);
    open_cache(s, rows, block_tokens);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        memset(logits, 0xff, n_logits * sizeof(*logits)); /* NaN: what is not written shows */
        evaluate(s, ref->ids, ref->n_ids, chunks[i], ref->n_vocab, logits);
        const double d =
            distance(logits + skip, ref->logits, (size_t)ref->n_positions * ref->n_vocab);
        if (!(d <= tolerance)) {
            fail_msg("%s, %s rows, blocks of %d, chunks of %u: off by %.3e of the largest logit",
                     qy_cpu_level_name(s->rt.cpu.use), rows == QY_ROW_F32 ? "f32" : "f16",
                     (int)block_tokens, chunks[i], d);
        }
    }
    close_cache(s);
    free(logits);
}

static void check_model(const char *name)
{
    const struct tiny_spec *spec = tiny_spec_find(name);
    struct qy_cpu cpu;
    struct tiny_reference ref;

    assert_non_null(spec);
    assert_int_equal(tiny_reference_load(references, name, &ref), 0);
    qy_cpu_detect(&cpu);
    for (int level = QY_CPU_PLAIN; level <= (int)cpu.best; level++) {
        struct setup s;
        const uint32_t n_threads = level == QY_CPU_AVX2 ? 2 : 1;
        open_model(&s, spec, (enum qy_cpu_level)level, n_threads);
        const struct qy_model_info *info = qy_model_info(s.model);
        assert_string_equal(info->architecture, spec->architecture);
        assert_int_equal(info->n_vocab, ref.n_vocab);
        assert_int_equal(info->head_dim, spec->head_dim);
        check_rows(&s, &ref, QY_ROW_F32, 16, 1e-3);
        check_rows(&s, &ref, QY_ROW_F16, 16, 1e-2);
        if (level == (int)cpu.best) {
            check_rows(&s, &ref, QY_ROW_F32, 128, 1e-3);
        }
        close_model(&s);
    }
    tiny_reference_free(&ref);
}

static void tiny_model_gives_llamacpp_logits(void **state)
{
    check_model(*state);
}

/* Four sequences of different lengths in one step answer as each does alone. */
static void tiny_batch_gives_each_sequence_its_own_answer(void **state)
{
    enum { N = 4 };
    const uint32_t lengths[N] = {1, 5, 17, 24};
    const struct tiny_spec *spec = tiny_spec_find("llama_q4_1");
    struct qy_sequence *seqs[N];
    struct qy_step_slice slices[N];
    struct tiny_reference ref;
    struct qy_cpu cpu;
    struct setup s;
    uint32_t rows[N];
    uint32_t row = 0;
    (void)state;

    assert_int_equal(tiny_reference_load(references, spec->name, &ref), 0);
    qy_cpu_detect(&cpu);
    open_model(&s, spec, cpu.best, 2);
    open_cache(&s, QY_ROW_F32, 16);
    const uint32_t n_vocab = ref.n_vocab;
    float *alone = malloc((size_t)ref.n_ids * n_vocab * sizeof(*alone));
    float *batch = malloc((size_t)N * n_vocab * sizeof(*batch));
    assert_true(alone && batch);
    evaluate(&s, ref.ids, ref.n_ids, ref.n_ids, n_vocab, alone);
    for (uint32_t i = 0; i < N; i++) {
        MUST(&s, qy_sequence_open(s.cache, &seqs[i], &s.err));
        slices[i] = (struct qy_step_slice){.seq = seqs[i], .n_tokens = lengths[i], .ids = ref.ids};
        row += lengths[i];
        rows[i] = row - 1;
    }
    MUST(&s, qy_model_forward(s.model, s.cache, slices, N, rows, N, batch, &s.err));
    for (uint32_t i = 0; i < N; i++) {
        const float *expected = alone + (size_t)(lengths[i] - 1) * n_vocab;
        assert_true(distance(batch + (size_t)i * n_vocab, expected, n_vocab) <= 1e-3);
        qy_sequence_close(seqs[i]);
    }
    free(batch);
    free(alone);
    close_cache(&s);
    close_model(&s);
    tiny_reference_free(&ref);
}

/* llama.cpp's ids of a text with contractions, digits, spaces and accents, and of a chat with
 * special tokens; and the text comes back. */
static void check_ids(const struct qy_tokenizer *tokenizer, const char *text, unsigned flags,
                      const int32_t *expected, uint32_t n_expected)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_error err = {0};
    int32_t *ids = NULL;
    size_t n = 0;

    if (qy_tokenizer_encode(tokenizer, text, strlen(text), flags, &ids, &n, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    for (size_t i = 0; i < n && i < n_expected; i++) {
        if (ids[i] != expected[i]) {
            fail_msg("id %zu of %zu is %d, not %d", i, n, ids[i], expected[i]);
        }
    }
    assert_int_equal(n, n_expected);
    qy_free(&mem, ids);
}

static void tiny_vocabulary_gives_llamacpp_ids(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct tiny_spec *spec = tiny_spec_find(*state);
    struct qy_tokenizer *tokenizer = NULL;
    struct qy_gguf *gguf = NULL;
    struct tiny_reference ref;
    struct qy_error err = {0};
    char *text = NULL;
    size_t n = 0;

    uint8_t *bytes = tiny_build(spec, &n);
    assert_int_equal(tiny_reference_load(references, spec->name, &ref), 0);
    assert_int_equal(qy_gguf_open_memory(&mem, bytes, n, spec->name, &gguf, &err), QY_OK);
    if (qy_tokenizer_open(&mem, gguf, &tokenizer, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    check_ids(tokenizer, tiny_text, 0, ref.text_ids, ref.n_text);
    check_ids(tokenizer, tiny_chat, QY_ENCODE_SPECIAL | QY_ENCODE_BOS, ref.chat_ids, ref.n_chat);
    assert_int_equal(qy_tokenizer_decode(tokenizer, ref.text_ids, ref.n_text, 0, &text, &n, &err),
                     QY_OK);
    assert_int_equal(n, strlen(tiny_text));
    assert_string_equal(text, tiny_text);
    qy_free(&mem, text);
    qy_tokenizer_close(tokenizer);
    qy_gguf_close(gguf);
    tiny_reference_free(&ref);
    free(bytes);
}

static struct CMUnitTest named_test(const char *prefix, const char *name, CMUnitTestFunction test)
{
    static char names[64][64];
    static size_t n;
    char *text = names[n++];

    (void)snprintf(text, sizeof(names[0]), "%s_%s", prefix, name);
    return (struct CMUnitTest){text, test, NULL, NULL, (void *)(uintptr_t)name};
}

int main(void)
{
    struct CMUnitTest tests[32];
    size_t n = 0;

    for (size_t i = 0; tiny_spec_at(i); i++) {
        const char *name = tiny_spec_at(i)->name;
        tests[n++] = named_test("tiny_logits", name, tiny_model_gives_llamacpp_logits);
        tests[n++] = named_test("tiny_ids", name, tiny_vocabulary_gives_llamacpp_ids);
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(tiny_batch_gives_each_sequence_its_own_answer);
    return _cmocka_run_group_tests("tiny_models", tests, n, NULL, NULL);
}
