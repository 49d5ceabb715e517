/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block formats against tests/data/quant_blocks.bin, made by an independent implementation
 * (tests/support/make_quant_blocks.py), and halves against their definition.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/host/host.h"
#include "tests/support/test.h"

struct record {
    uint32_t type, n_elems, n_bytes;
    uint8_t *blocks;
    float *values;
};

static struct record records[QYI_N_TYPES];

static int read_records(void **state)
{
    (void)state;
    FILE *file = fopen("tests/data/quant_blocks.bin", "rb");
    assert_non_null(file);
    for (size_t i = 0; i < QYI_N_TYPES; i++) {
        struct record *r = &records[i];
        assert_int_equal(fread(r, 4, 3, file), 3);
        assert_in_range(r->n_bytes, 1, 1 << 16);
        r->blocks = malloc(r->n_bytes);
        r->values = malloc(r->n_elems * sizeof(float));
        assert_true(r->blocks && r->values);
        assert_int_equal(fread(r->blocks, 1, r->n_bytes, file), r->n_bytes);
        assert_int_equal(fread(r->values, sizeof(float), r->n_elems, file), r->n_elems);
    }
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
    return 0;
}

static int free_records(void **state)
{
    (void)state;
    for (size_t i = 0; i < QYI_N_TYPES; i++) {
        free(records[i].blocks);
        free(records[i].values);
    }
    return 0;
}

static void dequant_every_type_has_a_record(void **state)
{
    (void)state;
    for (size_t i = 0; i < QYI_N_TYPES; i++) {
        const struct qy_tensor_type_info *info = qy_tensor_type_at(i);
        int found = 0;
        for (size_t j = 0; j < QYI_N_TYPES; j++) {
            found += records[j].type == (uint32_t)info->type;
        }
        assert_int_equal(found, 1);
        assert_ptr_equal(qy_tensor_type_find((uint32_t)info->type), info);
    }
    assert_null(qy_tensor_type_at(QYI_N_TYPES));
    assert_null(qy_tensor_type_find(9)); /* Q8_1: never in files */
    assert_null(qy_tensor_type_find(31));
}

/* Plain C does the operations that numpy does, in the same order: every bit is equal. */
static void dequant_plain_equals_numpy(void **state)
{
    (void)state;
    for (size_t i = 0; i < QYI_N_TYPES; i++) {
        const struct record *r = &records[i];
        const struct qy_tensor_type_info *info = qy_tensor_type_find(r->type);
        assert_int_equal(r->n_bytes, r->n_elems / info->block_elems * info->block_bytes);
        float *out = malloc(r->n_elems * sizeof *out);
        qy_tensor_dequantize(info->type, r->blocks, r->n_elems, out);
        for (uint32_t k = 0; k < r->n_elems; k++) {
            if (out[k] != r->values[k]) {
                fail_msg("%s element %u: %.9g, not %.9g", info->name, k, (double)out[k],
                         (double)r->values[k]);
            }
        }
        free(out);
    }
}

static void dequant_unaligned_blocks_give_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < QYI_N_TYPES; i++) {
        const struct record *r = &records[i];
        uint8_t *moved = malloc(r->n_bytes + 1);
        float *out = malloc(r->n_elems * sizeof *out);
        memcpy(moved + 1, r->blocks, r->n_bytes);
        qy_tensor_dequantize((enum qy_tensor_type)r->type, moved + 1, r->n_elems, out);
        assert_memory_equal(out, r->values, r->n_elems * sizeof *out);
        free(out);
        free(moved);
    }
}

/* Vector kernels fuse scale and offset: d * q + m is rounded once, not twice. The two results are
 * apart by half a unit in the last place of d * q and one of the result. |d * q| is at most the
 * largest value of the block plus |m|, so four times the block's largest value bounds both. */
