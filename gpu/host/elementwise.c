/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element-wise kernels: argument checks and the split over the team. Rows are independent, so
 * results do not depend on the split. Few rows stay on the caller: waking the team costs more than
 * a few thousand elements.
 */
#include "gpu/host/host.h"

enum { SPLIT_ELEMS = 16384 };

/* Runs fn on [0, m) of rows of width elements, on the team when that is worth it. */
static void for_rows(const struct qy_device *dev, uint32_t m, size_t width, qy_team_fn fn,
                     void *arg)
{
    if (m > 1 && m * width >= SPLIT_ELEMS) {
        qy_team_run(dev->rt->team, fn, arg);
    } else {
        fn(arg, 0, 1);
    }
}

struct norm_job {
    const struct qyi_kernels *kernels;
    float *x;
    const float *y, *weight;
    float *out;
    uint32_t m, dim;
    float eps;
};

static void norm_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct norm_job *job = arg;
    size_t begin;
    size_t end;
    qy_team_range(job->m, thread, n_threads, &begin, &end);
    const size_t at = begin * job->dim;
    job->kernels->norm(job->x + at, job->y ? job->y + at : NULL, (uint32_t)(end - begin), job->dim,
                       job->weight, job->eps, job->out + at);
}

enum qy_status qy_device_norm(struct qy_device *dev, const float *x, uint32_t m, uint32_t dim,
                              const float *weight, float eps, float *out)
{
    if (dim == 0) {
        return QY_ERR_INVALID;
    }
    /* The kernel writes x only when there is something to add. */
    struct norm_job job = {dev->kernels, (float *)x, NULL, weight, out, m, dim, eps};
    for_rows(dev, m, dim, norm_share, &job);
    return QY_OK;
}

enum qy_status qy_device_add_norm(struct qy_device *dev, float *x, const float *y, uint32_t m,
                                  uint32_t dim, const float *weight, float eps, float *out)
{
    if (dim == 0 || !y) {
        return QY_ERR_INVALID;
    }
    struct norm_job job = {dev->kernels, x, y, weight, out, m, dim, eps};
    for_rows(dev, m, dim, norm_share, &job);
    return QY_OK;
}

struct heads_job {
    const struct qyi_kernels *kernels;
    const struct qy_rope *rope;
    const float *table, *weight;
    float *x;
    size_t stride;
    uint32_t m, heads, d;
    float eps;
};

static void head_norm_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct heads_job *job = arg;
    size_t i;
    size_t end;
    for (qy_team_range(job->m, thread, n_threads, &i, &end); i < end; i++) {
        float *row = job->x + i * job->stride;
        job->kernels->norm(row, NULL, job->heads, job->d, job->weight, job->eps, row);
    }
}

enum qy_status qy_device_head_norm(struct qy_device *dev, float *x, uint32_t m, size_t stride,
                                   uint32_t heads, uint32_t d, const float *weight, float eps)
{
    if (d == 0 || (size_t)heads * d > stride) {
        return QY_ERR_INVALID;
    }
    struct heads_job job = {.kernels = dev->kernels,
                            .weight = weight,
                            .x = x,
                            .stride = stride,
                            .m = m,
                            .heads = heads,
                            .d = d,
                            .eps = eps};
    for_rows(dev, m, (size_t)heads * d, head_norm_share, &job);
    return QY_OK;
}

static void rope_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct heads_job *job = arg;
    const uint32_t dim = job->rope->dim;
    size_t i;
    size_t end;
    for (qy_team_range(job->m, thread, n_threads, &i, &end); i < end; i++) {
        job->kernels->rope(job->rope->pairs, job->table + i * dim, dim, job->x + i * job->stride,
                           job->heads, job->d);
    }
}

enum qy_status qy_device_rope(struct qy_device *dev, const struct qy_rope *rope, const float *table,
                              float *x, uint32_t m, size_t stride, uint32_t heads, uint32_t d)
{
    if (rope->dim % 2 != 0 || rope->dim > d || (size_t)heads * d > stride) {
        return QY_ERR_INVALID;
    }
    if (rope->dim == 0) {
        return QY_OK;
    }
    struct heads_job job = {.kernels = dev->kernels,
                            .rope = rope,
                            .table = table,
                            .x = x,
                            .stride = stride,
                            .m = m,
                            .heads = heads,
                            .d = d};
    for_rows(dev, m, (size_t)heads * d, rope_share, &job);
    return QY_OK;
}

enum qy_status qy_device_bias(struct qy_device *dev, float *y, uint32_t m, uint32_t n,
                              const float *bias)
{
    (void)dev;
    for (uint32_t i = 0; i < m; i++, y += n) {
        for (uint32_t k = 0; k < n; k++) {
            y[k] += bias[k];
        }
    }
    return QY_OK;
}

struct swiglu_job {
    const struct qyi_kernels *kernels;
    const float *gate_up;
    float *out;
    uint32_t m, n;
};

static void swiglu_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct swiglu_job *job = arg;
    const size_t n = job->n;
    size_t i;
    size_t end;
    for (qy_team_range(job->m, thread, n_threads, &i, &end); i < end; i++) {
        const float *gate = job->gate_up + i * 2 * n;
        job->kernels->swiglu(gate, gate + n, n, job->out + i * n);
    }
}

enum qy_status qy_device_swiglu(struct qy_device *dev, const float *gate_up, uint32_t m, uint32_t n,
                                float *out)
{
    struct swiglu_job job = {dev->kernels, gate_up, out, m, n};
    for_rows(dev, m, n, swiglu_share, &job);
    return QY_OK;
}
