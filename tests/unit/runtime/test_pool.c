/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks: sizes, the order of get and put, clearing, limits, and every failing allocation. */
#include "runtime/runtime.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include <string.h>

static struct qy_pool *open_pool(size_t block_bytes, uint32_t n_blocks)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_pool_params params = {.block_bytes = block_bytes, .n_blocks = n_blocks, .node = -1};
    struct qy_pool *pool = NULL;
    struct qy_error err;

    assert_int_equal(qy_pool_open(&mem, &params, &pool, &err), QY_OK);
    return pool;
}

static void pool_rounds_blocks_to_a_cache_line(void **state)
{
    struct qy_pool *pool = open_pool(100, 3);

    (void)state;
    assert_int_equal(qy_pool_block_bytes(pool), 128);
    assert_int_equal(qy_pool_total(pool), 3);
    assert_int_equal((uint8_t *)qy_pool_at(pool, 2) - (uint8_t *)qy_pool_at(pool, 0), 256);
    assert_int_equal((uintptr_t)qy_pool_at(pool, 1) % 64, 0);
    qy_pool_close(pool);
}

static void pool_hands_out_each_block_once(void **state)
{
    struct qy_pool *pool = open_pool(64, 5);
    uint32_t block = 99, seen = 0;

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(qy_pool_get(pool, &block), QY_OK);
        assert_true(block < 5);
        assert_int_equal(seen & (1u << block), 0);
        seen |= 1u << block;
        assert_int_equal(qy_pool_free_count(pool), 4 - i);
    }
    block = 99;
    assert_int_equal(qy_pool_get(pool, &block), QY_AGAIN);
    assert_int_equal(block, 99);
    qy_pool_put(pool, 3, 0);
    assert_int_equal(qy_pool_get(pool, &block), QY_OK);
    assert_int_equal(block, 3);
    qy_pool_close(pool);
}

static void pool_knows_how_many_were_out_at_once(void **state)
{
    struct qy_pool *pool = open_pool(64, 5);
    uint32_t blocks[3];

    (void)state;
    assert_int_equal(qy_pool_peak(pool), 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(qy_pool_get(pool, &blocks[i]), QY_OK);
    }
    qy_pool_put(pool, blocks[0], 0);
    qy_pool_put(pool, blocks[1], 1);
    assert_int_equal(qy_pool_get(pool, &blocks[0]), QY_OK);
    assert_int_equal(qy_pool_peak(pool), 3);
    qy_pool_close(pool);
}

static void pool_put_clears_when_asked(void **state)
{
    struct qy_pool *pool = open_pool(100, 2);
    uint32_t block;
    uint8_t *bytes;

    (void)state;
    assert_int_equal(qy_pool_get(pool, &block), QY_OK);
    bytes = qy_pool_at(pool, block);
    for (size_t i = 0; i < 128; i++) {
        assert_int_equal(bytes[i], 0); /* a fresh pool is clear */
    }
    memset(bytes, 0x5a, 128);
    qy_pool_put(pool, block, 0);
    assert_int_equal(bytes[127], 0x5a);
    assert_int_equal(qy_pool_get(pool, &block), QY_OK);
    qy_pool_put(pool, block, 1);
    for (size_t i = 0; i < 128; i++) {
        assert_int_equal(bytes[i], 0);
    }
    qy_pool_close(pool);
}

static void pool_of_huge_page_size_starts_on_one(void **state)
{
    struct qy_pool *pool = open_pool(1 << 20, 3);
    uint32_t block;

    (void)state;
    assert_int_equal((uintptr_t)qy_pool_at(pool, 0) % (2 << 20), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qy_pool_get(pool, &block), QY_OK);
        memset(qy_pool_at(pool, block), 1, 1 << 20); /* the whole of it is there */
    }
    qy_pool_close(pool);
}

static void pool_bad_sizes_are_refused(void **state)
{
    struct qy_allocator mem = qy_allocator_system();
    const struct {
        size_t block_bytes;
        uint32_t n_blocks;
        enum qy_status status;
    } cases[] = {
        {0, 1, QY_ERR_INVALID},
        {64, 0, QY_ERR_INVALID},
        {SIZE_MAX, 1, QY_ERR_NOMEM},
        {SIZE_MAX / 2, 4, QY_ERR_NOMEM},
        {SIZE_MAX - 127, 1, QY_ERR_NOMEM},  /* no room to align it */
        {(size_t)1 << 50, 1, QY_ERR_NOMEM}, /* more than there is address space */
    };
    struct qy_pool *pool = NULL;
    struct qy_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_pool_params params = {
            .block_bytes = cases[i].block_bytes, .n_blocks = cases[i].n_blocks, .node = -1};

        assert_int_equal(qy_pool_open(&mem, &params, &pool, &err), cases[i].status);
        assert_int_equal(err.status, cases[i].status);
        assert_null(pool);
    }
    qy_pool_close(NULL);
}

static void pool_on_a_node_that_is_not_there_is_refused(void **state)
{
    struct fail_alloc f = {.fail_at = -1};
    struct qy_allocator mem = fail_alloc_make(&f);
    struct qy_topology *topology;
    struct qy_pool_params params = {.block_bytes = 4096, .n_blocks = 4, .node = 900};
    struct qy_pool *pool = NULL;
    struct qy_error err;

    (void)state;
    assert_int_equal(qy_topology_open(&mem, NULL, &topology, &err), QY_OK);
    params.topology = topology;
    assert_int_equal(qy_pool_open(&mem, &params, &pool, &err), QY_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "'900'"));
    params.node = 0;
    assert_int_equal(qy_pool_open(&mem, &params, &pool, &err), QY_OK);
    memset(qy_pool_at(pool, 3), 1, 4096);
    qy_pool_close(pool);
    qy_topology_close(topology);
    assert_int_equal(f.live, 0);
}

static void pool_open_survives_each_failing_allocation(void **state)
{
    struct qy_pool_params params = {.block_bytes = 64, .n_blocks = 8, .node = -1};
    long n = 0;

    (void)state;
    for (;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_pool *pool = NULL;
        struct qy_error err;
        enum qy_status st = qy_pool_open(&mem, &params, &pool, &err);

        if (st == QY_OK) {
            qy_pool_close(pool);
            assert_int_equal(f.live, 0);
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
        assert_null(pool);
        assert_int_equal(f.live, 0);
    }
    assert_true(n > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_rounds_blocks_to_a_cache_line),
        cmocka_unit_test(pool_hands_out_each_block_once),
        cmocka_unit_test(pool_knows_how_many_were_out_at_once),
        cmocka_unit_test(pool_put_clears_when_asked),
        cmocka_unit_test(pool_of_huge_page_size_starts_on_one),
        cmocka_unit_test(pool_bad_sizes_are_refused),
        cmocka_unit_test(pool_on_a_node_that_is_not_there_is_refused),
        cmocka_unit_test(pool_open_survives_each_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
