/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large products by OpenBLAS, where oneDNN is not installed: the weight is kept as f32 rows and
 * each thread of the team multiplies by a run of them.
 *
 *   y [m][begin .. end) = x [m][n_in] * rows(begin .. end)^T
 *
 * OpenBLAS is asked for one thread, for the whole process: it knows no other scope. A program that
 * uses OpenBLAS itself can set its number again after the device is open.
 */
#include <cblas.h>
#include <stdio.h>
#include <string.h>

#include "gpu/host/dense.h"

/* Measured on Sapphire Rapids: its products are slower than the streaming kernels with AVX-512 and
 * as fast with AVX2 (where they would cost a copy of the weights), so it is for other processors. */
enum {
    MIN_M = 8,
    ROW_UNIT = 16 /* runs of rows begin at multiples, as the library's kernels like it */
};

static enum qy_status openblas_open(struct qy_device *dev, struct qy_error *err)
{
    if (dev->compute == QY_COMPUTE_BF16) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "device 'host': compute 'bf16' in a build with OpenBLAS; products are "
                            "f32 then; use compute 'f32', or build with oneDNN");
    }
    openblas_set_num_threads(1);
    /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ...": its first two words. */
    const char *config = openblas_get_config();
    const size_t name = strcspn(config, " ");
    const size_t words = name + (config[name] ? 1 + strcspn(config + name + 1, " ") : 0);
    snprintf(dev->dense_name, sizeof dev->dense_name, "%.*s", (int)words, config);
    dev->caps.dense = dev->dense_name;
    dev->dense_min_m = dev->level == QY_CPU_PLAIN ? MIN_M : UINT32_MAX;
    return QY_OK;
}

static void openblas_close(struct qy_device *dev)
{
    (void)dev;
}

static void pack_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct qy_weight *weight = arg;
    size_t begin;
    size_t end;
    qyi_weight_share(weight, ROW_UNIT, thread, n_threads, &begin, &end);
    if (begin < end) {
        qyi_weight_dequantize(weight, (uint32_t)begin, (uint32_t)end,
                              (float *)weight->packed + begin * weight->n_in);
    }
}

static enum qy_status openblas_pack(struct qy_device *dev, struct qy_weight *weight,
                                    struct qy_error *err)
{
    const size_t bytes = (size_t)weight->n_out * weight->n_in * sizeof(float);
    /* Not cleared: the threads that fill it touch it first. */
    weight->packed = dev->rt->mem.alloc(dev->rt->mem.ctx, bytes, 64);
    if (!weight->packed) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "weight: no memory for %zu dequantized bytes of %u x %u", bytes,
                            weight->n_out, weight->n_in);
    }
    weight->packed_bytes = bytes;
    qy_team_run(dev->rt->team, pack_share, weight);
    return QY_OK;
}

static void openblas_unpack(struct qy_device *dev, struct qy_weight *weight)
{
    qy_free(&dev->rt->mem, weight->packed);
    weight->packed = NULL;
    weight->packed_bytes = 0;
}

struct job {
    const struct qy_weight *weight;
    const float *x;
    float *y;
    uint32_t m;
};

static void multiply_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct job *job = arg;
    const struct qy_weight *weight = job->weight;
    const blasint k = (blasint)weight->n_in;
    size_t begin;
    size_t end;
    qyi_weight_share(weight, ROW_UNIT, thread, n_threads, &begin, &end);
    if (begin < end) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)job->m,
                    (blasint)(end - begin), k, 1, job->x, k,
                    (const float *)weight->packed + begin * weight->n_in, k, 0, job->y + begin,
                    (blasint)weight->n_out);
    }
}

static enum qy_status openblas_multiply(struct qy_device *dev, const struct qy_weight *weight,
                                        const float *x, uint32_t m, float *y)
{
    struct job job = {.weight = weight, .x = x, .y = y, .m = m};
    qy_team_run(dev->rt->team, multiply_share, &job);
    return QY_OK;
}

const struct qyi_dense qyi_dense_openblas = {
    .open = openblas_open,
    .close = openblas_close,
    .pack = openblas_pack,
    .unpack = openblas_unpack,
    .multiply = openblas_multiply,
};
