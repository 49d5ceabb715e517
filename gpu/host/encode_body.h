/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codes of vectors: the word w with the largest encode_w . x' - bias_w of each sub-vector. Part of
 * a kernel file: include a code_vec_*.h first.
 *
 * Every score is summed from -bias on over the elements in their order, whatever the shape of the
 * register block: the code of a vector does not depend on how many were encoded with it. A score
 * that is not a number never wins; without any winner the code is 0.
 */
#ifndef QY_GPU_HOST_ENCODE_BODY_H
#define QY_GPU_HOST_ENCODE_BODY_H

#include <math.h>
#include <string.h>

#include "gpu/host/code.h"
#include "gpu/host/code_quad.h"
#include "gpu/host/kernels.h"

enum {
    ENC_WORDS = 16,               /* of a 4-bit code                                  */
    ENC_NV = VEC_N == 16 ? 2 : 4, /* vectors of keys (4 bits) in one register block   */
    ENC_FEW = 8,                  /* keys that are encoded one by one (4 bits)        */
    ENC_KB = 4,                   /* keys of a register block (8 and 16 bits)         */
    ENC_WV = VEC_N == 16 ? 4 : 2, /* vectors of words of it                           */
    ENC_TILE = ENC_WV * VEC_N     /* words of it                                      */
};

/* ---- 4 bits ---------------------------------------------------------------------------------- */

/* One key, words side by side. */
ALWAYS_INLINE uint8_t enc4_one(const float *x, const uint32_t dj, const float *encode,
                               const float *bias)
{
    vec s[ENC_WORDS / VEC_N];

    QYI_UNROLL
    for (int v = 0; v < ENC_WORDS / VEC_N; v++) {
        s[v] = vec_sub(vec_set1(0.0F), vec_load(bias + v * VEC_N));
    }
    for (uint32_t i = 0; i < dj; i++) {
        const vec xi = vec_set1(x[i]);
        QYI_UNROLL
        for (int v = 0; v < ENC_WORDS / VEC_N; v++) {
            s[v] = vec_fma(xi, vec_load(encode + i * ENC_WORDS + v * VEC_N), s[v]);
        }
    }
    return (uint8_t)code_first_best(s);
}

/* ENC_NV vectors of keys, keys side by side; rows[i] + first: element i of x'_j. */
ALWAYS_INLINE void enc4_many(const float *const *rows, uint32_t first, const uint32_t dj,
                             const float *encode, const float *bias, uint8_t *codes)
{
    vec best[ENC_NV];
    vec word[ENC_NV];
    float words[ENC_NV * VEC_N];

    QYI_UNROLL
    for (int v = 0; v < ENC_NV; v++) {
        best[v] = vec_set1(-INFINITY);
        word[v] = vec_set1(0.0F);
    }
    for (uint32_t w = 0; w < ENC_WORDS; w++) {
        const vec begin = vec_set1(0.0F - bias[w]);
        const vec number = vec_set1((float)w);
        vec s[ENC_NV];
        QYI_UNROLL
        for (int v = 0; v < ENC_NV; v++) {
            s[v] = begin;
        }
        for (uint32_t i = 0; i < dj; i++) {
            const vec e = vec_set1(encode[i * ENC_WORDS + w]);
            QYI_UNROLL
            for (int v = 0; v < ENC_NV; v++) {
                s[v] = vec_fma(vec_load(rows[i] + first + v * VEC_N), e, s[v]);
            }
        }
        QYI_UNROLL
        for (int v = 0; v < ENC_NV; v++) {
            const vec more = vec_max(s[v], best[v]); /* best where s is no number */
            word[v] = vec_select_ge(best[v], more, word[v], number);
            best[v] = more;
        }
    }
    QYI_UNROLL
    for (int v = 0; v < ENC_NV; v++) {
        vec_store(words + v * VEC_N, word[v]);
    }
    for (uint32_t t = 0; t < ENC_NV * VEC_N; t++) {
        codes[first + t] = (uint8_t)words[t];
    }
}

/* xt [d][QYI_CODE_KEYS] = n keys turned round; keys that are not there repeat the last. */
static void enc_turn(const float *k, size_t stride, uint32_t n, uint32_t d, float *xt)
{
    for (uint32_t t = 0; t < QYI_CODE_KEYS; t += 4) {
        const float *key[4];
        uint32_t i = 0;
        for (uint32_t p = 0; p < 4; p++) {
            key[p] = k + (t + p < n ? t + p : n - 1) * stride;
        }
        for (; i + 4 <= d; i += 4) {
            quad row[4];
            for (int p = 0; p < 4; p++) {
                memcpy(&row[p], key[p] + i, sizeof(row[p]));
            }
            quad_turn(row);
            for (uint32_t p = 0; p < 4; p++) {
                memcpy(xt + (size_t)(i + p) * QYI_CODE_KEYS + t, &row[p], sizeof(row[p]));
            }
        }
        for (; i < d; i++) {
            for (uint32_t p = 0; p < 4; p++) {
                xt[(size_t)i * QYI_CODE_KEYS + t + p] = key[p][i];
            }
        }
    }
}

