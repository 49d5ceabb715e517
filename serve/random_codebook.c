/* SPDX-License-Identifier: Apache-2.0 */
/* A codebook of random words, for measurements of speed: that depends on no value. */
#include <stdlib.h>

#include "serve/codebook.h"

float qyi_near_normal(uint64_t *state)
{
    float sum = -6.0F;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth, MMIX */
        sum += (float)(*state >> 40) * 0x1p-24F;
    }
    return sum;
}

enum qy_status qyi_codebook_random(const struct qy_allocator *mem, enum qy_codebook_kind kind,
                                   const struct qy_kv_shape *shape, uint64_t *state,
                                   struct qy_codebook **codebook, struct qy_error *err)
{
    const uint32_t d = shape->head_dim;
    const int vq = kind == QY_CODEBOOK_VQ;
    const struct qy_codebook_info info = {.kind = kind,
                                          .model_name = "random",
                                          .n_layers = shape->n_layers,
                                          .n_kv_heads = shape->n_kv_heads,
                                          .head_dim = d,
                                          .m = vq || d % 4 != 0 ? 1 : d / 4,
                                          .bits = vq ? 16 : 4,
                                          .n_words = vq ? 4096 : 16,
                                          .metric = "random"};
    *codebook = NULL;
    if (kind == QY_CODEBOOK_NONE) {
        return QY_OK;
    }
    const size_t n = (size_t)info.n_words * d;
    float *words = malloc(n * sizeof *words), *scale = malloc(d * sizeof *scale);
    uint16_t *order = malloc(d * sizeof *order);
    enum qy_status st = QY_OK;
    if (words == NULL || scale == NULL || order == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "random codebook: out of memory");
    }
    for (uint32_t i = 0; st == QY_OK && i < d; i++) {
        scale[i] = 1;
        order[i] = (uint16_t)i;
    }
    if (st == QY_OK) {
        st = qy_codebook_new(mem, &info, codebook, err);
    }
    for (uint32_t slab = 0; st == QY_OK && slab < info.n_layers * info.n_kv_heads; slab++) {
        for (size_t i = 0; i < n; i++) {
            words[i] = qyi_near_normal(state);
        }
        const struct qy_codebook_words set = {
            .words = words, .order = vq ? NULL : order, .scale = vq ? NULL : scale};
        st = qy_codebook_set(*codebook, slab / info.n_kv_heads, slab % info.n_kv_heads, &set, err);
    }
    free(words);
    free(scale);
    free(order);
    return st;
}