static void check_level(enum qy_cpu_level level)
{
    const struct qyi_kernels *kernels = qyi_kernels_for(level);
    for (size_t i = 0; i < QYI_N_TYPES; i++) {
        const struct record *r = &records[i];
        const struct qy_tensor_type_info *info = qy_tensor_type_find(r->type);
        const qyi_dequantize_fn dequantize = kernels->dequantize[info - qy_tensor_type_at(0)];
        if (!dequantize) {
            assert_int_equal(info->type, QY_TYPE_F32);
            continue;
        }
        /* Exactly one block's bytes behind the last one read, for the sanitizer. */
        float *out = malloc(r->n_elems * sizeof *out);
        dequantize(r->blocks, r->n_elems, out);
        for (uint32_t k = 0; k < r->n_elems; k++) {
            float largest = 0;
            for (uint32_t j = k / 32 * 32; j < k / 32 * 32 + 32; j++) {
                largest = fmaxf(largest, fabsf(r->values[j]));
            }
            if (!(fabsf(out[k] - r->values[k]) <= 4 * largest * 0x1p-24F)) {
                fail_msg("%s, %s element %u: %.9g, not %.9g", qy_cpu_level_name(level), info->name,
                         k, (double)out[k], (double)r->values[k]);
            }
        }
        free(out);
    }
}

static void dequant_vector_kernels_equal_plain_to_a_rounding(void **state)
{
    (void)state;
    struct qy_cpu cpu;
    qy_cpu_detect(&cpu);
    for (int level = QY_CPU_AVX2; level <= (int)cpu.best; level++) {
        check_level((enum qy_cpu_level)level);
    }
}

static void dequant_vector_kernels_take_any_length(void **state)
{
    (void)state;
    struct qy_cpu cpu;
    qy_cpu_detect(&cpu);
    uint16_t halves[37];
    for (size_t i = 0; i < 37; i++) {
        halves[i] = (uint16_t)(0x3c00 + i * 7);
    }
    for (int level = QY_CPU_AVX2; level <= (int)cpu.best; level++) {
        for (size_t place = 1; place <= 2; place++) { /* F16 and BF16: one element per block */
            for (size_t n = 1; n <= 37; n++) {
                float got[38];
                float expected[38];
                got[n] = expected[n] = -7;
                qyi_kernels_for((enum qy_cpu_level)level)->dequantize[place](halves, n, got);
                qy_tensor_dequantize(qy_tensor_type_at(place)->type, halves, n, expected);
                assert_memory_equal(got, expected, (n + 1) * sizeof *got);
            }
        }
    }
}

static void half_every_value_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float value = qy_f32_from_f16((uint16_t)h);
        const int is_nan = (h & 0x7fff) > 0x7c00;
        assert_int_equal(isnan(value) != 0, is_nan);
        if (is_nan) {
            assert_true((qy_f16_from_f32(value) & 0x7fff) > 0x7c00);
        } else {
            assert_int_equal(qy_f16_from_f32(value), h);
            const int exponent = (int)(h >> 10 & 31);
            const double size =
                exponent ? ldexp(1024 + (h & 0x3ff), exponent - 25) : ldexp(h & 0x3ff, -24);
            if (exponent != 31) {
                assert_true((double)value == (h & 0x8000 ? -size : size));
            }
        }
    }
}

static void half_midpoints_round_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        const float low = qy_f32_from_f16((uint16_t)h);
        const float high = qy_f32_from_f16((uint16_t)(h + 1));
        const float middle = (low + high) / 2;
        assert_int_equal(qy_f16_from_f32(middle), h + (h & 1));
        assert_int_equal(qy_f16_from_f32(nextafterf(middle, high)), h + 1);
        assert_int_equal(qy_f16_from_f32(nextafterf(middle, low)), h);
        assert_int_equal(qy_f16_from_f32(-middle), 0x8000 | (h + (h & 1)));
    }
    assert_int_equal(qy_f16_from_f32(65519.996F), 0x7bff);
    assert_int_equal(qy_f16_from_f32(65520.0F), 0x7c00);
    assert_int_equal(qy_f16_from_f32(INFINITY), 0x7c00);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequant_every_type_has_a_record),
        cmocka_unit_test(dequant_plain_equals_numpy),
        cmocka_unit_test(dequant_unaligned_blocks_give_the_same),
        cmocka_unit_test(dequant_vector_kernels_equal_plain_to_a_rounding),
        cmocka_unit_test(dequant_vector_kernels_take_any_length),
        cmocka_unit_test(half_every_value_survives_a_round_trip),
        cmocka_unit_test(half_midpoints_round_to_even),
    };
    return cmocka_run_group_tests(tests, read_records, free_records);
}
