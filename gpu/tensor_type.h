/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor types of GGUF, and conversion of single numbers. A part of gpu.h, which includes it. */
#ifndef QY_GPU_TENSOR_TYPE_H
#define QY_GPU_TENSOR_TYPE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Values are those of the file format. */
enum qy_tensor_type {
    QY_TYPE_F32 = 0,
    QY_TYPE_F16 = 1,
    QY_TYPE_Q4_0 = 2,
    QY_TYPE_Q4_1 = 3,
    QY_TYPE_Q5_0 = 6,
    QY_TYPE_Q5_1 = 7,
    QY_TYPE_Q8_0 = 8,
    QY_TYPE_Q4_K = 12,
    QY_TYPE_Q5_K = 13,
    QY_TYPE_Q6_K = 14,
    QY_TYPE_BF16 = 30
};

struct qy_tensor_type_info {
    enum qy_tensor_type type;
    const char *name;     /* "Q4_1"                              */
    uint32_t block_elems; /* elements of one block: 1, 32 or 256 */
    uint32_t block_bytes;
};

/* NULL when the number is no supported type. [any] [noalloc] */
const struct qy_tensor_type_info *qy_tensor_type_find(uint32_t type);
/* Place i of the supported types, NULL past the end (for messages). [any] */
const struct qy_tensor_type_info *qy_tensor_type_at(size_t i);
/* n_elems (a multiple of block_elems) values of blocks into out [n_elems] f32. Any alignment of
 * blocks. Plain C: the reference of every faster path. [any] [noalloc] */
void qy_tensor_dequantize(enum qy_tensor_type type, const void *blocks, size_t n_elems, float *out);

/* IEEE half and bfloat16, round to nearest even. [any] [noalloc] */
uint16_t qy_f16_from_f32(float value);
float qy_f32_from_f16(uint16_t value);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
