/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files that are cut or changed anywhere, and wrong headers and metadata. */
#include "tests/support/test.h"

#include "tests/unit/model/gguf_try.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_tensor(struct gguf_writer *w, const char *name)
{
    const uint64_t dims[2] = {32, 2};

    (void)gguf_put_tensor(w, name, 2, dims, QY_TYPE_Q4_0, 36);
}

/* One value of each shape and three tensors. */
static uint8_t *small_file(size_t *n)
{
    const struct qy_text texts[2] = {{"ab", 2}, {"c", 1}};
    const int16_t numbers[3] = {1, -2, 3};
    const uint8_t bools[2] = {0, 1};
    struct gguf_writer w;

    gguf_writer_init(&w, 3, 8);
    gguf_put_u32(&w, "general.alignment", 8);
    gguf_put_text(&w, "t", "text");
    gguf_put_f32(&w, "f", 1.0F);
    gguf_put_texts(&w, "ts", texts, 2);
    gguf_put_array(&w, "n", QY_GGUF_I16, 3, numbers, sizeof(numbers));
    gguf_put_array(&w, "b", QY_GGUF_BOOL, 2, bools, sizeof(bools));
    put_tensor(&w, "x");
    put_tensor(&w, "y");
    put_tensor(&w, "z");
    return gguf_writer_finish(&w, n);
}

static void gguf_cut_at_any_byte_is_refused(void **state)
{
    struct qy_error err;
    size_t n;
    uint8_t *bytes = small_file(&n);
    (void)state;

    assert_int_equal(gguf_try_open(bytes, n, &err), QY_OK);
    for (size_t cut = 0; cut < n; cut++) {
        if (gguf_try_open(bytes, cut, &err) != QY_ERR_CORRUPT) {
            fail_msg("cut at %zu: %s", cut, err.text);
        }
    }
    free(bytes);
}

static void gguf_with_any_byte_changed_is_read_safely(void **state)
{
    static const uint8_t masks[] = {0x01, 0x02, 0x10, 0x80, 0xff};
    struct qy_error err;
    size_t n;
    uint8_t *bytes = small_file(&n);
    (void)state;

    for (size_t at = 0; at < n; at++) {
        for (size_t i = 0; i < sizeof(masks); i++) {
            bytes[at] ^= masks[i];
            (void)gguf_try_open(bytes, n, &err);
            bytes[at] ^= masks[i];
        }
    }
    assert_int_equal(gguf_try_open(bytes, n, &err), QY_OK);
    free(bytes);
}

static void gguf_with_any_field_absurd_is_read_safely(void **state)
{
    static const uint64_t values[] = {0, 1, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    struct qy_error err;
    size_t n;
    uint8_t *bytes = small_file(&n);
    (void)state;

    for (size_t at = 0; at + 8 <= n; at++) {
        uint8_t saved[8];
        memcpy(saved, bytes + at, 8);
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            memcpy(bytes + at, &values[i], 8);
            (void)gguf_try_open(bytes, n, &err);
        }
        memcpy(bytes + at, saved, 8);
    }
    free(bytes);
}

/* ---- the header ---- */

static void expect_bytes_refused(const void *bytes, size_t n, enum qy_status status,
                                 const char *words)
{
    struct qy_error err;

    assert_int_equal(gguf_try_open(bytes, n, &err), status);
    if (!strstr(err.text, words)) {
        fail_msg("expected '%s'; got '%s'", words, err.text);
    }
}

static void gguf_of_other_kinds_is_refused(void **state)
{
    uint8_t big[24] = "GGUF\0\0\0\3";
    uint8_t old[24] = "GGUF\1\0\0\0";
    uint8_t next[24] = "GGUF\4\0\0\0";
    (void)state;

    expect_bytes_refused("", 0, QY_ERR_CORRUPT, "starts with ''");
    expect_bytes_refused("version https://git-lfs", 23, QY_ERR_CORRUPT, "starts with 'vers'");
    expect_bytes_refused("\x1b[2J", 4, QY_ERR_CORRUPT, "starts with '?[2J'");
    expect_bytes_refused("FUGG", 4, QY_ERR_UNSUPPORTED, "big-endian");
    expect_bytes_refused(big, sizeof(big), QY_ERR_UNSUPPORTED, "big-endian");
    expect_bytes_refused(old, sizeof(old), QY_ERR_UNSUPPORTED, "versions 2 and 3");
    expect_bytes_refused(next, sizeof(next), QY_ERR_UNSUPPORTED, "GGUF version 4");
}

