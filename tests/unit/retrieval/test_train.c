/* SPDX-License-Identifier: Apache-2.0 */
/* What is learnt serves the queries it was learnt for: score errors on synthetic keys. */
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 32, M = 8, N = 3000, PAIRS = D / 2, PROBES = 300, FAR = 512 };

struct world {
    float inv_freq[PAIRS];
    struct qy_rope rope;
    float *k, *q; /* [N][D] before RoPE */
    uint16_t *k16;
    double query[D * D];
};

static float normal(uint64_t *state)
{
    float sum = 0; /* of twelve uniform numbers: variance 1 */

    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) / (1 << 24);
    }
    return sum - 6.0f;
}

static void pair_of(const struct qy_rope *rope, uint32_t f, uint32_t *a, uint32_t *b)
{
    *a = rope->pairs == QY_ROPE_ADJACENT ? 2 * f : f;
    *b = rope->pairs == QY_ROPE_ADJACENT ? 2 * f + 1 : f + rope->dim / 2;
}

/* Keys whose pairs differ in size by 50, neighbours alike, and queries that look at the small ones:
 * a plain quantizer spends its words where no query looks. */
static void make_world(struct world *w, enum qy_rope_pairs pairs, uint32_t dim)
{
    uint64_t seed = 11;

    memset(w, 0, sizeof *w);
    w->rope = (struct qy_rope){.dim = dim, .pairs = pairs, .inv_freq = w->inv_freq};
    for (uint32_t f = 0; f < PAIRS; f++) {
        w->inv_freq[f] = powf(10000.0f, -(float)f / PAIRS);
    }
    w->k = malloc(N * D * sizeof *w->k);
    w->q = malloc(N * D * sizeof *w->q);
    w->k16 = malloc(N * D * sizeof *w->k16);
    assert_true(w->k != NULL && w->q != NULL && w->k16 != NULL);
    for (int i = 0; i < N; i++) {
        for (uint32_t f = 0; f < PAIRS; f++) {
            const float size =
                powf(50.0f, -(float)(f / 4) / (PAIRS / 4 - 1)); /* steps of 4 pairs */
            uint32_t a = 2 * f, b = 2 * f + 1;

            if (f < dim / 2) {
                pair_of(&w->rope, f, &a, &b);
            }
            w->k[i * D + (int)a] = size * (2.0f + normal(&seed));
            w->k[i * D + (int)b] = size * normal(&seed);
            w->q[i * D + (int)a] = normal(&seed) / (size + 0.02f) * (f / 4 == 3 ? 3 : 0.3f);
            w->q[i * D + (int)b] = normal(&seed) / (size + 0.02f) * (f / 4 == 3 ? 3 : 0.3f);
        }
    }
    for (int i = 0; i < N; i++) {
        for (int a = 0; a < D; a++) {
            w->k16[i * D + a] = qy_f16_from_f32(w->k[i * D + a]);
            for (int b = 0; b < D; b++) {
                w->query[a * D + b] += (double)w->q[i * D + a] * w->q[i * D + b] / N;
            }
        }
    }
}

static void free_world(struct world *w)
{
    free(w->k);
    free(w->q);
    free(w->k16);
}

static void turn(const struct qy_rope *rope, const float *x, uint32_t position, float *out)
{
    memcpy(out, x, D * sizeof *out);
    for (uint32_t f = 0; f < rope->dim / 2; f++) {
        const double angle = (double)position * rope->inv_freq[f];
        uint32_t a, b;

        pair_of(rope, f, &a, &b);
        out[a] = (float)(x[a] * cos(angle) - x[b] * sin(angle));
        out[b] = (float)(x[a] * sin(angle) + x[b] * cos(angle));
    }
}

/* Encodes by the definition in gpu/gpu.h and decodes. */
static void quantize(const struct qy_quantizer *q, const float *k, float *out)
{
    const uint32_t sub = q->d / q->m;

    for (uint32_t j = 0; j < q->m; j++) {
        uint32_t best = 0;
        float most = -INFINITY;

        for (uint32_t w = 0; w < q->n_words; w++) {
            float score = -q->bias[j * q->n_words + w];

            for (uint32_t e = 0; e < sub; e++) {
                const uint32_t at = j * sub + e;

                score += q->encode[at * q->n_words + w] * k[q->order ? q->order[at] : at];
            }
            if (score > most) {
                most = score;
                best = w;
            }
        }
        for (uint32_t e = 0; e < sub; e++) {
            const uint32_t at = j * sub + e;

            out[q->order ? q->order[at] : at] = q->decode[at * q->n_words + best];
        }
    }
}

