/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to memory servers, packed and parsed: what one side packs the other reads; of what a hostile
 * side could send, each member outside its bounds and each length but the right one is refused.
 */
#include "tests/unit/offload/wire_damage.h"

#include "offload/memory/remote_wire.h"

static const struct qyi_remote_bounds bounds = {.n_layers = 3,
                                                .n_kv_heads = 2,
                                                .query_floats = 128,
                                                .shift = 4,
                                                .max_sequences = 5,
                                                .max_blocks = 10,
                                                .block_bytes = 4096};

/* ---- blocks --------------------------------------------------------------------------------------- */

static const char *parse_put(const void *head, size_t head_bytes, const void *payload,
                             size_t payload_bytes)
{
    struct qyi_remote_put put;
    const char *wrong = qyi_remote_put_parse(&bounds, head, head_bytes, payload_bytes, &put);

    (void)payload;
    if (!wrong) {
        assert_int_equal(put.sequence, 4);
        assert_int_equal(put.block, 9);
        assert_int_equal(put.serial, 7);
        assert_int_equal(put.generation, 8);
    }
    return wrong;
}

static void put_outside_its_bounds_is_refused(void **state)
{
    struct qyi_remote_put put = {.serial = 7, .generation = 8, .sequence = 4, .block = 9};
    uint8_t block[4096] = {0};
    struct question q = {parse_put, (uint8_t *)&put, block, sizeof(put), sizeof(block)};
    static const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_put, serial, 0),
        IN_HEAD(struct qyi_remote_put, generation, 0),
        IN_HEAD(struct qyi_remote_put, sequence, 5),
        IN_HEAD(struct qyi_remote_put, sequence, UINT32_MAX),
        IN_HEAD(struct qyi_remote_put, block, 10),
        IN_HEAD(struct qyi_remote_put, block, UINT32_MAX),
    };
    (void)state;

    refuse_everything(&q, damages, COUNT(damages));
}

static const char *parse_drop(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes)
{
    struct qyi_remote_drops drops;
    const char *wrong =
        qyi_remote_drop_parse(&bounds, head, head_bytes, payload, payload_bytes, &drops);

    if (!wrong) {
        assert_int_equal(drops.n, 2);
        assert_int_equal(qyi_remote_drop_end(&bounds, &drops.items[0]), 10);
        assert_int_equal(qyi_remote_drop_end(&bounds, &drops.items[1]), 3);
    }
    return wrong;
}

static void drop_outside_its_bounds_is_refused(void **state)
{
    struct qyi_remote_count count = {.n = 2};
    struct qyi_remote_drop drops[] = {
        {.serial = 1, .generation = 5, .sequence = 4, .first = 9, .n = UINT32_MAX},
        {.serial = 2, .generation = 6, .sequence = 0, .first = 2, .n = 1, .moved = 1}};
    struct question q = {parse_drop, (uint8_t *)&count, (uint8_t *)drops, sizeof(count),
                         sizeof(drops)};
    static const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_count, n, 0),
        IN_HEAD(struct qyi_remote_count, n, 1),
        IN_HEAD(struct qyi_remote_count, n, 3),
        IN_HEAD(struct qyi_remote_count, n, UINT32_MAX),
        IN_HEAD(struct qyi_remote_count, zero, 1),
        IN_ITEM(1, struct qyi_remote_drop, serial, 0),
        IN_ITEM(1, struct qyi_remote_drop, generation, 0),
        IN_ITEM(1, struct qyi_remote_drop, sequence, 5),
        IN_ITEM(1, struct qyi_remote_drop, first, 10),
        IN_ITEM(1, struct qyi_remote_drop, first, UINT32_MAX),
        IN_ITEM(1, struct qyi_remote_drop, n, 0),
        IN_ITEM(1, struct qyi_remote_drop, moved, 2),
    };
    (void)state;

    refuse_everything(&q, damages, COUNT(damages));
}

