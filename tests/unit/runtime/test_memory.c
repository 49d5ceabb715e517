/* SPDX-License-Identifier: Apache-2.0 */
/* The system allocator, qy_alloc_zero and the arena. */
#include "runtime/runtime.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

static void allocator_honours_alignment(void **state)
{
    struct qy_allocator mem = qy_allocator_system();

    (void)state;
    for (size_t align = 1; align <= 4096; align *= 2) {
        void *ptr = mem.alloc(mem.ctx, 100, align);

        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % align, 0);
        mem.free(mem.ctx, ptr);
    }
    mem.free(mem.ctx, NULL);
}

static void alloc_zero_gives_zeros_on_a_cache_line(void **state)
{
    struct qy_allocator mem = qy_allocator_system();

    (void)state;
    for (size_t bytes = 0; bytes < 300; bytes += 37) {
        uint8_t *ptr = qy_alloc_zero(&mem, bytes);

        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % 64, 0);
        for (size_t i = 0; i < bytes; i++) {
            assert_int_equal(ptr[i], 0);
            ptr[i] = 0xff; /* so that a second block in the same place shows */
        }
        qy_free(&mem, ptr);
    }
    qy_free(&mem, NULL);
}

static void alloc_zero_without_memory_is_null(void **state)
{
    struct fail_alloc f = {.fail_at = 0};
    struct qy_allocator mem = fail_alloc_make(&f);

    (void)state;
    assert_null(qy_alloc_zero(&mem, 10));
    assert_int_equal(f.calls, 1);
    assert_int_equal(f.live, 0);
}

static void arena_take_aligns_the_address(void **state)
{
    _Alignas(64) uint8_t room[512];
    struct qy_arena arena;
    uint8_t *a, *b;

    (void)state;
    qy_arena_init(&arena, room + 1, sizeof(room) - 1); /* a base that is not aligned */
    a = qy_arena_take(&arena, 3, 64);
    b = qy_arena_take(&arena, 100, 16);
    assert_ptr_equal(a, room + 64);
    assert_int_equal((uintptr_t)b % 16, 0);
    assert_true(b >= a + 3);
}

static void arena_full_gives_null_and_stays(void **state)
{
    _Alignas(64) uint8_t room[128];
    struct qy_arena arena;

    (void)state;
    qy_arena_init(&arena, room, sizeof(room));
    assert_non_null(qy_arena_take(&arena, 128, 64));
    assert_null(qy_arena_take(&arena, 1, 1));
    assert_int_equal(arena.used, 128);
    qy_arena_rewind(&arena, 0);
    assert_null(qy_arena_take(&arena, 129, 1));
    assert_null(qy_arena_take(&arena, SIZE_MAX, 64));
    assert_null(qy_arena_take(&arena, SIZE_MAX - 63, 64));
    assert_int_equal(arena.used, 0);
}

static void arena_rewind_gives_the_same_place_again(void **state)
{
    _Alignas(64) uint8_t room[256];
    struct qy_arena arena;
    size_t mark;
    void *first;

    (void)state;
    qy_arena_init(&arena, room, sizeof(room));
    assert_non_null(qy_arena_take(&arena, 64, 64));
    mark = qy_arena_mark(&arena);
    first = qy_arena_take(&arena, 100, 4);
    qy_arena_rewind(&arena, mark);
    assert_ptr_equal(qy_arena_take(&arena, 20, 4), first);
    assert_int_equal(arena.used, 84);
    assert_int_equal(arena.high_water, 164);
}

static void arena_without_room_gives_null(void **state)
{
    struct qy_arena arena;

    (void)state;
    qy_arena_init(&arena, NULL, 0);
    assert_null(qy_arena_take(&arena, 1, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocator_honours_alignment),
        cmocka_unit_test(alloc_zero_gives_zeros_on_a_cache_line),
        cmocka_unit_test(alloc_zero_without_memory_is_null),
        cmocka_unit_test(arena_take_aligns_the_address),
        cmocka_unit_test(arena_full_gives_null_and_stays),
        cmocka_unit_test(arena_rewind_gives_the_same_place_again),
        cmocka_unit_test(arena_without_room_gives_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
