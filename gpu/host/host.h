/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host device: its state and its table of kernels. Private to gpu/.
 *
 * A kernel set (plain, AVX2, AVX-512) is one `static const` table. The device picks a table at
 * open by rt->cpu.use; nothing is chosen later. Kernels of rows have a table of their own in
 * gpu/host/rows.h.
 *
 * Kernels take whole ranges, assert nothing and check nothing: the public functions check their
 * arguments, split the work over the team and then call a kernel.
 */
#ifndef QY_GPU_HOST_HOST_H
#define QY_GPU_HOST_HOST_H

#include <stdatomic.h>

#include "gpu/gpu.h"

/* How many tensor types there are: the places of qy_tensor_type_at. */
enum { QYI_N_TYPES = 11 };

/* n_elems (whole blocks) of blocks into out. As qy_tensor_dequantize, to one rounding. */
typedef void (*qyi_dequantize_fn)(const void *blocks, size_t n_elems, float *out);

/* y[i * ldy + r] = dot(x + i * n_in, w + r * n_in) for r < rows, i < m. The sum over n_in is taken
 * in the same order whatever rows, m and r are: bits depend on the two vectors alone. */
typedef void (*qyi_multiply_fn)(const float *w, uint32_t rows, uint32_t n_in, const float *x,
                                uint32_t m, float *y, size_t ldy);

struct qyi_kernels {
    enum qy_cpu_level level;
    const qyi_dequantize_fn *dequantize; /* [QYI_N_TYPES] by place of qy_tensor_type_at. NULL, of
                                            the array or an entry: qy_tensor_dequantize */
    qyi_multiply_fn multiply;
    /* Round to nearest even; NaN stays NaN. */
    void (*to_bf16)(const float *in, size_t n, uint16_t *out);
    /* y NULL: norm of x; else x += y first. All rows of dim elements. */
    void (*norm)(float *x, const float *y, uint32_t m, uint32_t dim, const float *weight, float eps,
                 float *out);
    void (*swiglu)(const float *gate, const float *up, size_t n, float *out);
    /* cos_sin [dim] of one row; x: heads of d elements. */
    void (*rope)(enum qy_rope_pairs pairs, const float *cos_sin, uint32_t dim, float *x,
                 uint32_t heads, uint32_t d);
};

extern const struct qyi_kernels qyi_kernels_plain;
#if defined(__x86_64__)
extern const struct qyi_kernels qyi_kernels_avx2;
extern const struct qyi_kernels qyi_kernels_avx512;
#endif

/* The table of a level. A level that this build has not gives the plain one. */
const struct qyi_kernels *qyi_kernels_for(enum qy_cpu_level level);

struct qyi_dense; /* gpu/host/dense.h */

struct qy_device {
    const struct qy_runtime *rt;
    struct qy_device_caps caps;
    enum qy_cpu_level level; /* kernel set in use; row kernels choose by it too */
    enum qy_compute compute;
    int deterministic;
    uint32_t max_m;
    const struct qyi_kernels *kernels;
    const struct qyi_dense *dense; /* library of large products, or NULL */
    void *dense_state;             /* of the library */
    char dense_name[32];           /* behind caps.dense */
    uint32_t dense_min_m;          /* from this m on the library is faster than streaming */
    uint64_t packed_left;          /* bytes that packed copies may still take */
    void *scratch;                 /* of dense products; grown when a weight opens */
    size_t scratch_bytes;
    struct qy_device_memory memory;
    struct qy_link link;
    _Atomic uint64_t link_free[2]; /* by enum qy_direction: when the link is next free; shared by
                                      the engines of all streams (copy_engine.c) */
};

/* Makes dev->scratch at least bytes large; its contents are lost. [setup] [alloc] */
QY_MUST enum qy_status qyi_scratch_reserve(struct qy_device *dev, size_t bytes);

#endif
