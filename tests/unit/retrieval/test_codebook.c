/* SPDX-License-Identifier: Apache-2.0 */
/* Codebooks: what is set comes back folded as the quantizer is defined; what is wrong is named. */
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { D = 24, M = 6, SUB = D / M, WORDS = 16, VQ_WORDS = 40 };

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static float uniform(uint32_t *state)
{
    return (float)next(state) / (float)(1 << 23) - 1.0f;
}

static struct qy_codebook_info pq4_info(void)
{
    return (struct qy_codebook_info){.kind = QY_CODEBOOK_PQ4,
                                     .model_hash = 77,
                                     .model_name = "small",
                                     .n_layers = 2,
                                     .n_kv_heads = 3,
                                     .head_dim = D,
                                     .m = M,
                                     .bits = 4,
                                     .n_words = WORDS,
                                     .metric = "rotary"};
}

static struct qy_codebook_info vq_info(void)
{
    struct qy_codebook_info info = pq4_info();

    info.kind = QY_CODEBOOK_VQ;
    info.m = 1;
    info.bits = 16;
    info.n_words = VQ_WORDS;
    return info;
}

static struct qy_codebook *new_codebook(const struct qy_codebook_info *info)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_codebook *codebook = NULL;
    struct qy_error err = {0};

    assert_int_equal(qy_codebook_new(&mem, info, &codebook, &err), QY_OK);
    return codebook;
}

/* Every word of PQ4: z = scale * k[order]; encode = scale word, bias = |word|^2 / 2, decode = word /
 * scale. */
static void codebook_scale_is_folded_in(void **state)
{
    const struct qy_codebook_info info = pq4_info();
    struct qy_codebook *codebook = new_codebook(&info);
    float words[M * WORDS * SUB], scale[D];
    uint16_t order[D];
    uint32_t seed = 5;
    (void)state;

    for (int i = 0; i < M * WORDS * SUB; i++) {
        words[i] = 90.0f * uniform(&seed);
    }
    for (int e = 0; e < D; e++) {
        scale[e] = 0.1f + fabsf(uniform(&seed));
        order[e] = (uint16_t)((e * 7 + 3) % D);
    }
    const struct qy_codebook_words set = {.words = words, .order = order, .scale = scale};
    assert_int_equal(qy_codebook_set(codebook, 1, 2, &set, NULL), QY_OK);
    const struct qy_quantizer q = qy_codebook_quantizer(codebook, 1, 2);
    assert_int_equal(q.d, D);
    assert_int_equal(q.m, M);
    assert_int_equal(q.n_words, WORDS);
    assert_memory_equal(q.order, order, sizeof order);
    for (int j = 0; j < M; j++) {
        for (int w = 0; w < WORDS; w++) {
            float bias = 0;

            for (int e = 0; e < SUB; e++) {
                const float word = words[(j * WORDS + w) * SUB + e];
                const int at = (j * SUB + e) * WORDS + w;
                const float near = 0.06f; /* 2^-11 of the largest element */

                assert_true(fabsf(q.encode[at] - scale[j * SUB + e] * word) <= near * 1.2f);
                assert_true(fabsf(q.decode[at] * scale[j * SUB + e] - word) <= near);
                bias += 0.5f * word * word;
            }
            assert_true(fabsf(q.bias[j * WORDS + w] - bias) <= 2e-3f * bias + 1);
        }
    }
    const struct qy_quantizer other = qy_codebook_quantizer(codebook, 0, 0);
    for (int i = 0; i < D * WORDS; i++) {
        assert_true(other.encode[i] == 0 && other.decode[i] == 0);
    }
    qy_codebook_close(codebook);
}

static void random_root(float *root, uint32_t *seed)
{
    for (int i = 0; i < D; i++) {
        for (int j = 0; j < D; j++) {
            root[i * D + j] = j > i ? 0 : j == i ? 0.5f + fabsf(uniform(seed)) : uniform(seed) / 4;
        }
    }
}

/* |k L - c|^2 = (k - c L^-1) H (k - c L^-1)^T with H = L L^T: methods of A2ATS, arXiv 2502.12665,
 * eq. 13-18; in our tables |k L|^2 - 2 (encode . k - bias), and c L^-1 is decode. */
