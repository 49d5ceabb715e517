/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4-bit keys for the conformance tests: random keys, appended to slabs, and what the slabs hold of
 * them as scores of unit vectors show it.
 */
#ifndef QY_TESTS_CONFORMANCE_CONF_KEYS_H
#define QY_TESTS_CONFORMANCE_CONF_KEYS_H

#include "tests/conformance/conf_slab.h"
#include "tests/conformance/conf_support.h"

struct conf_keys {
    uint32_t d, n;
    float *k;      /* [n][d] as given */
    double *value; /* [n][d] as held  */
    struct conf_slab store;
};

/* Random keys of different size and mean, appended at once and read back. */
void conf_keys_open(struct conf *c, struct conf_keys *keys, uint32_t d, uint32_t shift, uint32_t n);
void conf_keys_close(struct conf_keys *keys);
void conf_keys_append(struct conf *c, const struct conf_keys *keys, uint32_t first, uint32_t n);
void conf_keys_read_back(struct conf *c, struct conf_keys *keys);

/* stride n */
struct qy_key4_score_item conf_keys_item(const struct conf_keys *keys, const float *q,
                                         uint32_t group, const uint32_t *ids, uint32_t first,
                                         uint32_t n, float *scores);
/* Scores an item with just the memory that the device says it needs. */
void conf_keys_score(struct conf *c, struct qy_key4_score_item item, float scale);

/* q . token as held, and how far a score may be from it: half a step of the rounded query in every
 * element, and the rounding of sums. */
double conf_keys_dot(const struct conf_keys *keys, uint32_t token, const float *q);
double conf_keys_most_error(const struct conf_keys *keys, uint32_t token, const float *q);

#endif
