/* SPDX-License-Identifier: Apache-2.0 */
/* Reading whole GGUF files: what was written is what is found. */
#include "tests/support/test.h"

#include "model/model.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/make_gguf_random.h"
#include "tests/support/make_gguf_writer.h"
#include "tests/support/tiny_models.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct qy_allocator heap(void)
{
    return qy_allocator_system();
}

static struct qy_gguf *open_bytes(const uint8_t *bytes, size_t n)
{
    const struct qy_allocator mem = heap();
    struct qy_gguf *gguf = NULL;
    struct qy_error err = {0};

    if (qy_gguf_open_memory(&mem, bytes, n, "test.gguf", &gguf, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return gguf;
}

static void put_each_type(struct gguf_writer *w)
{
    const int8_t i8 = -5;
    const int16_t i16 = -300;
    const int32_t i32 = -70000;
    const int64_t i64 = -5000000000;
    const uint16_t u16 = 65000;
    const uint64_t u64 = UINT64_MAX;
    const double f64 = 0.1;
    const int32_t numbers[3] = {-1, 0, 7};
    const float reals[2] = {0.5F, -2.0F};
    const uint8_t bools[3] = {1, 0, 1};
    const struct qy_text texts[3] = {{"one", 3}, {"", 0}, {"a\0b", 3}};

    gguf_put_raw(w, "v.u8", QY_GGUF_U8, "\xfe", 1);
    gguf_put_raw(w, "v.i8", QY_GGUF_I8, &i8, 1);
    gguf_put_raw(w, "v.u16", QY_GGUF_U16, &u16, 2);
    gguf_put_raw(w, "v.i16", QY_GGUF_I16, &i16, 2);
    gguf_put_u32(w, "v.u32", 4000000000U);
    gguf_put_raw(w, "v.i32", QY_GGUF_I32, &i32, 4);
    gguf_put_raw(w, "v.u64", QY_GGUF_U64, &u64, 8);
    gguf_put_raw(w, "v.i64", QY_GGUF_I64, &i64, 8);
    gguf_put_f32(w, "v.f32", 1.5F);
    gguf_put_raw(w, "v.f64", QY_GGUF_F64, &f64, 8);
    gguf_put_bool(w, "v.bool", 1);
    gguf_put_text(w, "v.text", "words");
    gguf_put_text(w, "v.empty", "");
    gguf_put_array(w, "v.numbers", QY_GGUF_I32, 3, numbers, sizeof(numbers));
    gguf_put_array(w, "v.reals", QY_GGUF_F32, 2, reals, sizeof(reals));
    gguf_put_array(w, "v.bools", QY_GGUF_BOOL, 3, bools, sizeof(bools));
    gguf_put_array(w, "v.nothing", QY_GGUF_STRING, 0, NULL, 0);
    gguf_put_texts(w, "v.texts", texts, 3);
}

static uint8_t *sample_file(uint32_t version, uint32_t alignment, size_t *n)
{
    const uint64_t row[1] = {5};
    const uint64_t matrix[2] = {64, 3};
    const uint64_t cube[4] = {2, 3, 4, 5};
    struct gguf_writer w;

    gguf_writer_init(&w, version, alignment);
    put_each_type(&w);
    if (alignment != 32) {
        gguf_put_u32(&w, "general.alignment", alignment);
    }
    random_vector(5, 0.0F, 1.0F, 1, gguf_put_tensor(&w, "b.row", 1, row, QY_TYPE_F32, 20));
    random_tensor(QY_TYPE_Q8_0, 192, 1.0F, 2,
                  gguf_put_tensor(&w, "a.matrix", 2, matrix, QY_TYPE_Q8_0, 204));
    random_tensor(QY_TYPE_F16, 120, 1.0F, 3,
                  gguf_put_tensor(&w, "c.cube", 4, cube, QY_TYPE_F16, 240));
    return gguf_writer_finish(&w, n);
}

static double get_f64(const struct qy_gguf *gguf, const char *key)
{
    double value = NAN;

    assert_int_equal(qy_gguf_get_f64(gguf, key, &value), 0);
    return value;
}

static uint64_t get_u64(const struct qy_gguf *gguf, const char *key)
{
    uint64_t value = 0;

    assert_int_equal(qy_gguf_get_u64(gguf, key, &value), 0);
    return value;
}

static void check_sample(const struct qy_gguf *gguf, uint32_t alignment)
{
    const struct qy_gguf_tensor *matrix = qy_gguf_find_tensor(gguf, "a.matrix");
    const struct qy_gguf_tensor *row = qy_gguf_tensor_at(gguf, 0);
    uint8_t expected[204];

    assert_int_equal(qy_gguf_n_tensors(gguf), 3);
    assert_int_equal(get_u64(gguf, "v.u8"), 0xfe);
    assert_non_null(matrix);
    assert_int_equal(matrix->n_dims, 2);
    assert_int_equal(matrix->dims[0], 64);
    assert_int_equal(matrix->dims[1], 3);
    assert_int_equal(matrix->dims[3], 1);
    assert_int_equal(matrix->type, QY_TYPE_Q8_0);
    assert_int_equal(matrix->bytes, 204);
    random_tensor(QY_TYPE_Q8_0, 192, 1.0F, 2, expected);
    assert_memory_equal(matrix->data, expected, 204);
    assert_int_equal(row->bytes, 20);
    assert_int_equal(row->name.bytes, 5);
    assert_int_equal(((const uint8_t *)matrix->data - (const uint8_t *)row->data) % alignment, 0);
    assert_int_equal(qy_gguf_find_tensor(gguf, "c.cube")->dims[3], 5);
    assert_null(qy_gguf_find_tensor(gguf, "c.cub"));
    assert_null(qy_gguf_find_tensor(gguf, ""));
    assert_null(qy_gguf_tensor_at(gguf, 3));
}

static void gguf_of_both_versions_and_alignments_reads_the_same(void **state)
{
    const uint32_t alignments[] = {32, 1, 8, 4096};
    (void)state;

    for (uint32_t version = 2; version <= 3; version++) {
        for (size_t i = 0; i < sizeof(alignments) / sizeof(alignments[0]); i++) {
            size_t n;
            uint8_t *bytes = sample_file(version, alignments[i], &n);
            struct qy_gguf *gguf = open_bytes(bytes, n);
            check_sample(gguf, alignments[i]);
            qy_gguf_close(gguf);
            free(bytes);
        }
    }
}

static void gguf_values_convert_within_their_kind(void **state)
{
    size_t n;
    uint8_t *bytes = sample_file(3, 32, &n);
    struct qy_gguf *gguf = open_bytes(bytes, n);
    uint64_t whole;
    double real;
    struct qy_text text;
    (void)state;

    assert_int_equal(get_u64(gguf, "v.u16"), 65000);
    assert_int_equal(get_u64(gguf, "v.u32"), 4000000000U);
    assert_true(get_u64(gguf, "v.u64") == UINT64_MAX);
    assert_int_equal(get_u64(gguf, "v.bool"), 1);
    assert_int_equal(qy_gguf_get_u64(gguf, "v.none", &whole), -1);
    assert_int_equal(qy_gguf_get_u64(gguf, "v.i8", &whole), -2);
    assert_int_equal(qy_gguf_get_u64(gguf, "v.i64", &whole), -2);
    assert_int_equal(qy_gguf_get_u64(gguf, "v.f32", &whole), -2);
    assert_int_equal(qy_gguf_get_u64(gguf, "v.text", &whole), -2);
    assert_int_equal(qy_gguf_get_u64(gguf, "v.numbers", &whole), -2);
    assert_true(get_f64(gguf, "v.f32") == 1.5);
    assert_true(get_f64(gguf, "v.f64") == 0.1);
    assert_int_equal(qy_gguf_get_f64(gguf, "v.u32", &real), -2);
    assert_int_equal(qy_gguf_get_f64(gguf, "v.none", &real), -1);
    assert_int_equal(qy_gguf_get_text(gguf, "v.text", &text), 0);
    assert_int_equal(text.bytes, 5);
    assert_memory_equal(text.data, "words", 5);
    assert_int_equal(qy_gguf_get_text(gguf, "v.empty", &text), 0);
    assert_int_equal(text.bytes, 0);
    assert_int_equal(qy_gguf_get_text(gguf, "v.texts", &text), -2);
    assert_int_equal(qy_gguf_get_text(gguf, "v.none", &text), -1);
    qy_gguf_close(gguf);
    free(bytes);
}

static void gguf_numbers_of_arrays_and_scalars_come_as_double(void **state)
{
    size_t n;
    uint8_t *bytes = sample_file(3, 32, &n);
    struct qy_gguf *gguf = open_bytes(bytes, n);
    const struct qy_gguf_value *numbers = qy_gguf_find_value(gguf, "v.numbers");
    (void)state;

    assert_int_equal(numbers->type, QY_GGUF_ARRAY);
    assert_int_equal(numbers->element, QY_GGUF_I32);
    assert_int_equal(numbers->count, 3);
    assert_true(qy_gguf_number_at(numbers, 0) == -1.0);
    assert_true(qy_gguf_number_at(numbers, 2) == 7.0);
    assert_true(isnan(qy_gguf_number_at(numbers, 3)));
    assert_true(isnan(qy_gguf_number_at(numbers, UINT64_MAX)));
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.reals"), 1) == -2.0);
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.bools"), 2) == 1.0);
    assert_true(isnan(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.texts"), 0)));
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.i8"), 0) == -5.0);
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.i16"), 0) == -300.0);
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.i32"), 0) == -70000.0);
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.i64"), 0) == -5000000000.0);
    assert_true(qy_gguf_number_at(qy_gguf_find_value(gguf, "v.f64"), 0) == 0.1);
    qy_gguf_close(gguf);
    free(bytes);
}

static void gguf_texts_of_an_array_come_in_order(void **state)
{
    size_t n;
    uint8_t *bytes = sample_file(3, 32, &n);
    struct qy_gguf *gguf = open_bytes(bytes, n);
    const struct qy_gguf_value *texts = qy_gguf_find_value(gguf, "v.texts");
    size_t cursor = 0;
    struct qy_text text;
    (void)state;

    assert_int_equal(texts->count, 3);
    assert_int_equal(qy_gguf_next_text(texts, &cursor, &text), 0);
    assert_int_equal(text.bytes, 3);
    assert_int_equal(qy_gguf_next_text(texts, &cursor, &text), 0);
    assert_int_equal(text.bytes, 0);
    assert_int_equal(qy_gguf_next_text(texts, &cursor, &text), 0);
    assert_memory_equal(text.data, "a\0b", 3);
    assert_int_equal(qy_gguf_next_text(texts, &cursor, &text), -1);
    cursor = 0;
    assert_int_equal(qy_gguf_next_text(qy_gguf_find_value(gguf, "v.nothing"), &cursor, &text), -1);
    assert_int_equal(qy_gguf_next_text(qy_gguf_find_value(gguf, "v.numbers"), &cursor, &text), -1);
    qy_gguf_close(gguf);
    free(bytes);
}

static void gguf_values_are_found_by_every_key(void **state)
{
    size_t n;
    uint8_t *bytes = tiny_build(tiny_spec_at(0), &n);
    struct qy_gguf *gguf = open_bytes(bytes, n);
    (void)state;

    for (size_t i = 0; i < qy_gguf_n_values(gguf); i++) {
        const struct qy_gguf_value *value = qy_gguf_value_at(gguf, i);
        char key[128];
        (void)snprintf(key, sizeof(key), "%.*s", (int)value->key.bytes, value->key.data);
        assert_ptr_equal(qy_gguf_find_value(gguf, key), value);
    }
    assert_true(qy_gguf_n_values(gguf) > 20);
    assert_null(qy_gguf_value_at(gguf, qy_gguf_n_values(gguf)));
    for (size_t i = 0; i < qy_gguf_n_tensors(gguf); i++) {
        const struct qy_gguf_tensor *tensor = qy_gguf_tensor_at(gguf, i);
        char name[80];
        (void)snprintf(name, sizeof(name), "%.*s", (int)tensor->name.bytes, tensor->name.data);
        assert_ptr_equal(qy_gguf_find_tensor(gguf, name), tensor);
    }
    qy_gguf_close(gguf);
    free(bytes);
}

static void gguf_with_nothing_in_it_opens(void **state)
{
    struct gguf_writer w;
    size_t n;
    (void)state;

    gguf_writer_init(&w, 3, 32);
    uint8_t *bytes = gguf_writer_finish(&w, &n);
    struct qy_gguf *gguf = open_bytes(bytes, 24); /* without even the padding */
    assert_int_equal(qy_gguf_n_values(gguf), 0);
    assert_int_equal(qy_gguf_n_tensors(gguf), 0);
    assert_null(qy_gguf_find_value(gguf, "a"));
    assert_null(qy_gguf_find_tensor(gguf, "a"));
    qy_gguf_close(gguf);
    free(bytes);
}

static uint64_t hash_of(const uint8_t *bytes, size_t n)
{
    struct qy_gguf *gguf = open_bytes(bytes, n);
    const uint64_t hash = qy_gguf_hash(gguf);

    qy_gguf_close(gguf);
    return hash;
}

static void gguf_hash_changes_with_metadata_and_weights(void **state)
{
    size_t n;
    uint8_t *bytes = sample_file(3, 32, &n);
    const uint64_t hash = hash_of(bytes, n);
    (void)state;

    assert_true(hash_of(bytes, n) == hash);
    bytes[n - 1] ^= 1;
    assert_true(hash_of(bytes, n) != hash);
    bytes[n - 1] ^= 1;
    bytes[24 + 8 + 4 + 4] ^= 1; /* the value of v.u8 */
    assert_true(hash_of(bytes, n) != hash);
    free(bytes);
}

static void gguf_file_opens_like_its_bytes(void **state)
{
    const struct qy_allocator mem = heap();
    char path[] = "/tmp/quarry_gguf_XXXXXX";
    size_t n;
    uint8_t *bytes = sample_file(3, 32, &n);
    const int fd = mkstemp(path);
    struct qy_gguf *gguf = NULL;
    struct qy_error err = {0};
    (void)state;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    assert_int_equal(close(fd), 0);
    const enum qy_status st = qy_gguf_open(&mem, path, &gguf, &err);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(st, QY_OK);
    check_sample(gguf, 32);
    assert_true(qy_gguf_hash(gguf) == hash_of(bytes, n));
    qy_gguf_close(gguf);
    free(bytes);
}

static void gguf_open_without_a_readable_file_says_so(void **state)
{
    const struct qy_allocator mem = heap();
    struct qy_gguf *gguf = NULL;
    struct qy_error err = {0};
    (void)state;

    assert_int_equal(qy_gguf_open(&mem, "/nonexistent/m.gguf", &gguf, &err), QY_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/m.gguf"));
    assert_int_equal(qy_gguf_open(&mem, "/", &gguf, &err), QY_ERR_INVALID);
    assert_int_equal(qy_gguf_open(&mem, "/dev/null", &gguf, &err), QY_ERR_INVALID);
    assert_null(gguf);
    qy_gguf_close(NULL);
}

static void gguf_open_with_failing_memory_leaks_nothing(void **state)
{
    size_t n;
    uint8_t *bytes = sample_file(3, 32, &n);
    long failures = 0;
    (void)state;

    for (;; failures++) {
        struct fail_alloc f = {.fail_at = failures};
        const struct qy_allocator mem = fail_alloc_make(&f);
        struct qy_gguf *gguf = NULL;
        struct qy_error err = {0};
        const enum qy_status st = qy_gguf_open_memory(&mem, bytes, n, "test.gguf", &gguf, &err);
        if (st == QY_OK) {
            qy_gguf_close(gguf);
            assert_int_equal(f.live, 0);
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
        assert_null(gguf);
        assert_int_equal(f.live, 0);
    }
    assert_true(failures >= 5);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_of_both_versions_and_alignments_reads_the_same),
        cmocka_unit_test(gguf_values_convert_within_their_kind),
        cmocka_unit_test(gguf_numbers_of_arrays_and_scalars_come_as_double),
        cmocka_unit_test(gguf_texts_of_an_array_come_in_order),
        cmocka_unit_test(gguf_values_are_found_by_every_key),
        cmocka_unit_test(gguf_with_nothing_in_it_opens),
        cmocka_unit_test(gguf_hash_changes_with_metadata_and_weights),
        cmocka_unit_test(gguf_file_opens_like_its_bytes),
        cmocka_unit_test(gguf_open_without_a_readable_file_says_so),
        cmocka_unit_test(gguf_open_with_failing_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