static void codebook_root_is_folded_in(void **state)
{
    const struct qy_codebook_info info = vq_info();
    struct qy_codebook *codebook = new_codebook(&info);
    float words[VQ_WORDS * D], root[D * D], k[D];
    uint32_t seed = 9;
    (void)state;

    random_root(root, &seed);
    for (int i = 0; i < VQ_WORDS * D; i++) {
        words[i] = uniform(&seed);
    }
    for (int e = 0; e < D; e++) {
        k[e] = uniform(&seed);
    }
    const struct qy_codebook_words set = {.words = words, .root = root};
    assert_int_equal(qy_codebook_set(codebook, 0, 1, &set, NULL), QY_OK);
    const struct qy_quantizer q = qy_codebook_quantizer(codebook, 0, 1);
    assert_null(q.order);
    double z[D] = {0}, z2 = 0;
    for (int j = 0; j < D; j++) {
        for (int i = 0; i < D; i++) {
            z[j] += (double)k[i] * root[i * D + j];
        }
        z2 += z[j] * z[j];
    }
    for (int w = 0; w < VQ_WORDS; w++) {
        double direct = 0, by_tables = z2 + 2.0 * q.bias[w], by_h = 0;

        for (int j = 0; j < D; j++) {
            const double off = z[j] - words[w * D + j];
            double t = 0; /* ((k - decode) L)_j */

            direct += off * off;
            by_tables -= 2.0 * q.encode[j * VQ_WORDS + w] * k[j];
            for (int i = 0; i < D; i++) {
                t += ((double)k[i] - q.decode[i * VQ_WORDS + w]) * root[i * D + j];
            }
            by_h += t * t;
        }
        assert_true(fabs(by_tables - direct) <= 4e-3 * direct);
        assert_true(fabs(by_h - direct) <= 4e-3 * direct);
    }
    qy_codebook_close(codebook);
}

static void codebook_without_root_is_plain(void **state)
{
    const struct qy_codebook_info info = vq_info();
    struct qy_codebook *codebook = new_codebook(&info);
    float words[VQ_WORDS * D];
    (void)state;

    for (int i = 0; i < VQ_WORDS * D; i++) {
        words[i] = (float)(i % 31) / 32; /* exact in f16 */
    }
    const struct qy_codebook_words set = {.words = words};
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, NULL), QY_OK);
    const struct qy_quantizer q = qy_codebook_quantizer(codebook, 0, 0);
    for (int w = 0; w < VQ_WORDS; w++) {
        for (int e = 0; e < D; e++) {
            assert_true(q.encode[e * VQ_WORDS + w] == words[w * D + e]);
            assert_true(q.decode[e * VQ_WORDS + w] == words[w * D + e]);
        }
    }
    qy_codebook_close(codebook);
}

static void codebook_bad_tables_are_refused(void **state)
{
    const struct qy_codebook_info pq4 = pq4_info(), vq = vq_info();
    struct qy_codebook *codebook = new_codebook(&pq4);
    struct qy_error err = {0};
    float words[M * WORDS * SUB] = {1}, scale[D], root[D * D] = {0};
    uint16_t order[D];
    (void)state;

    for (int e = 0; e < D; e++) {
        scale[e] = 1;
        order[e] = (uint16_t)e;
    }
    const struct qy_codebook_words set = {.words = words, .order = order, .scale = scale};
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, &err), QY_OK);
    assert_int_equal(qy_codebook_set(codebook, 2, 0, &set, &err), QY_ERR_INVALID);
    assert_int_equal(qy_codebook_set(codebook, 0, 3, &set, &err), QY_ERR_INVALID);
    order[1] = 0; /* twice */
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, &err), QY_ERR_INVALID);
    order[1] = D;
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, &err), QY_ERR_INVALID);
    order[1] = 1;
    scale[2] = 0;
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, &err), QY_ERR_INVALID);
    scale[2] = NAN;
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, &err), QY_ERR_INVALID);
    scale[2] = 1;
    words[3] = INFINITY;
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &set, &err), QY_ERR_INVALID);
    qy_codebook_close(codebook);

    codebook = new_codebook(&vq);
    float *many = calloc(VQ_WORDS * D, sizeof *many);
    const struct qy_codebook_words singular = {.words = many, .root = root};
    assert_non_null(many);
    assert_int_equal(qy_codebook_set(codebook, 0, 0, &singular, &err), QY_ERR_INVALID);
    assert_non_null(strstr(err.text, "root"));
    free(many);
    qy_codebook_close(codebook);
}

static void codebook_shapes_that_no_kernel_takes_are_refused(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_codebook *codebook = NULL;
    struct qy_codebook_info bad[6];
    (void)state;

    for (int i = 0; i < 6; i++) {
        bad[i] = i < 3 ? pq4_info() : vq_info();
    }
    bad[0].m = 5; /* does not divide D */
    bad[1].n_words = 15;
    bad[2].n_layers = 0;
    bad[3].m = 2;
    bad[4].bits = 12;
    bad[5].n_words = 70000;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(qy_codebook_new(&mem, &bad[i], &codebook, NULL), QY_ERR_INVALID);
    }
}