static void drop_of_more_than_the_table_is_refused(void **state)
{
    struct qyi_remote_drop drops[6];
    struct qyi_remote_count count = {.n = 5};
    struct qyi_remote_drops parsed;
    (void)state;

    for (uint32_t i = 0; i < 6; i++) {
        drops[i] = (struct qyi_remote_drop){.serial = 1, .generation = 1, .n = UINT32_MAX};
    }
    assert_null(qyi_remote_drop_parse(&bounds, &count, sizeof(count), drops, 5 * sizeof(drops[0]),
                                      &parsed));
    count.n = 6;
    assert_non_null(
        qyi_remote_drop_parse(&bounds, &count, sizeof(count), drops, sizeof(drops), &parsed));
}

static const char *parse_read(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes)
{
    struct qyi_remote_reads reads;
    const char *wrong =
        qyi_remote_read_parse(&bounds, head, head_bytes, payload, payload_bytes, &reads);

    if (!wrong) {
        assert_int_equal(reads.n, 2);
        assert_int_equal(reads.bytes, 4096 + 96);
    }
    return wrong;
}

static void read_outside_its_bounds_is_refused(void **state)
{
    struct qyi_remote_count count = {.n = 2};
    struct qyi_remote_read reads[] = {
        {.serial = 1, .at = 0, .bytes = 4096, .sequence = 4, .block = 9},
        {.serial = 1, .at = 4000, .bytes = 96, .sequence = 0, .block = 0}};
    struct question q = {parse_read, (uint8_t *)&count, (uint8_t *)reads, sizeof(count),
                         sizeof(reads)};
    static const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_count, n, UINT32_MAX),
        IN_ITEM(0, struct qyi_remote_read, at, 1),
        IN_ITEM(1, struct qyi_remote_read, serial, 0),
        IN_ITEM(1, struct qyi_remote_read, at, 4001),
        IN_ITEM(1, struct qyi_remote_read, at, 4096),
        IN_ITEM(1, struct qyi_remote_read, at, UINT64_MAX),
        IN_ITEM(1, struct qyi_remote_read, bytes, 0),
        IN_ITEM(1, struct qyi_remote_read, bytes, 97),
        IN_ITEM(1, struct qyi_remote_read, bytes, UINT64_MAX),
        IN_ITEM(1, struct qyi_remote_read, sequence, 5),
        IN_ITEM(1, struct qyi_remote_read, block, 10),
    };
    (void)state;

    refuse_everything(&q, damages, COUNT(damages));
}

/* ---- lists ---------------------------------------------------------------------------------------- */

static const char *parse_rows(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes)
{
    struct qyi_remote_list list;
    const char *wrong =
        qyi_remote_rows_parse(&bounds, head, head_bytes, payload, payload_bytes, &list);

    if (!wrong) {
        assert_int_equal(list.layer, 2);
        assert_int_equal(list.n_items, 2);
        assert_null(list.q);
        assert_int_equal(list.items[1].n, 3);
        assert_int_equal(list.ids[3], 159);
    }
    return wrong;
}

