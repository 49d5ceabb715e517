/* SPDX-License-Identifier: Apache-2.0 */
/* How a worker says its layout to a memory server, and the heads of answers. */
#include "tests/unit/offload/wire_damage.h"

#include "offload/memory/remote_wire.h"

static const char *parse_open(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes)
{
    struct qyi_home_layer *layers = NULL;
    struct qyi_remote_open open;
    struct qyi_layout layout;
    const char *wrong = qyi_remote_open_parse(payload, payload_bytes, &open);

    (void)head;
    if (head_bytes != 0) {
        return "has no head";
    }
    if (!wrong) {
        layers = malloc(open.n_layers * sizeof(*layers) + 1);
        assert_non_null(layers);
        wrong = qyi_remote_open_layout(&open, payload, open.coded ? layers : NULL, &layout);
    }
    free(layers);
    return wrong;
}

static void open_layout(int coded, struct qyi_home_layer layers[3], struct qyi_layout *layout)
{
    const struct qy_kv_shape shape = {3, 4, 2, 64};
    const struct qy_cache_settings settings = {.block_tokens = 16};

    assert_int_equal(qyi_layout_make(&shape, &settings, 100, layout, NULL), QY_OK);
    for (uint32_t i = 0; i < 3; i++) {
        layers[i] = (struct qyi_home_layer){
            .codec = {.k_bits = i == 0 ? 16 : 8, .v_bits = 4, .group = 32, .d = 64}};
    }
    if (coded) {
        qyi_layout_code(layout, layers);
    }
}

static void open_gives_the_same_layout(void **state)
{
    _Alignas(8) uint8_t payload[128];
    (void)state;

    for (int coded = 0; coded < 2; coded++) {
        struct qyi_home_layer layers[3], there[3];
        struct qyi_layout layout, other;
        struct qyi_remote_open open;

        open_layout(coded, layers, &layout);
        qyi_remote_open_pack(&layout, 2, 5, 6, payload);
        assert_null(qyi_remote_open_parse(payload, qyi_remote_open_bytes(&layout), &open));
        assert_int_equal(open.group, 2);
        assert_int_equal(open.max_sequences, 5);
        assert_int_equal(open.max_blocks, 6);
        assert_null(qyi_remote_open_layout(&open, payload, there, &other));
        assert_int_equal(other.block_bytes, layout.block_bytes);
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(qyi_layout_home_at(&other, i / 2, i % 2),
                             qyi_layout_home_at(&layout, i / 2, i % 2));
            assert_int_equal(qyi_layout_index_at(&other, i / 2, i % 2),
                             qyi_layout_index_at(&layout, i / 2, i % 2));
        }
        assert_int_equal(qyi_layout_home_row(&other, 1), qyi_layout_home_row(&layout, 1));
    }
}

