/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense products: the weight, our streaming kernels, and what we ask of a library (oneDNN,
 * OpenBLAS). Private to gpu/.
 */
#ifndef QY_GPU_HOST_DENSE_H
#define QY_GPU_HOST_DENSE_H

#include "gpu/host/host.h"

struct qyi_part {
    const uint8_t *data;
    size_t row_bytes;
    uint32_t n_out;
    enum qy_tensor_type type;
    qyi_dequantize_fn dequantize; /* NULL: qy_tensor_dequantize */
};

struct qy_weight {
    struct qyi_part *parts;
    size_t n_parts;
    uint32_t n_out, n_in;
    unsigned use;
    void *packed;       /* of the library; NULL: only the streaming kernels */
    const void *layout; /* of the library: what packed looks like */
    size_t packed_bytes;
};

/* A library that multiplies by a packed copy of the weight. */
struct qyi_dense {
    /* Sets caps.dense, dense_state and dense_min_m. QY_ERR_UNSUPPORTED: not with dev->compute. */
    enum qy_status (*open)(struct qy_device *dev, struct qy_error *err);
    void (*close)(struct qy_device *dev);
    /* Packs; sets packed and packed_bytes. [setup] [alloc] */
    enum qy_status (*pack)(struct qy_device *dev, struct qy_weight *weight, struct qy_error *err);
    void (*unpack)(struct qy_device *dev, struct qy_weight *weight); /* packed may be NULL */
    /* m >= dense_min_m */
    enum qy_status (*multiply)(struct qy_device *dev, const struct qy_weight *weight,
                               const float *x, uint32_t m, float *y);
};

extern const struct qyi_dense qyi_dense_onednn;   /* when the build has oneDNN   */
extern const struct qyi_dense qyi_dense_openblas; /* when the build has OpenBLAS */

/* Opens the library of this build for the device's parameters, or leaves dev->dense NULL: the
 * streaming kernels do all. */
QY_MUST enum qy_status qyi_dense_open(struct qy_device *dev, struct qy_error *err);
void qyi_dense_close(struct qy_device *dev);

/* The output rows of a thread: begin <= row < end, begin at a multiple of unit. */
static inline void qyi_weight_share(const struct qy_weight *weight, uint32_t unit, uint32_t thread,
                                    uint32_t n_threads, size_t *begin, size_t *end)
{
    qy_team_range((weight->n_out + unit - 1) / unit, thread, n_threads, begin, end);
    *begin *= unit;
    *end = *end * unit < weight->n_out ? *end * unit : weight->n_out;
}

/* Our kernels on the file's blocks; any m. [noalloc] */
void qyi_stream_multiply(struct qy_device *dev, const struct qy_weight *weight, const float *x,
                         uint32_t m, float *y);
/* Bytes of dev->scratch that qyi_stream_multiply uses. */
size_t qyi_stream_scratch(const struct qy_device *dev, uint32_t n_in);
/* Rows begin .. end - 1 of the stacked weight as f32 [end - begin][n_in]. [any] [noalloc] */
void qyi_weight_dequantize(const struct qy_weight *weight, uint32_t begin, uint32_t end,
                           float *out);

#endif
