/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a device by its spec, and its memory. Kernels are in gpu/host/. Only the host backend
 * is built; a spec of another backend is refused by name.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/host/dense.h"
#include "gpu/host/host.h"

static enum qy_status check_params(const struct qy_runtime *rt,
                                   const struct qy_device_params *params, struct qy_error *err)
{
    if (!rt || !params || !params->spec) {
        return qy_error_set(err, QY_ERR_INVALID, "device: no runtime, parameters or spec given");
    }
    if (strcmp(params->spec, "host") != 0) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "device '%s': no such backend in this build; have: host; "
                            "use device 'host'",
                            params->spec);
    }
    if (params->max_m == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "device 'host': max_m '0'; at least 1 row of activations");
    }
    if (params->compute != QY_COMPUTE_F32 && params->compute != QY_COMPUTE_BF16) {
        return qy_error_set(err, QY_ERR_INVALID, "device 'host': compute '%d'; f32 or bf16",
                            (int)params->compute);
    }
    if (rt->cpu.use > rt->cpu.best) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "device 'host': kernel set '%s' is more than this machine has ('%s'); "
                            "use runtime.cpu 'auto'",
                            qy_cpu_level_name(rt->cpu.use), qy_cpu_level_name(rt->cpu.best));
    }
    return QY_OK;
}

enum qy_status qy_device_open(const struct qy_runtime *rt, const struct qy_device_params *params,
                              struct qy_device **dev, struct qy_error *err)
{
    enum qy_status st = check_params(rt, params, err);
    if (st != QY_OK) {
        return st;
    }
    struct qy_device *d = qy_alloc_zero(&rt->mem, sizeof *d);
    if (!d) {
        return qy_error_set(err, QY_ERR_NOMEM, "device 'host': no memory for its state");
    }
    d->rt = rt;
    d->kernels = qyi_kernels_for(rt->cpu.use);
    d->level = d->kernels->level;
    d->compute = params->compute;
    d->deterministic = params->deterministic;
    d->max_m = params->max_m;
    st = qyi_dense_open(d, err);
    if (st != QY_OK) {
        qy_free(&rt->mem, d);
        return st;
    }
    d->caps.kernels = qy_cpu_level_name(d->level);
    d->caps.unified = 1;
    d->caps.alignment = 64;
    snprintf(d->caps.name, sizeof d->caps.name, "host (%s)", d->caps.kernels);
    *dev = d;
    return QY_OK;
}

void qy_device_close(struct qy_device *dev)
{
    if (dev) {
        qyi_dense_close(dev);
        qy_free(&dev->rt->mem, dev->scratch);
        qy_free(&dev->rt->mem, dev);
    }
}

const struct qy_device_caps *qy_device_caps(const struct qy_device *dev)
{
    return &dev->caps;
}

enum qy_status qy_device_alloc(struct qy_device *dev, size_t bytes, void **ptr,
                               struct qy_error *err)
{
    void *p = qy_alloc_zero(&dev->rt->mem, bytes ? bytes : 1);
    if (!p) {
        return qy_error_set(err, QY_ERR_NOMEM, "device 'host': no memory for %zu bytes", bytes);
    }
    *ptr = p;
    return QY_OK;
}

void qy_device_free(struct qy_device *dev, void *ptr)
{
    if (dev) {
        qy_free(&dev->rt->mem, ptr);
    }
}

enum qy_status qyi_scratch_reserve(struct qy_device *dev, size_t bytes)
{
    if (bytes <= dev->scratch_bytes) {
        return QY_OK;
    }
    void *p = qy_alloc_zero(&dev->rt->mem, bytes);
    if (!p) {
        return QY_ERR_NOMEM;
    }
    qy_free(&dev->rt->mem, dev->scratch);
    dev->scratch = p;
    dev->scratch_bytes = bytes;
    return QY_OK;
}