static void open_outside_its_bounds_is_refused(void **state)
{
    static const struct damage damages[] = {
        IN_ITEM(0, struct qyi_remote_open, version, 0),
        IN_ITEM(0, struct qyi_remote_open, version, QYI_REMOTE_VERSION + 1),
        IN_ITEM(0, struct qyi_remote_open, n_layers, 0),
        IN_ITEM(0, struct qyi_remote_open, n_layers, 4),
        IN_ITEM(0, struct qyi_remote_open, n_layers, UINT32_MAX),
        IN_ITEM(0, struct qyi_remote_open, n_kv_heads, 0),
        IN_ITEM(0, struct qyi_remote_open, n_kv_heads, 3),
        IN_ITEM(0, struct qyi_remote_open, n_kv_heads, UINT32_MAX),
        IN_ITEM(0, struct qyi_remote_open, head_dim, 0),
        IN_ITEM(0, struct qyi_remote_open, head_dim, 63),
        IN_ITEM(0, struct qyi_remote_open, head_dim, 128),
        IN_ITEM(0, struct qyi_remote_open, head_dim, UINT32_MAX),
        IN_ITEM(0, struct qyi_remote_open, group, 0),
        IN_ITEM(0, struct qyi_remote_open, group, 65),
        IN_ITEM(0, struct qyi_remote_open, block_tokens, 0),
        IN_ITEM(0, struct qyi_remote_open, block_tokens, 24),
        IN_ITEM(0, struct qyi_remote_open, block_tokens, 8192),
        IN_ITEM(0, struct qyi_remote_open, row_type, 1),
        IN_ITEM(0, struct qyi_remote_open, row_type, 2),
        IN_ITEM(0, struct qyi_remote_open, in_pages, 1),
        IN_ITEM(0, struct qyi_remote_open, in_pages, 2),
        IN_ITEM(0, struct qyi_remote_open, coded, 0),
        IN_ITEM(0, struct qyi_remote_open, coded, 2),
        IN_ITEM(0, struct qyi_remote_open, max_sequences, 0),
        IN_ITEM(0, struct qyi_remote_open, max_sequences, UINT32_MAX),
        IN_ITEM(0, struct qyi_remote_open, max_blocks, 0),
        IN_ITEM(0, struct qyi_remote_open, max_blocks, UINT32_MAX / 16 + 1),
        IN_ITEM(0, struct qyi_remote_open, max_blocks, UINT32_MAX),
        IN_ITEM(0, struct qyi_remote_open, zero, 1),
        IN_ITEM(0, struct qyi_remote_open, index_slab_bytes, 100),
        IN_ITEM(0, struct qyi_remote_open, index_slab_bytes, 192),
        IN_ITEM(0, struct qyi_remote_open, index_slab_bytes, UINT64_MAX),
        IN_ITEM(0, struct qyi_remote_open, index_at, 0),
        IN_ITEM(0, struct qyi_remote_open, footer_at, 64),
        IN_ITEM(0, struct qyi_remote_open, block_bytes, 64),
        IN_ITEM(0, struct qyi_remote_open, block_bytes, UINT64_MAX),
        {1, sizeof(struct qyi_remote_open), 1, 5},
        {1, sizeof(struct qyi_remote_open) + 4, 1, 4},
        {1, sizeof(struct qyi_remote_open) + 6, 1, 33},
        {1, sizeof(struct qyi_remote_open) + 7, 1, 1},
    };
    struct qyi_home_layer layers[3];
    struct qyi_layout layout;
    uint8_t none[1] = {0};
    _Alignas(8) uint8_t payload[128];
    (void)state;

    open_layout(1, layers, &layout);
    qyi_remote_open_pack(&layout, 2, 5, 6, payload);
    struct question q = {parse_open, none, payload, 0, qyi_remote_open_bytes(&layout)};
    refuse_everything(&q, damages, COUNT(damages));
}

static void reply_that_is_none_is_corrupt(void **state)
{
    struct qyi_remote_reply said = {.fold = 1, .free_blocks = 3, .total_blocks = 4};
    struct qyi_remote_reply reply;
    (void)state;

    assert_int_equal(qyi_remote_reply_parse(&said, sizeof(said), &reply), QY_OK);
    assert_int_equal(reply.free_blocks, 3);
    assert_int_equal(qyi_remote_reply_parse(&said, sizeof(said) - 1, &reply), QY_ERR_CORRUPT);
    assert_int_equal(qyi_remote_reply_parse(&said, 0, &reply), QY_ERR_CORRUPT);
    said.free_blocks = 5;
    assert_int_equal(qyi_remote_reply_parse(&said, sizeof(said), &reply), QY_ERR_CORRUPT);
    said.free_blocks = 0;
    said.held_blocks = 5;
    assert_int_equal(qyi_remote_reply_parse(&said, sizeof(said), &reply), QY_ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_gives_the_same_layout),
        cmocka_unit_test(open_outside_its_bounds_is_refused),
        cmocka_unit_test(reply_that_is_none_is_corrupt),
    };
    return cmocka_run_group_tests_name("unit.offload.remote_open", tests, NULL, NULL);
}