static void gguf_with_absurd_counts_is_refused_before_allocating(void **state)
{
    struct gguf_writer w;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "x");
    w.n_tensors = UINT64_MAX;
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "the number of tensors at offset 8");
    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "x");
    w.n_values = 1000;
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "the number of metadata values at offset 16");
    gguf_writer_init(&w, 3, 32);
    put_tensor(&w, "x");
    w.n_tensors = 2; /* fits by its size, but is not there */
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "tensor");
}

static void gguf_of_a_split_model_is_refused(void **state)
{
    const uint16_t parts = 3;
    struct gguf_writer w;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    gguf_put_raw(&w, "split.count", QY_GGUF_U16, &parts, 2);
    gguf_expect_refused(&w, QY_ERR_UNSUPPORTED, "one of 3 parts");
}

/* ---- values ---- */

static void gguf_with_bad_values_is_refused(void **state)
{
    const uint64_t two = 2;
    struct gguf_writer w;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    gguf_put_raw(&w, "k", 13, "12345678", 8);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "value 'k': type 13");
    gguf_writer_init(&w, 3, 32);
    gguf_put_array(&w, "k", 99, 1, "12345678", 8);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "value 'k': array of type 99");
    gguf_writer_init(&w, 3, 32);
    gguf_put_array(&w, "k", QY_GGUF_ARRAY, 1, "123456781234", 12);
    gguf_expect_refused(&w, QY_ERR_UNSUPPORTED, "array of arrays");
    gguf_writer_init(&w, 3, 32);
    gguf_put_raw(&w, "k", QY_GGUF_BOOL, "\2", 1);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "bool 2");
    gguf_writer_init(&w, 3, 32);
    gguf_put_array(&w, "k", QY_GGUF_U64, UINT64_MAX / 8 + 2, &two, 8);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "elements");
    gguf_writer_init(&w, 3, 32);
    gguf_put_array(&w, "k", QY_GGUF_STRING, 2, &two, 8);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "value 'k': 2 elements");
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "", "an empty key");
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "a key at offset 24 has 0 bytes");
}

static void gguf_with_a_key_twice_is_refused(void **state)
{
    struct gguf_writer w;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    gguf_put_u32(&w, "same", 1);
    gguf_put_u32(&w, "other", 1);
    gguf_put_f32(&w, "same", 1.0F);
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "key 'same' is there twice");
}

static void gguf_with_a_bad_alignment_is_refused(void **state)
{
    static const uint32_t bad[] = {0, 3, 48, 1U << 17, UINT32_MAX};
    struct gguf_writer w;
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        gguf_writer_init(&w, 3, 32);
        gguf_put_u32(&w, "general.alignment", bad[i]);
        put_tensor(&w, "x");
        gguf_expect_refused(&w, QY_ERR_CORRUPT, "a power of two");
    }
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "general.alignment", "32");
    gguf_expect_refused(&w, QY_ERR_CORRUPT, "must be u32");
}

/* The names arrive in an order that would be bad for a naive sort, with long common prefixes. */
static void gguf_with_many_values_opens_and_is_searched(void **state)
{
    struct gguf_writer w;
    size_t n;
    char key[64];
    (void)state;

    gguf_writer_init(&w, 3, 32);
    for (uint32_t i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof(key), "a.long.common.prefix.%u", i % 2 ? i : 9999 - i);
        gguf_put_u32(&w, key, i);
    }
    uint8_t *bytes = gguf_writer_finish(&w, &n);
    struct qy_gguf *gguf = NULL;
    const struct qy_allocator mem = qy_allocator_system();
    assert_int_equal(qy_gguf_open_memory(&mem, bytes, n, "t.gguf", &gguf, NULL), QY_OK);
    for (uint32_t i = 0; i < 5000; i++) {
        uint64_t value = 0;
        (void)snprintf(key, sizeof(key), "a.long.common.prefix.%u", i % 2 ? i : 9999 - i);
        assert_int_equal(qy_gguf_get_u64(gguf, key, &value), 0);
        assert_int_equal(value, i);
    }
    qy_gguf_close(gguf);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_cut_at_any_byte_is_refused),
        cmocka_unit_test(gguf_with_any_byte_changed_is_read_safely),
        cmocka_unit_test(gguf_with_any_field_absurd_is_read_safely),
        cmocka_unit_test(gguf_of_other_kinds_is_refused),
        cmocka_unit_test(gguf_with_absurd_counts_is_refused_before_allocating),
        cmocka_unit_test(gguf_of_a_split_model_is_refused),
        cmocka_unit_test(gguf_with_bad_values_is_refused),
        cmocka_unit_test(gguf_with_a_key_twice_is_refused),
        cmocka_unit_test(gguf_with_a_bad_alignment_is_refused),
        cmocka_unit_test(gguf_with_many_values_opens_and_is_searched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
