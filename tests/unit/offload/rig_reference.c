/* SPDX-License-Identifier: Apache-2.0 */
/* See rig.h: attention in double precision. Slow, and shares no code with what it checks. */
#include "tests/unit/offload/rig.h"

#include <math.h>
#include <stdlib.h>

/* Su et al. 2021, arXiv:2104.09864, eq. 34: pairs turn by position * 10000^(-2i/d). */
static void rotate(double *x, uint32_t position, enum qy_rope_pairs pairs)
{
    for (int i = 0; i < RIG_D / 2; i++) {
        const double angle = position * (double)powf(10000.0F, -2.0F * (float)i / RIG_D);
        const int a = pairs == QY_ROPE_ADJACENT ? 2 * i : i;
        const int b = pairs == QY_ROPE_ADJACENT ? 2 * i + 1 : i + RIG_D / 2;
        const double xa = x[a];
        const double xb = x[b];

        x[a] = xa * cos(angle) - xb * sin(angle);
        x[b] = xa * sin(angle) + xb * cos(angle);
    }
}

void rig_reference_open(struct rig_reference *ref, uint32_t stream, uint32_t layer, uint32_t n,
                        enum qy_rope_pairs pairs)
{
    const size_t values = (size_t)n * RIG_KV_HEADS * RIG_D;

    *ref = (struct rig_reference){.stream = stream, .layer = layer, .n = n, .pairs = pairs};
    ref->k = malloc(values * sizeof(double));
    ref->v = malloc(values * sizeof(double));
    assert_true(ref->k && ref->v);
    for (uint32_t t = 0; t < n; t++) {
        const size_t at = (size_t)t * RIG_KV_HEADS * RIG_D;
        float row[RIG_STRIDE];

        rig_qkv(stream, layer, t, row);
        for (int i = 0; i < RIG_KV_HEADS * RIG_D; i++) {
            ref->k[at + (size_t)i] = row[RIG_OUT + i];
            ref->v[at + (size_t)i] = row[RIG_OUT + RIG_KV_HEADS * RIG_D + i];
        }
        for (int h = 0; h < RIG_KV_HEADS; h++) {
            rotate(ref->k + at + (size_t)h * RIG_D, t, pairs);
        }
    }
}

void rig_reference_close(struct rig_reference *ref)
{
    free(ref->k);
    free(ref->v);
}

/* Softmax of query head h * RIG_GROUP + g of `token` over the ids: weights [n_ids]. */
static void softmax(const struct rig_reference *ref, uint32_t token, uint32_t h, uint32_t g,
                    const uint32_t *ids, uint32_t n_ids, double *weights)
{
    float row[RIG_STRIDE];
    double q[RIG_D];
    double sum = 0.0;

    rig_qkv(ref->stream, ref->layer, token, row);
    for (int i = 0; i < RIG_D; i++) {
        q[i] = row[(h * RIG_GROUP + g) * RIG_D + (uint32_t)i];
    }
    rotate(q, token, ref->pairs);
    for (uint32_t j = 0; j < n_ids; j++) {
        const double *k = ref->k + ((size_t)(ids ? ids[j] : j) * RIG_KV_HEADS + h) * RIG_D;
        double dot = 0.0;

        for (int i = 0; i < RIG_D; i++) {
            dot += q[i] * k[i];
        }
        weights[j] = exp(dot / sqrt(RIG_D));
        sum += weights[j];
    }
    for (uint32_t j = 0; j < n_ids; j++) {
        weights[j] /= sum;
    }
}

void rig_reference_attend(const struct rig_reference *ref, uint32_t token, uint32_t h,
                          const uint32_t *ids, uint32_t n_ids, double *out)
{
    const uint32_t n = ids ? n_ids : token + 1;
    double *weights = malloc(n * sizeof(double));

    assert_non_null(weights);
    for (uint32_t g = 0; g < RIG_GROUP; g++) {
        softmax(ref, token, h, g, ids, n, weights);
        for (uint32_t i = 0; i < RIG_D; i++) {
            double sum = 0.0;

            for (uint32_t j = 0; j < n; j++) {
                sum += weights[j] *
                       ref->v[((size_t)(ids ? ids[j] : j) * RIG_KV_HEADS + h) * RIG_D + i];
            }
            out[g * RIG_D + i] = sum;
        }
    }
    free(weights);
}

void rig_reference_pool(const struct rig_reference *ref, uint32_t token, uint32_t h, double *pooled)
{
    double *weights = malloc((token + 1) * sizeof(double));

    assert_non_null(weights);
    for (uint32_t t = 0; t <= token; t++) {
        pooled[t] = 0.0;
    }
    for (uint32_t g = 0; g < RIG_GROUP; g++) {
        softmax(ref, token, h, g, NULL, token + 1, weights);
        for (uint32_t t = 0; t <= token; t++) {
            pooled[t] += weights[t] / RIG_GROUP;
        }
    }
    free(weights);
}

double rig_difference(const float *a, const double *b, size_t n)
{
    double most = 0.0;

    for (size_t i = 0; i < n; i++) {
        const double d = fabs(a[i] - b[i]);

        most = d > most || isnan(d) ? d : most;
    }
    return most;
}
