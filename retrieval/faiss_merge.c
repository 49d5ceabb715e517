/* SPDX-License-Identifier: Apache-2.0 */
/* See faiss_merge.h. */
#include "retrieval/faiss_merge.h"

#include <math.h>

/* Is place i of a head's list a token that may be chosen? Its place in pooled. */
static int place_of(const struct qyi_faiss_found *f, const int64_t *labels, uint32_t i,
                    uint32_t *place)
{
    if (labels[i] < 0 || labels[i] >= (int64_t)UINT32_MAX - f->base) {
        return 0;
    }
    const uint32_t token = f->base + (uint32_t)labels[i];
    if (token < f->lo || token >= f->hi) {
        return 0;
    }
    *place = token - f->lo;
    return 1;
}

static void pool_head(const struct qyi_faiss_found *f, const float *scores, const int64_t *labels)
{
    float most = -INFINITY;
    float sum = 0.0F;
    uint32_t place;

    for (uint32_t i = 0; i < f->stride; i++) {
        if (place_of(f, labels, i, &place) && scores[i] > most) {
            most = scores[i];
        }
    }
    for (uint32_t i = 0; i < f->stride; i++) {
        if (place_of(f, labels, i, &place)) {
            sum += expf(f->scale * (scores[i] - most));
        }
    }
    for (uint32_t i = 0; i < f->stride; i++) {
        if (!place_of(f, labels, i, &place)) {
            continue;
        }
        const float share = expf(f->scale * (scores[i] - most)) / sum;
        float *to = &f->pooled[place];

        if (*to == -INFINITY) {
            *to = share;
        } else if (f->pooling == QY_POOL_MAX) {
            *to = share > *to ? share : *to;
        } else {
            *to += share;
        }
    }
}

void qyi_faiss_pool(const struct qyi_faiss_found *f)
{
    for (uint32_t i = 0; i < f->hi - f->lo; i++) {
        f->pooled[i] = -INFINITY;
    }
    for (uint32_t h = 0; h < f->group; h++) {
        pool_head(f, f->scores + (size_t)h * f->stride, f->labels + (size_t)h * f->stride);
    }
}

uint32_t qyi_faiss_keep(const struct qyi_faiss_found *f, uint32_t *ids, uint32_t n)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (f->pooled[ids[i] - f->lo] != -INFINITY) {
            ids[kept++] = ids[i];
        }
    }
    return kept;
}
