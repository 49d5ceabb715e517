/* SPDX-License-Identifier: Apache-2.0 */
/* The layout of a block, by table. */
#include "tests/support/test.h"

#include "offload/layout.h"

#include <string.h>

static void layout_offsets_follow_the_shape(void **state)
{
    static const struct {
        struct qy_kv_shape shape; /* layers, heads, kv heads, dim */
        int64_t tokens;
        int row_type;
        size_t index;
        size_t row, slab, index_slab, index_at, footer_at, block;
    } cases[] = {
        /* SmolLM2-135M: 30 layers, 3 KV heads of 64, f16 rows of 256 bytes */
        {{30, 9, 3, 64}, 128, QY_ROW_F16, 0, 256, 32768, 0, 2949120, 2949120, 2949888},
        {{30, 9, 3, 64}, 128, QY_ROW_F32, 0, 512, 65536, 0, 5898240, 5898240, 5899008},
        {{2, 4, 2, 128}, 16, QY_ROW_F16, 100, 512, 8192, 128, 32768, 33280, 33408},
        {{1, 1, 1, 80}, 8, QY_ROW_F16, 288, 320, 2560, 320, 2560, 2880, 2944},
        /* slabs and index slabs start on 64 bytes, whatever the row */
        {{1, 2, 2, 6}, 8, QY_ROW_F16, 16, 24, 192, 64, 384, 512, 576},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct qy_cache_settings settings = {.block_tokens = cases[i].tokens,
                                                   .row_type = cases[i].row_type};
        struct qyi_layout l;

        assert_int_equal(qyi_layout_make(&cases[i].shape, &settings, cases[i].index, &l, NULL),
                         QY_OK);
        assert_int_equal(l.row_bytes, cases[i].row);
        assert_int_equal(l.slab_bytes, cases[i].slab);
        assert_int_equal(l.index_slab_bytes, cases[i].index_slab);
        assert_int_equal(l.index_at, cases[i].index_at);
        assert_int_equal(l.footer_at, cases[i].footer_at);
        assert_int_equal(l.block_bytes, cases[i].block);
        assert_int_equal((uint32_t)1 << l.shift, cases[i].tokens);
    }
}

static void layout_parts_do_not_overlap(void **state)
{
    const struct qy_kv_shape shape = {3, 4, 2, 64};
    const struct qy_cache_settings settings = {.block_tokens = 16, .row_type = QY_ROW_F16};
    struct qyi_layout l;
    size_t at = 0;
    (void)state;

    assert_int_equal(qyi_layout_make(&shape, &settings, 40, &l, NULL), QY_OK);
    for (uint32_t i = 0; i < l.n_slabs; i++, at += l.slab_bytes) {
        assert_int_equal(qyi_layout_slab_at(&l, i / 2, i % 2), at);
    }
    assert_int_equal(l.index_at, at);
    for (uint32_t i = 0; i < l.n_slabs; i++, at += l.index_slab_bytes) {
        assert_int_equal(qyi_layout_index_at(&l, i / 2, i % 2), at);
    }
    assert_int_equal(l.footer_at, at);
    assert_true(l.block_bytes >= at + sizeof(struct qyi_footer) + l.n_sums * sizeof(uint64_t));
    assert_int_equal(l.block_bytes % 64, 0);
}

static void layout_blocks_are_whole(void **state)
{
    const struct qy_kv_shape shape = {1, 1, 1, 8};
    const struct qy_cache_settings settings = {.block_tokens = 16};
    struct qyi_layout l;
    (void)state;

    assert_int_equal(qyi_layout_make(&shape, &settings, 0, &l, NULL), QY_OK);
    assert_int_equal(qyi_layout_blocks(&l, 0), 0);
    assert_int_equal(qyi_layout_blocks(&l, 1), 1);
    assert_int_equal(qyi_layout_blocks(&l, 16), 1);
    assert_int_equal(qyi_layout_blocks(&l, 17), 2);
    assert_int_equal(qyi_layout_blocks(&l, (uint64_t)1 << 40), (uint64_t)1 << 36);
}

static void layout_refuses_bad_blocks_and_shapes(void **state)
{
    static const int64_t tokens[] = {0, -128, 4, 100, 127, 8192, INT64_MIN};
    static const struct qy_kv_shape shapes[] = {
        {0, 1, 1, 8}, {1, 0, 1, 8}, {1, 1, 0, 8}, {1, 1, 1, 0}, {1, 3, 2, 8}, {UINT32_MAX, 1, 1, 8},
    };
    const struct qy_kv_shape good = {1, 2, 1, 8};
    struct qy_cache_settings settings = {.block_tokens = 128};
    struct qyi_layout l;
    struct qy_error err;
    (void)state;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        assert_int_equal(qyi_layout_make(&shapes[i], &settings, 0, &l, &err), QY_ERR_INVALID);
    }
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        settings.block_tokens = tokens[i];
        assert_int_equal(qyi_layout_make(&good, &settings, 0, &l, &err), QY_ERR_CONFIG);
        assert_non_null(strstr(err.text, "cache.block_tokens"));
    }
    settings.block_tokens = 128;
    settings.row_type = 2;
    assert_int_equal(qyi_layout_make(&good, &settings, 0, &l, &err), QY_ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_offsets_follow_the_shape),
        cmocka_unit_test(layout_parts_do_not_overlap),
        cmocka_unit_test(layout_blocks_are_whole),
        cmocka_unit_test(layout_refuses_bad_blocks_and_shapes),
    };
    return cmocka_run_group_tests_name("offload.layout", tests, NULL, NULL);
}
