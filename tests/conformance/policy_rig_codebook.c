/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_rig_codebook.h. */
#include "tests/conformance/policy_rig_codebook.h"

#include <stdlib.h>
#include <string.h>

enum { VQ_WORDS = 256, PQ4_WORDS = 16, PQ4_PART = 4, KEYS_APART = 3 };

/* words [m][n_words][d / m] of (layer, KV head). */
static void fill_words(const struct prig *rig, const struct qy_codebook_info *info, uint32_t layer,
                       uint32_t kv_head, float *words)
{
    const uint32_t d = info->head_dim;
    const uint32_t part = d / info->m;
    float *k = malloc(d * sizeof(*k));

    assert_non_null(k);
    for (uint32_t w = 0; w < info->n_words; w++) {
        const uint32_t token = w * KEYS_APART;

        prig_key(rig, layer, kv_head, token, k);
        if (info->kind == QY_CODEBOOK_PQ4) {
            prig_rotate(rig, k, token);
        }
        for (uint32_t j = 0; j < info->m; j++) {
            memcpy(words + ((size_t)j * info->n_words + w) * part, k + (size_t)j * part,
                   part * sizeof(*k));
        }
    }
    free(k);
}

struct qy_codebook *prig_codebook(const struct prig *rig, enum qy_codebook_kind kind)
{
    const int pq = kind == QY_CODEBOOK_PQ4;
    const uint32_t d = rig->o.d;
    const struct qy_codebook_info info = {.kind = kind,
                                          .model_name = "made up",
                                          .n_layers = PRIG_LAYERS,
                                          .n_kv_heads = PRIG_KV_HEADS,
                                          .head_dim = d,
                                          .m = pq ? d / PQ4_PART : 1,
                                          .bits = pq ? 4 : 16,
                                          .n_words = pq ? PQ4_WORDS : VQ_WORDS,
                                          .metric = "plain"};
    struct qy_codebook *book = NULL;
    struct qy_error err = {QY_OK, ""};
    float *words = malloc((size_t)info.n_words * d * sizeof(*words));
    float *scale = malloc(d * sizeof(*scale));
    uint16_t *order = malloc(d * sizeof(*order));

    assert_true(words && scale && order);
    for (uint32_t i = 0; i < d; i++) {
        scale[i] = 1.0F;
        order[i] = (uint16_t)i;
    }
    if (qy_codebook_new(&rig->rt.mem, &info, &book, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    for (uint32_t i = 0; i < PRIG_LAYERS * PRIG_KV_HEADS; i++) {
        const struct qy_codebook_words tables = {
            .words = words, .order = pq ? order : NULL, .scale = pq ? scale : NULL};

        fill_words(rig, &info, i / PRIG_KV_HEADS, i % PRIG_KV_HEADS, words);
        if (qy_codebook_set(book, i / PRIG_KV_HEADS, i % PRIG_KV_HEADS, &tables, &err) != QY_OK) {
            fail_msg("%s", err.text);
        }
    }
    free(order);
    free(scale);
    free(words);
    return book;
}
