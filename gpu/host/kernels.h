/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of each set, by name, so that one set may use those of another. Private to gpu/. */
#ifndef QY_GPU_HOST_KERNELS_H
#define QY_GPU_HOST_KERNELS_H

#include "gpu/host/host.h"

void qyi_multiply_plain(const float *w, uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                        float *y, size_t ldy);
void qyi_multiply_avx2(const float *w, uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                       float *y, size_t ldy);
void qyi_multiply_avx512(const float *w, uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                         float *y, size_t ldy);

void qyi_to_bf16_plain(const float *in, size_t n, uint16_t *out);
void qyi_to_bf16_avx512(const float *in, size_t n, uint16_t *out);

void qyi_norm_plain(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight,
                    float eps, float *out);
void qyi_norm_avx2(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight,
                   float eps, float *out);
void qyi_norm_avx512(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight,
                     float eps, float *out);

void qyi_swiglu_plain(const float *gate, const float *up, size_t n, float *out);
void qyi_swiglu_avx2(const float *gate, const float *up, size_t n, float *out);
void qyi_swiglu_avx512(const float *gate, const float *up, size_t n, float *out);

void qyi_rope_plain(enum qy_rope_pairs pairs, const float *cos_sin, uint32_t dim, float *x,
                    uint32_t heads, uint32_t d);
void qyi_rope_avx2(enum qy_rope_pairs pairs, const float *cos_sin, uint32_t dim, float *x,
                   uint32_t heads, uint32_t d);

/* Places as in qy_tensor_type_at; NULL: qy_tensor_dequantize. */
extern const qyi_dequantize_fn qyi_dequantize_avx2[QYI_N_TYPES];
extern const qyi_dequantize_fn qyi_dequantize_avx512[QYI_N_TYPES];

/* Unrolls the loop that follows: its count is a constant after inlining, and its arrays must
 * become registers. */
#if defined(__clang__)
#define QYI_UNROLL _Pragma("unroll")
#else
#define QYI_UNROLL _Pragma("GCC unroll 16")
#endif

#endif