static struct qy_codebook *learn(const struct world *w, enum qy_codebook_kind kind,
                                 enum qy_metric metric, uint32_t d, double *distortion)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_codebook_info info = {.kind = kind,
                                          .n_layers = 1,
                                          .n_kv_heads = 1,
                                          .head_dim = d,
                                          .m = kind == QY_CODEBOOK_PQ4 ? M : 1,
                                          .bits = kind == QY_CODEBOOK_PQ4 ? 4 : 16,
                                          .n_words = kind == QY_CODEBOOK_PQ4 ? 16 : 300};
    const struct qy_train_params params = {
        .rope = w->rope, .metric = metric, .max_position = FAR, .iterations = 10, .seed = 1};
    const struct qy_train_samples samples = {.k = w->k16, .n = N, .query = w->query};
    struct qy_codebook *codebook = NULL;
    struct qy_error err = {0};

    assert_int_equal(qy_codebook_new(&mem, &info, &codebook, NULL), QY_OK);
    if (qy_codebook_train(codebook, 0, 0, &params, &samples, distortion, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return codebook;
}

/* Mean squared error of scores over probes; positions by place. after: the codebook is of keys
 * after RoPE; else the key is quantized before it. */
static double score_error(const struct world *w, const struct qy_codebook *codebook, int after)
{
    const struct qy_quantizer quantizer = qy_codebook_quantizer(codebook, 0, 0);
    double sum = 0;

    for (int i = 0; i < PROBES; i++) {
        const uint32_t at = (uint32_t)(i * 7919) % FAR;
        float q[D], k[D], coded[D], decoded[D];

        turn(&w->rope, w->q + (size_t)(N - 1 - i) * D, FAR + 100, q);
        turn(&w->rope, w->k + (size_t)i * 9 * D, at, k);
        if (after) {
            quantize(&quantizer, k, decoded);
        } else {
            quantize(&quantizer, w->k + (size_t)i * 9 * D, coded);
            turn(&w->rope, coded, at, decoded);
        }
        double error = 0;
        for (int e = 0; e < D; e++) {
            error += (double)q[e] * (k[e] - decoded[e]);
        }
        sum += error * error / PROBES;
    }
    return sum;
}

/* The same number of words without weights: they go where keys are large, not where queries look.
 */
static void train_pq4_beats_a_plain_product_quantizer(void **state)
{
    (void)state;

    for (int halves = 0; halves < 2; halves++) {
        for (uint32_t dim = D / 2; dim <= D; dim += D / 2) { /* half of the elements not rotated */
            struct world w;
            double distortion = -1;

            make_world(&w, halves ? QY_ROPE_HALVES : QY_ROPE_ADJACENT, dim);
            struct qy_codebook *rotary = learn(&w, QY_CODEBOOK_PQ4, QY_METRIC_AUTO, D, &distortion);
            struct qy_codebook *plain = learn(&w, QY_CODEBOOK_PQ4, QY_METRIC_PLAIN, D, NULL);
            assert_true(distortion > 0 && distortion < 1);
            const double with = score_error(&w, rotary, 1), without = score_error(&w, plain, 1);
            assert_true(with < 0.4 * without);
            qy_codebook_close(rotary);
            qy_codebook_close(plain);
            free_world(&w);
        }
    }
}

/* Pairs stay together, each element appears once, and both elements of a pair share a scale:
 * encode / word = scale = word / decode, so encode / decode = scale^2. */
static void train_pq4_order_and_scale_are_of_pairs(void **state)
{
    (void)state;

    for (int halves = 0; halves < 2; halves++) {
        struct world w;
        float scale[D];
        int seen[D] = {0};

        make_world(&w, halves ? QY_ROPE_HALVES : QY_ROPE_ADJACENT, D);
        struct qy_codebook *codebook = learn(&w, QY_CODEBOOK_PQ4, QY_METRIC_ROTARY, D, NULL);
        const struct qy_quantizer q = qy_codebook_quantizer(codebook, 0, 0);
        for (uint32_t e = 0; e < D; e++) {
            assert_int_equal(seen[q.order[e]]++, 0);
            for (uint32_t i = 0; i < 16; i++) {
                if (q.decode[e * 16 + i] != 0) {
                    scale[q.order[e]] = sqrtf(q.encode[e * 16 + i] / q.decode[e * 16 + i]);
                }
            }
        }
        for (uint32_t f = 0; f < PAIRS; f++) {
            uint32_t a, b;

            pair_of(&w.rope, f, &a, &b);
            const double mean = (w.query[a * D + a] + w.query[b * D + b]) / 2;
            assert_true(fabs(scale[a] - scale[b]) <= 1e-4f * scale[a]);
            assert_true(fabs(scale[a] - sqrt(mean)) <= 1e-3 * sqrt(mean));
        }
        for (uint32_t e = 0; e < D; e += 2) { /* places 2i, 2i + 1 hold one pair */
            uint32_t f = halves ? q.order[e] % (D / 2) : q.order[e] / 2u, a, b;

            pair_of(&w.rope, f, &a, &b);
            assert_int_equal(q.order[e], a);
            assert_int_equal(q.order[e + 1], b);
        }
        qy_codebook_close(codebook);
        free_world(&w);
    }
}

static void train_vq_follows_the_queries(void **state)
{
    struct world w;
    double error[5] = {0};
    (void)state;

    make_world(&w, QY_ROPE_HALVES, D);
    for (enum qy_metric metric = QY_METRIC_PLAIN; metric <= QY_METRIC_QUERY_AVERAGE; metric++) {
        double distortion = -1;
        struct qy_codebook *codebook = learn(&w, QY_CODEBOOK_VQ, metric, D, &distortion);

        error[metric] = score_error(&w, codebook, 0);
        assert_true(distortion > 0 && distortion < 1);
        qy_codebook_close(codebook);
    }
    assert_true(error[QY_METRIC_QUERY] < 0.8 * error[QY_METRIC_PLAIN]);
    assert_true(error[QY_METRIC_QUERY_AVERAGE] < 0.8 * error[QY_METRIC_PLAIN]);
    free_world(&w);
}

/* H of metric `query` is E[q~^T q~] of queries turned to the distance: encode = L word and decode =
 * word L^-1 give it back as far as words span it. */
static void train_vq_metric_is_that_of_turned_queries(void **state)
{
    struct world w;
    double h[D * D] = {0}, mean = 0;
    (void)state;

    make_world(&w, QY_ROPE_ADJACENT, D);
    for (int i = 0; i < N; i++) {
        float q[D];

        turn(&w.rope, w.q + (size_t)i * D, 2048, q);
        for (int a = 0; a < D; a++) {
            for (int b = 0; b < D; b++) {
                h[a * D + b] += (double)q[a] * q[b] / N;
            }
        }
    }
    for (int i = 0; i < D * D; i++) {
        mean += h[i] * h[i] / (D * D);
    }
    struct qy_codebook *codebook = learn(&w, QY_CODEBOOK_VQ, QY_METRIC_QUERY, D, NULL);
    const struct qy_quantizer q = qy_codebook_quantizer(codebook, 0, 0);
    for (uint32_t word = 0; word < q.n_words; word++) { /* H decode^T = L L^T L^-T word = encode */
        double off = 0, size = 0;

        for (int a = 0; a < D; a++) {
            double sum = 0;

            for (int b = 0; b < D; b++) {
                sum += h[a * D + b] / sqrt(mean) * q.decode[(uint32_t)b * q.n_words + word];
            }
            off += fabs(sum - q.encode[(uint32_t)a * q.n_words + word]);
            size += fabs(sum);
        }
        assert_true(off <= 2e-3 * size);
    }
    qy_codebook_close(codebook);
    free_world(&w);
}

static void train_is_determined_by_its_seed(void **state)
{
    struct world w;
    (void)state;

    make_world(&w, QY_ROPE_HALVES, D);
    struct qy_codebook *a = learn(&w, QY_CODEBOOK_PQ4, QY_METRIC_AUTO, D, NULL);
    struct qy_codebook *b = learn(&w, QY_CODEBOOK_PQ4, QY_METRIC_AUTO, D, NULL);
    const struct qy_quantizer p = qy_codebook_quantizer(a, 0, 0);
    const struct qy_quantizer q = qy_codebook_quantizer(b, 0, 0);
    assert_memory_equal(p.encode, q.encode, D * 16 * sizeof(float));
    qy_codebook_close(a);
    qy_codebook_close(b);
    free_world(&w);
}

static void train_refuses_what_it_cannot_learn_from(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_codebook_info info = {.kind = QY_CODEBOOK_PQ4,
                                          .n_layers = 1,
                                          .n_kv_heads = 1,
                                          .head_dim = 4,
                                          .m = 1,
                                          .bits = 4,
                                          .n_words = 16};
    struct qy_train_params params = {.metric = QY_METRIC_QUERY, .max_position = 8, .iterations = 2};
    const uint16_t k[8] = {0, 0, 0x7e00 /* NaN */, 0};
    struct qy_train_samples samples = {.k = k, .n = 2};
    struct qy_codebook *codebook = NULL;
    struct qy_error err = {0};
    enum qy_metric metric;
    (void)state;

    assert_int_equal(qy_codebook_new(&mem, &info, &codebook, NULL), QY_OK);
    assert_int_equal(qy_codebook_train(codebook, 0, 0, &params, &samples, NULL, &err),
                     QY_ERR_CONFIG);
    params.metric = QY_METRIC_AUTO;
    assert_int_equal(qy_codebook_train(codebook, 0, 0, &params, &samples, NULL, &err),
                     QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "layer 0, KV head 0"));
    samples.n = 0;
    assert_int_equal(qy_codebook_train(codebook, 0, 0, &params, &samples, NULL, &err),
                     QY_ERR_INVALID);
    assert_false(qy_codebook_has(codebook, 0, 0));
    assert_int_equal(qy_metric_parse("nearly", &metric, &err), QY_ERR_CONFIG);
    assert_int_equal(qy_metric_parse(qy_metric_name(QY_METRIC_QUERY_AVERAGE), &metric, &err),
                     QY_OK);
    assert_int_equal(metric, QY_METRIC_QUERY_AVERAGE);
    qy_codebook_close(codebook);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(train_pq4_beats_a_plain_product_quantizer),
        cmocka_unit_test(train_pq4_order_and_scale_are_of_pairs),
        cmocka_unit_test(train_vq_follows_the_queries),
        cmocka_unit_test(train_vq_metric_is_that_of_turned_queries),
        cmocka_unit_test(train_is_determined_by_its_seed),
        cmocka_unit_test(train_refuses_what_it_cannot_learn_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
