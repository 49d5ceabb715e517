/* SPDX-License-Identifier: Apache-2.0 */
/* Index bytes for the conformance tests. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_slab.h"

enum { OFFSET = 128 }; /* as behind other bytes of a block */

void conf_slab_open(struct conf_slab *s, uint32_t shift, uint32_t n, size_t bytes)
{
    assert_int_equal(bytes % 64, 0);
    s->n_blocks = (n + ((uint32_t)1 << shift) - 1) >> shift;
    s->bytes = bytes;
    s->blocks = calloc(s->n_blocks + 1, sizeof(*s->blocks));
    assert_non_null(s->blocks);
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        s->blocks[b] = aligned_alloc(64, OFFSET + bytes);
        assert_non_null(s->blocks[b]);
        memset(s->blocks[b], 0xa5, OFFSET + bytes);
    }
    s->slab = (struct qy_slab){s->blocks, OFFSET, shift};
}

void conf_slab_close(struct conf_slab *s)
{
    for (uint32_t b = 0; b < s->n_blocks; b++) {
        for (uint32_t i = 0; i < OFFSET; i++) {
            assert_int_equal(s->blocks[b][i], 0xa5); /* nothing was written before the slab */
        }
        free(s->blocks[b]);
    }
    free(s->blocks);
}

void conf_slab_assert_equal(const struct conf_slab *a, const struct conf_slab *b)
{
    assert_int_equal(a->n_blocks, b->n_blocks);
    assert_int_equal(a->bytes, b->bytes);
    for (uint32_t i = 0; i < a->n_blocks; i++) {
        assert_memory_equal(a->blocks[i] + OFFSET, b->blocks[i] + OFFSET, a->bytes);
    }
}
