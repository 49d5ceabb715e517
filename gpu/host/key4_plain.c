/* SPDX-License-Identifier: Apache-2.0 */
/* 4-bit keys in plain C: the reference of the vector sets, which give the same bytes. */
#include <math.h>

#include "gpu/host/key4.h"

enum { VALUES_MAX = QYI_KEY4_MAX_CHUNKS * 4 * QYI_KEY4_CHUNK };

static const float F16_MAX = 65504.0F;

/* NaN: 0; what f16 cannot hold: its largest. */
static float tame(float x)
{
    if (x != x) {
        return 0.0F;
    }
    return x > F16_MAX ? F16_MAX : (x < -F16_MAX ? -F16_MAX : x);
}

static void append_plain(const float *k, uint32_t d, uint8_t *words, uint8_t *meta)
{
    const uint32_t n_words = qyi_key4_words(d);
    float least = tame(k[0]);
    float largest = least;

    for (uint32_t i = 1; i < d; i++) {
        const float x = tame(k[i]);
        least = x < least ? x : least;
        largest = x > largest ? x : largest;
    }
    const uint16_t pair[2] = {qy_f16_from_f32(least), qy_f16_from_f32((largest - least) / 15.0F)};
    const float low = qy_f32_from_f16(pair[0]);
    const float step = qy_f32_from_f16(pair[1]);
    const float inverse = step > 0.0F ? 1.0F / step : 0.0F;
    memcpy(meta, pair, sizeof(pair));
    for (uint32_t w = 0; w < n_words; w++) {
        uint16_t word = 0;
        for (uint32_t j = 0; j < 4 && j * n_words + w < d; j++) {
            const float x = (tame(k[j * n_words + w]) - low) * inverse;
            const long n = lrintf(x > 15.0F ? 15.0F : (x > 0.0F ? x : 0.0F));
            word = (uint16_t)(word | (uint16_t)n << (4 * j));
        }
        memcpy(words + 2 * (size_t)w, &word, sizeof(word));
    }
}

/* Nibbles of a key in the order of a query's values. */
static void unpack(const uint8_t *words, uint32_t n_words, int16_t *n)
{
    for (uint32_t w = 0; w < n_words; w++) {
        int16_t *out = n + (size_t)w / QYI_KEY4_CHUNK * 4 * QYI_KEY4_CHUNK + w % QYI_KEY4_CHUNK;
        uint16_t word;
        memcpy(&word, words + 2 * (size_t)w, sizeof(word));
        for (uint32_t j = 0; j < 4; j++) {
            out[(size_t)j * QYI_KEY4_CHUNK] = (int16_t)(word >> (4 * j) & 15);
        }
    }
}

static int32_t dot(const int16_t *a, const int16_t *b, uint32_t n)
{
    int32_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void score_plain(const struct qyi_key4_span *span, float scale, float *scores, size_t stride)
{
    const struct qyi_key4_query *query = span->query;
    const uint32_t n_words = qyi_key4_words(span->d);
    const uint32_t n_values = qyi_key4_chunks(span->d) * 4 * QYI_KEY4_CHUNK;
    int16_t n[VALUES_MAX] = {0};

    for (uint32_t i = 0; i < span->n; i++) {
        const uint32_t token = span->ids == NULL ? span->first + i : span->ids[i];
        uint16_t pair[2];
        unpack(qyi_key4_words_at(span->keys, span->d, token), n_words, n);
        memcpy(pair, qyi_key4_meta_at(span->keys, span->d, token), sizeof(pair));
        const float low = qy_f32_from_f16(pair[0]);
        const float step = qy_f32_from_f16(pair[1]);
        for (uint32_t h = 0; h < span->group; h++) {
            const int32_t sum = dot(n, query->values + (size_t)h * n_values, n_values);
            scores[h * stride + i] =
                (low * query->sum[h] + step * (query->step[h] * (float)sum)) * scale;
        }
    }
}

const struct qyi_key4_kernels qyi_key4_plain = {.append = append_plain, .score = score_plain};
