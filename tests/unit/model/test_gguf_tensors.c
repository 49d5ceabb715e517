/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files whose tensor table is wrong: shapes, types, places and names. */
#include "tests/support/test.h"

#include "tests/unit/model/gguf_try.h"

#include <string.h>

static void put_tensor(struct gguf_writer *w, const char *name)
{
    const uint64_t dims[2] = {32, 2};

    (void)gguf_put_tensor(w, name, 2, dims, QY_TYPE_Q4_0, 36);
}

static void refuse_entry(const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                         uint64_t offset, enum qy_status status, const char *words)
{
    struct gguf_writer w;

    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "first");
    gguf_put_entry(&w, name, n_dims, dims, type, offset);
    gguf_expect_refused(&w, status, words);
}

static void gguf_with_impossible_shapes_is_refused(void **state)
{
    const uint64_t zero[2] = {32, 0};
    const uint64_t wide[2] = {1ULL << 62, 1ULL << 62};
    const uint64_t long_row[1] = {UINT64_MAX};
    const uint64_t large[4] = {1ULL << 20, 1ULL << 20, 1ULL << 20, 4};
    const uint64_t odd[1] = {48};
    const uint64_t k[2] = {128, 2};
    const uint64_t five[5] = {1, 1, 1, 1, 1};
    (void)state;

    refuse_entry("x", 2, zero, QY_TYPE_F32, 0, QY_ERR_CORRUPT, "has a zero");
    refuse_entry("x", 2, wide, QY_TYPE_F32, 0, QY_ERR_CORRUPT, "larger than any memory");
    refuse_entry("x", 1, long_row, QY_TYPE_F16, 0, QY_ERR_CORRUPT, "larger than any memory");
    refuse_entry("x", 4, large, QY_TYPE_F32, 0, QY_ERR_CORRUPT, "larger than any memory");
    refuse_entry("x", 1, odd, QY_TYPE_Q8_0, 0, QY_ERR_CORRUPT, "no multiple of 32");
    refuse_entry("x", 2, k, QY_TYPE_Q4_K, 0, QY_ERR_CORRUPT, "no multiple of 256");
    refuse_entry("x", 5, five, QY_TYPE_F32, 0, QY_ERR_CORRUPT, "5 dimensions");
    refuse_entry("x", 0, five, QY_TYPE_F32, 0, QY_ERR_CORRUPT, "0 dimensions");
}

static void gguf_with_unsupported_types_lists_the_supported(void **state)
{
    const uint64_t dims[1] = {256};
    (void)state;

    refuse_entry("w", 1, dims, 10, 0, QY_ERR_UNSUPPORTED, "tensor 'w': type 10 (Q2_K)");
    refuse_entry("w", 1, dims, 10, 0, QY_ERR_UNSUPPORTED, "Q4_1");
    refuse_entry("w", 1, dims, 4, 0, QY_ERR_UNSUPPORTED, "type 4 (unknown)");
    refuse_entry("w", 1, dims, UINT32_MAX, 0, QY_ERR_UNSUPPORTED, "(unknown)");
}

static void gguf_with_misplaced_tensors_is_refused(void **state)
{
    const uint64_t dims[1] = {4};
    (void)state;

    refuse_entry("x", 1, dims, QY_TYPE_F32, 4, QY_ERR_CORRUPT, "no multiple of the alignment 32");
    refuse_entry("x", 1, dims, QY_TYPE_F32, 64, QY_ERR_CORRUPT, "16 bytes at offset 64");
    refuse_entry("x", 1, dims, QY_TYPE_F32, 32, QY_ERR_CORRUPT, "16 bytes at offset 32");
    refuse_entry("x", 1, dims, QY_TYPE_F32, UINT64_MAX - 31, QY_ERR_CORRUPT, "at offset 184467");
    refuse_entry("x", 1, dims, QY_TYPE_F32, 0, QY_ERR_CORRUPT, "'x'");
}

static void gguf_with_overlapping_tensors_is_refused(void **state)
{
    const uint64_t dims[1] = {16};
    struct gguf_writer w;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "front"); /* 36 bytes: up to 36, beyond the next place */
    put_tensor(&w, "back");
    gguf_put_entry(&w, "between", 1, dims, QY_TYPE_F16, 32);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "tensors 'front' and 'between' overlap");
    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "one");
    gguf_put_entry(&w, "same", 1, dims, QY_TYPE_F16, 0);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "overlap");
}

static void gguf_with_bad_tensor_names_is_refused(void **state)
{
    char name[66];
    struct gguf_writer w;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "twin");
    put_tensor(&w, "other");
    put_tensor(&w, "twin");
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "tensor 'twin' is there twice");
    memset(name, 'n', 65);
    name[65] = '\0';
    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, name);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "has 65 bytes");
    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "");
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "has 0 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_with_impossible_shapes_is_refused),
        cmocka_unit_test(gguf_with_unsupported_types_lists_the_supported),
        cmocka_unit_test(gguf_with_misplaced_tensors_is_refused),
        cmocka_unit_test(gguf_with_overlapping_tensors_is_refused),
        cmocka_unit_test(gguf_with_bad_tensor_names_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
