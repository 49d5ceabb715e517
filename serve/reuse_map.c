/* SPDX-License-Identifier: Apache-2.0 */
/* See reuse_map.h. */
#include "serve/reuse_map.h"

#include <stdio.h>
#include <string.h>

enum qy_status qyi_agreement_open(const struct qy_allocator *mem, uint32_t n_layers,
                                  uint32_t n_heads, uint32_t capacity, struct qyi_agreement *a)
{
    const size_t lists = (size_t)n_layers * n_heads;
    const size_t pairs = (size_t)n_layers * n_layers;

    *a = (struct qyi_agreement){.n_layers = n_layers, .n_heads = n_heads, .capacity = capacity};
    a->ids = qy_alloc_zero(mem, lists * capacity * sizeof *a->ids);
    a->n_ids = qy_alloc_zero(mem, lists * sizeof *a->n_ids);
    a->common = qy_alloc_zero(mem, pairs * sizeof *a->common);
    a->n_chosen = qy_alloc_zero(mem, n_layers * sizeof *a->n_chosen);
    return a->ids && a->n_ids && a->common && a->n_chosen ? QY_OK : QY_ERR_NOMEM;
}

void qyi_agreement_close(const struct qy_allocator *mem, struct qyi_agreement *a)
{
    qy_free(mem, a->n_chosen);
    qy_free(mem, a->common);
    qy_free(mem, a->n_ids);
    qy_free(mem, a->ids);
    *a = (struct qyi_agreement){0};
}

void qyi_agreement_step(struct qyi_agreement *a)
{
    memset(a->n_ids, 0, (size_t)a->n_layers * a->n_heads * sizeof *a->n_ids);
}

/* Ids that are in both lists, which ascend. */
static uint32_t in_both(const uint32_t *a, uint32_t n_a, const uint32_t *b, uint32_t n_b)
{
    uint32_t n = 0;

    for (uint32_t i = 0, j = 0; i < n_a && j < n_b;) {
        const uint32_t x = a[i];
        const uint32_t y = b[j];

        n += x == y;
        i += x <= y;
        j += y <= x;
    }
    return n;
}

void qyi_agreement_add(struct qyi_agreement *a, uint32_t layer, uint32_t head, const uint32_t *ids,
                       uint32_t n)
{
    const size_t list = (size_t)layer * a->n_heads + head;

    n = n < a->capacity ? n : a->capacity;
    memcpy(a->ids + list * a->capacity, ids, n * sizeof *ids);
    a->n_ids[list] = n;
    a->n_chosen[layer] += n;
    for (uint32_t m = 0; m < layer; m++) {
        const size_t other = (size_t)m * a->n_heads + head;

        a->common[(size_t)layer * a->n_layers + m] +=
            in_both(ids, n, a->ids + other * a->capacity, a->n_ids[other]);
    }
}

double qyi_agreement_share(const struct qyi_agreement *a, uint32_t layer, uint32_t from)
{
    return a->n_chosen[layer] > 0
               ? (double)a->common[(size_t)layer * a->n_layers + from] / (double)a->n_chosen[layer]
               : 0.0;
}

uint32_t qyi_reuse_map(const struct qyi_agreement *a, double least, uint32_t *source)
{
    uint32_t n = 0;

    for (uint32_t layer = 0; layer < a->n_layers; layer++) {
        double best = 0.0;

        source[layer] = QYI_OWN_CHOICE;
        for (uint32_t m = 0; m < layer; m++) {
            const double share = qyi_agreement_share(a, layer, m);

            if (source[m] == QYI_OWN_CHOICE && share >= least && share > best) {
                best = share;
                source[layer] = m;
            }
        }
        n += source[layer] != QYI_OWN_CHOICE;
    }
    return n;
}

int qyi_reuse_map_print(const uint32_t *source, uint32_t n_layers, char *text, size_t bytes)
{
    size_t at = 0;

    if (bytes < sizeof "off") {
        return 0;
    }
    memcpy(text, "off", sizeof "off");
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        if (source[layer] == QYI_OWN_CHOICE) {
            continue;
        }
        const int n =
            snprintf(text + at, bytes - at, "%s%u:%u", at > 0 ? "," : "", layer, source[layer]);
        if (n < 0 || (size_t)n >= bytes - at) {
            return 0;
        }
        at += (size_t)n;
    }
    return 1;
}