static void rows_outside_their_bounds_are_refused(void **state)
{
    struct qyi_remote_ask ask = {.layer = 2, .n_items = 2, .n_ids = 4};
    struct {
        struct qyi_remote_item items[2];
        uint32_t ids[4];
    } payload = {{{.serial = 1, .sequence = 4, .head = 1, .n = 1},
                  {.serial = 1, .sequence = 0, .head = 0, .n = 3}},
                 {0, 1, 1, 159}};
    struct question q = {parse_rows, (uint8_t *)&ask, (uint8_t *)&payload, sizeof(ask),
                         sizeof(payload)};
    static const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_ask, layer, 3),
        IN_HEAD(struct qyi_remote_ask, layer, UINT32_MAX),
        IN_HEAD(struct qyi_remote_ask, n_items, 0),
        IN_HEAD(struct qyi_remote_ask, n_items, 1),
        IN_HEAD(struct qyi_remote_ask, n_items, UINT32_MAX),
        IN_HEAD(struct qyi_remote_ask, n_ids, 3),
        IN_HEAD(struct qyi_remote_ask, n_ids, UINT32_MAX),
        IN_HEAD(struct qyi_remote_ask, scale, 0x7fc00000),
        IN_HEAD(struct qyi_remote_ask, scale, 0x7f800000),
        IN_ITEM(0, struct qyi_remote_item, serial, 0),
        IN_ITEM(1, struct qyi_remote_item, sequence, 5),
        IN_ITEM(0, struct qyi_remote_item, head, 2),
        IN_ITEM(0, struct qyi_remote_item, n, 0),
        IN_ITEM(0, struct qyi_remote_item, n, 2),
        IN_ITEM(1, struct qyi_remote_item, n, UINT32_MAX),
        IN_ITEM(1, struct qyi_remote_item, zero, 1),
        {1, sizeof(payload) - 4, 4, 160},
        {1, sizeof(payload) - 16, 4, UINT32_MAX},
    };
    (void)state;

    refuse_everything(&q, damages, COUNT(damages));
}

static const char *parse_attend(const void *head, size_t head_bytes, const void *payload,
                                size_t payload_bytes)
{
    struct qyi_remote_list list;
    const char *wrong =
        qyi_remote_attend_parse(&bounds, head, head_bytes, payload, payload_bytes, &list);

    if (!wrong) {
        assert_true(list.scale == 0.5F);
        assert_true(list.q[127] == 3.0F);
        assert_int_equal(list.ids[0], 17);
    }
    return wrong;
}

static void attend_outside_its_bounds_is_refused(void **state)
{
    struct qyi_remote_ask ask = {.layer = 0, .n_items = 1, .n_ids = 2, .scale = 0.5F};
    struct {
        struct qyi_remote_item item;
        float q[128];
        uint32_t ids[2];
    } payload = {{.serial = 9, .sequence = 1, .head = 1, .n = 2}, {[127] = 3.0F}, {17, 5}};
    struct question q = {parse_attend, (uint8_t *)&ask, (uint8_t *)&payload, sizeof(ask),
                         sizeof(payload)};
    const struct qyi_remote_parts parts = qyi_remote_parts(1, 2, 128);
    static const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_ask, n_items, 2),
        IN_HEAD(struct qyi_remote_ask, n_ids, 1),
        IN_HEAD(struct qyi_remote_ask, scale, 0xff800000),
        {1, sizeof(payload) - 4, 4, 160},
    };
    (void)state;

    assert_int_equal(parts.bytes, sizeof(payload));
    refuse_everything(&q, damages, COUNT(damages));
}

static const char *parse_chunk(const void *head, size_t head_bytes, const void *payload,
                               size_t payload_bytes)
{
    struct qyi_remote_chunk_parts chunk;
    const char *wrong =
        qyi_remote_chunk_parse(&bounds, head, head_bytes, payload, payload_bytes, &chunk);

    if (!wrong) {
        assert_true(chunk.ask.scale == 0.5F);
        assert_int_equal(chunk.ask.n_queries, 2);
        assert_true(chunk.q[2 * 256 - 1] == 3.0F);
        assert_int_equal(chunk.blocks[2], 9);
    }
    return wrong;
}