static void enc4_block(const struct qy_quantizer *quantizer, const float *k, size_t stride,
                       uint32_t n, uint8_t *codes)
{
    _Alignas(64) float xt[QYI_CODE_MAX_D * QYI_CODE_KEYS];
    const float *rows[QYI_CODE_MAX_D];
    const uint32_t dj = quantizer->d / quantizer->m;

    enc_turn(k, stride, n, quantizer->d, xt);
    for (uint32_t i = 0; i < quantizer->d; i++) {
        rows[i] = xt + (quantizer->order != NULL ? quantizer->order[i] : i) * (size_t)QYI_CODE_KEYS;
    }
    for (uint32_t j = 0; j < quantizer->m; j++) {
        const float *encode = quantizer->encode + (size_t)j * dj * ENC_WORDS;
        const float *bias = quantizer->bias + (size_t)j * ENC_WORDS;
        for (uint32_t t = 0; t < QYI_CODE_KEYS; t += ENC_NV * VEC_N) {
            if (dj == 4) {
                enc4_many(rows + (size_t)j * 4, t, 4, encode, bias, codes + j * QYI_CODE_KEYS);
            } else {
                enc4_many(rows + (size_t)j * dj, t, dj, encode, bias, codes + j * QYI_CODE_KEYS);
            }
        }
    }
}

/* Codes of one key x', QYI_CODE_KEYS bytes apart. */
ALWAYS_INLINE void enc4_key(const struct qy_quantizer *quantizer, const float *x, const uint32_t dj,
                            uint8_t *codes)
{
    const float *encode = quantizer->encode;
    const float *bias = quantizer->bias;

    for (uint32_t left = quantizer->m; left > 0; left--) {
        *codes = enc4_one(x, dj, encode, bias);
        codes += QYI_CODE_KEYS;
        x += dj;
        encode += (size_t)dj * ENC_WORDS;
        bias += ENC_WORDS;
    }
}

/* As qyi_code_kernels.encode4. */
static void encode4(const struct qy_quantizer *quantizer, const float *k, size_t stride, uint32_t n,
                    uint8_t *codes)
{
    float x[QYI_CODE_MAX_D];
    const uint16_t *order = quantizer->order;
    const uint32_t d = quantizer->d;
    const uint32_t dj = d / quantizer->m;

    if (n >= ENC_FEW) {
        enc4_block(quantizer, k, stride, n, codes);
        return;
    }
    for (uint32_t t = 0; t < n; t++) {
        const float *key = k + t * stride;
        for (uint32_t i = 0; i < d; i++) {
            x[i] = key[order != NULL ? order[i] : i];
        }
        if (dj == 4) {
            enc4_key(quantizer, x, 4, codes + t);
        } else {
            enc4_key(quantizer, x, dj, codes + t);
        }
    }
}

/* ---- 8 and 16 bits ----------------------------------------------------------------------------- */

/* Best score of a key per lane and its word (as a float: up to 65,535). */
struct enc_best {
    float score[QYI_CODE_KEYS][VEC_N];
    float word[QYI_CODE_KEYS][VEC_N];
};

/* Words w .. w + ENC_TILE - 1 for nk keys x [nk][dj]; encode [dj] rows of ld; words `ahead` further
 * come next. */
ALWAYS_INLINE void enc_tile(const float *x, uint32_t dj, const float *encode, size_t ld,
                            size_t ahead, const float *bias, float w, const int nk,
                            float (*score)[VEC_N], float (*word)[VEC_N], vec lanes)
{
    vec s[ENC_KB][ENC_WV];

    QYI_UNROLL
    for (int v = 0; v < ENC_WV; v++) {
        const vec begin = vec_sub(vec_set1(0.0F), vec_load(bias + v * VEC_N));
        QYI_UNROLL
        for (int t = 0; t < nk; t++) {
            s[t][v] = begin;
        }
    }
    for (uint32_t i = 0; i < dj; i++) {
        vec e[ENC_WV];
        QYI_UNROLL
        for (int v = 0; v < ENC_WV; v++) {
            e[v] = vec_load(encode + i * ld + v * VEC_N);
            if (nk == 1) { /* more keys are worth a packed copy */
                __builtin_prefetch(encode + i * ld + ahead + v * VEC_N, 0, 2);
            }
        }
        QYI_UNROLL
        for (int t = 0; t < nk; t++) {
            const vec xi = vec_set1(x[(size_t)t * dj + i]);
            QYI_UNROLL
            for (int v = 0; v < ENC_WV; v++) {
                s[t][v] = vec_fma(xi, e[v], s[t][v]);
            }
        }
    }
    QYI_UNROLL
    for (int t = 0; t < nk; t++) {
        vec best = vec_load(score[t]);
        vec which = vec_load(word[t]);
        QYI_UNROLL
        for (int v = 0; v < ENC_WV; v++) {
            const vec number = vec_add(lanes, vec_set1(w + (float)(v * VEC_N)));
            const vec more = vec_max(s[t][v], best);
            which = vec_select_ge(best, more, which, number);
            best = more;
        }
        vec_store(score[t], best);
        vec_store(word[t], which);
    }
}