static void codebook_of_another_model_is_refused_by_name(void **state)
{
    const struct qy_codebook_info info = pq4_info();
    struct qy_codebook *codebook = new_codebook(&info);
    struct qy_codebook_info want = info;
    struct qy_error err = {0};
    (void)state;

    assert_int_equal(qy_codebook_check(codebook, &want, &err), QY_OK);
    want.model_hash = 0;
    assert_int_equal(qy_codebook_check(codebook, &want, &err), QY_OK);
    want.model_hash = 78;
    snprintf(want.model_name, sizeof want.model_name, "large");
    assert_int_equal(qy_codebook_check(codebook, &want, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "'small'"));
    assert_non_null(strstr(err.text, "'large'"));
    want = info;
    want.kind = QY_CODEBOOK_VQ;
    assert_int_equal(qy_codebook_check(codebook, &want, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "'vq'"));
    want = info;
    want.head_dim = 32;
    assert_int_equal(qy_codebook_check(codebook, &want, &err), QY_ERR_CONFIG);
    qy_codebook_close(codebook);
}

/* Codes of the device are those of the nearest word in the metric's space: by the definition, from
 * words, scale and order or root as they were set. */
static void check_codes(const struct qy_codebook_info *info, const struct qy_codebook_words *set)
{
    enum { TOKENS = 96 };
    struct qy_codebook *codebook = new_codebook(info);
    const uint32_t m = info->m, sub = D / info->m, n_words = info->n_words;
    struct qy_runtime rt = {.mem = qy_allocator_system(), .log = qy_log_stderr(QY_LOG_WARN)};
    const struct qy_device_params params = {.spec = "host", .max_m = 1};
    struct qy_device *dev = NULL;
    float k[TOKENS * D];
    uint32_t seed = 21;

    qy_cpu_detect(&rt.cpu);
    assert_int_equal(qy_device_open(&rt, &params, &dev, NULL), QY_OK);
    assert_int_equal(qy_codebook_set(codebook, 0, 0, set, NULL), QY_OK);
    for (int i = 0; i < TOKENS * D; i++) {
        k[i] = uniform(&seed);
    }
    const struct qy_quantizer q = qy_codebook_quantizer(codebook, 0, 0);
    assert_int_equal(qy_quantizer_check(&q, NULL), QY_OK);
    uint8_t *block = qy_alloc_zero(&rt.mem, qy_code_slab_bytes(&q, 128));
    assert_non_null(block);
    const struct qy_slab slab = {.blocks = &block, .shift = 7};
    const struct qy_encode_item item = {
        .quantizer = &q, .k = k, .stride = D, .codes = slab, .n = TOKENS};
    assert_int_equal(qy_device_encode(dev, &item, 1), QY_OK);
    for (uint32_t t = 0; t < TOKENS; t++) {
        double z[D] = {0};

        for (uint32_t j = 0; j < D; j++) {
            z[j] = set->scale ? (double)set->scale[j] * k[t * D + set->order[j]] : 0;
            for (uint32_t i = 0; i < D && set->root; i++) {
                z[j] += (double)k[t * D + i] * set->root[i * D + j];
            }
        }
        for (uint32_t j = 0; j < m; j++) {
            const uint32_t code = qy_code_at(&q, &slab, t, j);
            double least = INFINITY, got = INFINITY;

            for (uint32_t w = 0; w < n_words; w++) {
                double off = 0;

                for (uint32_t e = 0; e < sub; e++) {
                    const double x = z[j * sub + e] - set->words[(j * n_words + w) * sub + e];

                    off += x * x;
                }
                least = off < least ? off : least;
                got = w == code ? off : got;
            }
            assert_true(got <= least * 1.001 + 2e-3);
        }
    }
    qy_free(&rt.mem, block);
    qy_device_close(dev);
    qy_codebook_close(codebook);
}

static void codebook_codes_are_the_nearest_words(void **state)
{
    const struct qy_codebook_info pq4 = pq4_info(), vq = vq_info();
    float words[VQ_WORDS * D], scale[D], root[D * D];
    uint16_t order[D];
    uint32_t seed = 3;
    (void)state;

    for (int i = 0; i < VQ_WORDS * D; i++) {
        words[i] = uniform(&seed);
    }
    for (int e = 0; e < D; e++) {
        scale[e] = 0.3f + fabsf(uniform(&seed));
        order[e] = (uint16_t)((e * 5 + 1) % D);
    }
    random_root(root, &seed);
    check_codes(&pq4, &(struct qy_codebook_words){.words = words, .order = order, .scale = scale});
    check_codes(&vq, &(struct qy_codebook_words){.words = words, .root = root});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codebook_scale_is_folded_in),
        cmocka_unit_test(codebook_root_is_folded_in),
        cmocka_unit_test(codebook_without_root_is_plain),
        cmocka_unit_test(codebook_codes_are_the_nearest_words),
        cmocka_unit_test(codebook_bad_tables_are_refused),
        cmocka_unit_test(codebook_shapes_that_no_kernel_takes_are_refused),
        cmocka_unit_test(codebook_of_another_model_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