static void chunk_outside_its_bounds_is_refused(void **state)
{
    struct qyi_remote_chunk ask = {
        .serial = 9, .sequence = 4, .layer = 2, .n_queries = 2, .n_blocks = 3, .scale = 0.5F};
    struct {
        float q[2 * 256];
        uint32_t blocks[3];
    } payload = {{[2 * 256 - 1] = 3.0F}, {0, 0, 9}};
    struct question q = {parse_chunk, (uint8_t *)&ask, (uint8_t *)&payload, sizeof(ask),
                         sizeof(payload)};
    static const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_chunk, serial, 0),
        IN_HEAD(struct qyi_remote_chunk, sequence, 5),
        IN_HEAD(struct qyi_remote_chunk, layer, 3),
        IN_HEAD(struct qyi_remote_chunk, n_queries, 0),
        IN_HEAD(struct qyi_remote_chunk, n_queries, 1),
        IN_HEAD(struct qyi_remote_chunk, n_queries, 3),
        IN_HEAD(struct qyi_remote_chunk, n_queries, UINT32_MAX),
        IN_HEAD(struct qyi_remote_chunk, n_blocks, 0),
        IN_HEAD(struct qyi_remote_chunk, n_blocks, 2),
        IN_HEAD(struct qyi_remote_chunk, n_blocks, UINT32_MAX),
        IN_HEAD(struct qyi_remote_chunk, scale, 0x7fc00000),
        IN_HEAD(struct qyi_remote_chunk, zero, 1),
        {1, sizeof(payload) - 4, 4, 10},
        {1, sizeof(payload) - 12, 4, UINT32_MAX},
    };
    (void)state;

    assert_int_equal(qyi_remote_chunk_bytes(2, 3, 256), sizeof(payload));
    refuse_everything(&q, damages, COUNT(damages));
}

static void payload_that_is_not_aligned_is_refused(void **state)
{
    struct qyi_remote_ask ask = {.layer = 2, .n_items = 1};
    struct qyi_remote_item items[2] = {{.serial = 1}, {.serial = 1}};
    struct qyi_remote_list list;
    (void)state;

    assert_null(qyi_remote_rows_parse(&bounds, &ask, sizeof(ask), items, sizeof(items[0]), &list));
    memmove((uint8_t *)items + 4, items, sizeof(items[0]));
    assert_non_null(qyi_remote_rows_parse(&bounds, &ask, sizeof(ask), (uint8_t *)items + 4,
                                          sizeof(items[0]), &list));
}

static void codes_have_names(void **state)
{
    (void)state;

    for (uint16_t i = 0; i < QYI_REMOTE_CODES; i++) {
        assert_non_null(qyi_remote_code_name(i));
    }
    assert_non_null(qyi_remote_code_name(UINT16_MAX));
}

static void fold_shows_any_one_generation(void **state)
{
    static const uint32_t ids[] = {0, 5, 17, 1, 33, 34, 35, 16};
    uint64_t generations[3] = {4, 5, 6};
    const uint64_t fold = qyi_remote_fold_ids(0, ids, COUNT(ids), 4, generations);
    (void)state;

    /* runs: blocks 0, 1, 0, 2, 1 */
    uint64_t by_hand = 0;
    for (size_t i = 0; i < 5; i++) {
        by_hand = qyi_remote_fold(by_hand, generations[(size_t) "\0\1\0\2\1"[i]]);
    }
    assert_int_equal(fold, by_hand);
    for (size_t i = 0; i < 3; i++) {
        generations[i]++;
        assert_int_not_equal(qyi_remote_fold_ids(0, ids, COUNT(ids), 4, generations), fold);
        generations[i]--;
    }
    assert_int_not_equal(qyi_remote_fold_ids(0, ids, COUNT(ids) - 1, 4, generations), fold);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_outside_its_bounds_is_refused),
        cmocka_unit_test(drop_outside_its_bounds_is_refused),
        cmocka_unit_test(drop_of_more_than_the_table_is_refused),
        cmocka_unit_test(read_outside_its_bounds_is_refused),
        cmocka_unit_test(rows_outside_their_bounds_are_refused),
        cmocka_unit_test(attend_outside_its_bounds_is_refused),
        cmocka_unit_test(chunk_outside_its_bounds_is_refused),
        cmocka_unit_test(payload_that_is_not_aligned_is_refused),
        cmocka_unit_test(codes_have_names),
        cmocka_unit_test(fold_shows_any_one_generation),
    };
    return cmocka_run_group_tests_name("unit.offload.remote_wire", tests, NULL, NULL);
}