/* Copies words w .. w + ENC_TILE - 1, packed; words that are not there never win. */
static void enc_pack(const struct qy_quantizer *quantizer, const float *encode, const float *bias,
                     uint32_t w, float *pack, float *pack_bias)
{
    const uint32_t dj = quantizer->d / quantizer->m;
    const uint32_t left = quantizer->n_words - w;
    const uint32_t n = left < ENC_TILE ? left : ENC_TILE;

    for (uint32_t i = 0; i < dj && n == ENC_TILE; i++) {
        memcpy(pack + (size_t)i * ENC_TILE, encode + (size_t)i * quantizer->n_words + w,
               ENC_TILE * sizeof(*pack));
    }
    for (uint32_t i = 0; i < dj && n < ENC_TILE; i++) {
        for (uint32_t c = 0; c < ENC_TILE; c++) {
            pack[i * ENC_TILE + c] = c < n ? encode[(size_t)i * quantizer->n_words + w + c] : 0.0F;
        }
    }
    for (uint32_t c = 0; c < ENC_TILE; c++) {
        pack_bias[c] = c < n ? bias[w + c] : INFINITY;
    }
}

/* The lowest of a key's best words. */
static uint16_t enc_pick(const float *score, const float *word)
{
    const vec s = vec_load(score);
    const vec best = vec_set1(vec_hmax(s));
    const vec w = vec_select_ge(s, best, vec_load(word), vec_set1(65536.0F));

    return (uint16_t)-vec_hmax(vec_sub(vec_set1(0.0F), w));
}

/* As qyi_code_kernels.encode_wide. */
static void encode_wide(const struct qy_quantizer *quantizer, const float *k, size_t stride,
                        uint32_t n, uint16_t *codes)
{
    _Alignas(64) float x[(QYI_CODE_KEYS + ENC_KB) * QYI_CODE_MAX_D];
    _Alignas(64) float pack[QYI_CODE_MAX_D * ENC_TILE];
    _Alignas(64) float pack_bias[ENC_TILE];
    _Alignas(64) float iota[VEC_N];
    _Alignas(64) struct enc_best best;
    const uint32_t dj = quantizer->d / quantizer->m;

    for (int i = 0; i < VEC_N; i++) {
        iota[i] = (float)i;
    }
    for (uint32_t j = 0; j < quantizer->m; j++) {
        const float *encode = quantizer->encode + (size_t)j * dj * quantizer->n_words;
        const float *bias = quantizer->bias + (size_t)j * quantizer->n_words;
        for (uint32_t i = 0; i < dj; i++) {
            const uint32_t at = j * dj + i;
            const uint32_t from = quantizer->order != NULL ? quantizer->order[at] : at;
            for (uint32_t t = 0; t < n; t++) {
                x[(size_t)t * dj + i] = k[t * stride + from];
            }
        }
        for (uint32_t t = 0; t < n; t++) {
            vec_store(best.score[t], vec_set1(-INFINITY));
            vec_store(best.word[t], vec_set1(0.0F));
        }
        for (uint32_t w = 0; w < quantizer->n_words; w += ENC_TILE) {
            const int packed = n >= 2 * ENC_KB || quantizer->n_words - w < ENC_TILE;
            const float *from = packed ? pack : encode + w;
            const float *from_bias = packed ? pack_bias : bias + w;
            const size_t ld = packed ? (size_t)ENC_TILE : quantizer->n_words;
            const size_t ahead = !packed && w + 2 * ENC_TILE <= quantizer->n_words ? ENC_TILE : 0;
            uint32_t t = 0;
            if (packed) {
                enc_pack(quantizer, encode, bias, w, pack, pack_bias);
            }
            for (; t + ENC_KB <= n; t += ENC_KB) {
                enc_tile(x + (size_t)t * dj, dj, from, ld, ahead, from_bias, (float)w, ENC_KB,
                         best.score + t, best.word + t, vec_load(iota));
            }
            for (; t < n; t++) {
                enc_tile(x + (size_t)t * dj, dj, from, ld, ahead, from_bias, (float)w, 1,
                         best.score + t, best.word + t, vec_load(iota));
            }
        }
        for (uint32_t t = 0; t < n; t++) {
            codes[j * QYI_CODE_KEYS + t] = enc_pick(best.score[t], best.word[t]);
        }
    }
}

#endif
