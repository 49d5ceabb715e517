/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index bytes for the conformance tests: blocks of exactly as many bytes as a slab takes, so that
 * AddressSanitizer sees a kernel that leaves its slab.
 */
#ifndef QY_TESTS_CONFORMANCE_CONF_SLAB_H
#define QY_TESTS_CONFORMANCE_CONF_SLAB_H

#include "gpu/gpu.h"

struct conf_slab {
    struct qy_slab slab;
    uint32_t n_blocks;
    size_t bytes; /* of one block's slab */
    uint8_t **blocks;
};

/* Slabs of n tokens, bytes each, filled with 0xa5. */
void conf_slab_open(struct conf_slab *s, uint32_t shift, uint32_t n, size_t bytes);
void conf_slab_close(struct conf_slab *s);
/* The same bytes everywhere? */
void conf_slab_assert_equal(const struct conf_slab *a, const struct conf_slab *b);

#endif
