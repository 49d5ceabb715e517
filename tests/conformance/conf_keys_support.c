/* SPDX-License-Identifier: Apache-2.0 */
/* 4-bit keys for the conformance tests. */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_keys.h"

enum { MAX_D = 256, MAX_GROUP = 64 };

void conf_keys_append(struct conf *c, const struct conf_keys *keys, uint32_t first, uint32_t n)
{
    const struct qy_key4_item item = {.k = keys->k + (size_t)first * keys->d,
                                      .stride = keys->d,
                                      .d = keys->d,
                                      .keys = keys->store.slab,
                                      .first = first,
                                      .n = n};
    assert_int_equal(qy_device_key4_append(c->dev, &item, 1), QY_OK);
}

struct qy_key4_score_item conf_keys_item(const struct conf_keys *keys, const float *q,
                                         uint32_t group, const uint32_t *ids, uint32_t first,
                                         uint32_t n, float *scores)
{
    return (struct qy_key4_score_item){q, keys->d, group, keys->store.slab, ids, first,
                                       n, scores,  n};
}

void conf_keys_score(struct conf *c, struct qy_key4_score_item item, float scale)
{
    conf_arena(c, qy_device_key4_score_scratch(c->dev, 1, item.group, item.d));
    assert_int_equal(qy_device_key4_score(c->dev, &item, 1, scale, &c->arena), QY_OK);
}

void conf_keys_read_back(struct conf *c, struct conf_keys *keys)
{
    float *q = malloc(MAX_GROUP * MAX_D * sizeof(*q));
    float *scores = malloc(((size_t)MAX_GROUP * keys->n + 1) * sizeof(*scores));

    assert_true(q != NULL && scores != NULL);
    for (uint32_t begin = 0; begin < keys->d; begin += MAX_GROUP) {
        const uint32_t group = keys->d - begin < MAX_GROUP ? keys->d - begin : MAX_GROUP;
        memset(q, 0, MAX_GROUP * MAX_D * sizeof(*q));
        for (uint32_t h = 0; h < group; h++) {
            q[h * keys->d + begin + h] = 1.0F;
        }
        conf_keys_score(c, conf_keys_item(keys, q, group, NULL, 0, keys->n, scores), 1.0F);
        for (uint32_t h = 0; h < group; h++) {
            for (uint32_t t = 0; t < keys->n; t++) {
                keys->value[(size_t)t * keys->d + begin + h] =
                    (double)scores[(size_t)h * keys->n + t];
            }
        }
    }
    free(q);
    free(scores);
}

void conf_keys_open(struct conf *c, struct conf_keys *keys, uint32_t d, uint32_t shift, uint32_t n)
{
    keys->d = d;
    keys->n = n;
    keys->k = conf_floats((size_t)n * d, 3.0F);
    keys->value = malloc(((size_t)n * d + 1) * sizeof(*keys->value));
    assert_non_null(keys->value);
    for (uint32_t t = 0; t < n; t++) { /* tokens of different size and mean */
        const float mean = conf_uniform(2.0F);
        for (uint32_t i = 0; i < d; i++) {
            keys->k[(size_t)t * d + i] += mean;
            keys->k[(size_t)t * d + i] *= (float)(1 + t % 5);
        }
    }
    conf_slab_open(&keys->store, shift, n, qy_key4_slab_bytes(d, (uint32_t)1 << shift));
    conf_keys_append(c, keys, 0, n);
    conf_keys_read_back(c, keys);
}

void conf_keys_close(struct conf_keys *keys)
{
    conf_slab_close(&keys->store);
    free(keys->k);
    free(keys->value);
}

double conf_keys_dot(const struct conf_keys *keys, uint32_t token, const float *q)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < keys->d; i++) {
        sum += (double)q[i] * keys->value[(size_t)token * keys->d + i];
    }
    return sum;
}

double conf_keys_most_error(const struct conf_keys *keys, uint32_t token, const float *q)
{
    const double *k = keys->value + (size_t)token * keys->d;
    double least = k[0];
    double most = k[0];
    double largest_q = 0.0;
    double size = 0.0;

    for (uint32_t i = 0; i < keys->d; i++) {
        least = fmin(least, k[i]);
        most = fmax(most, k[i]);
        largest_q = fmax(largest_q, fabs((double)q[i]));
        size += fabs((double)q[i] * k[i]);
    }
    return keys->d * largest_q / 32767 / 2 * (most - least) + 1e-5 * size;
}
