/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense products: what weight.c asks of a library (oneDNN, OpenBLAS) and of our own streaming
 * kernels. Private to gpu/.
 */
#ifndef QY_GPU_HOST_DENSE_H
#define QY_GPU_HOST_DENSE_H

#include "gpu/host/host.h"

struct qy_weight {
    const struct qy_device *dev;
    struct qy_matrix *parts; /* copies; names are not kept */
    size_t n_parts;
    uint32_t n_out, n_in;
    unsigned use;
    void *packed; /* of the library; NULL: only the streaming kernels */
    size_t packed_bytes;
};

/* A library that multiplies by a packed copy of the weight. */
struct qyi_dense {
    const char *name;
    uint32_t min_m; /* below it the streaming kernels are faster on this machine */
    /* Packs; sets packed and packed_bytes. [setup] [alloc] */
    enum qy_status (*pack)(struct qy_device *dev, struct qy_weight *weight, struct qy_error *err);
    void (*unpack)(struct qy_device *dev, struct qy_weight *weight);
    enum qy_status (*multiply)(struct qy_device *dev, const struct qy_weight *weight,
                               const float *x, uint32_t m, float *y);
};

/* Sets dev->dense, or refuses a compute type that this CPU or build has not. */
QY_MUST enum qy_status qyi_dense_choose(struct qy_device *dev, struct qy_error *err);
const char *qyi_dense_name(const struct qy_device *dev);

/* Our kernels on the file's blocks; any m. */
void qyi_stream_multiply(struct qy_device *dev, const struct qy_weight *weight, const float *x,
                         uint32_t m, float *y);
/* Scratch that qyi_stream_multiply takes from dev->scratch. */
size_t qyi_stream_scratch(const struct qy_device *dev, uint32_t n_in);
/* Rows begin .. end - 1 of the stacked weight as f32 [end - begin][n_in]. [any] [noalloc] */
void qyi_weight_dequantize(const struct qy_device *dev, const struct qy_weight *weight,
                           uint32_t begin, uint32_t end, float *out);

#endif
