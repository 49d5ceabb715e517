/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a device by its spec, and its memory. Kernels are in gpu/host/. Only the host backend
 * is built; a spec of another backend is refused by name.
 *
 * "host-discrete:<bytes>" is the host with memory of its own in name: the bytes are what the cache
 * may take; "host-discrete:auto" leaves that to the cache. Weights and activations come on top, so that
 * they limit nothing here.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/host/dense.h"
#include "gpu/host/host.h"

static const char discrete[] = "host-discrete";

/* What stands before memory that was handed out. */
struct header {
    _Alignas(64) size_t bytes;
};

/* limit: the bytes of "host-discrete:<bytes>", else 0. */
static enum qy_status parse_spec(const char *spec, int *unified, uint64_t *limit,
                                 struct qy_error *err)
{
    const size_t length = sizeof discrete - 1;
    *limit = 0;
    *unified = strcmp(spec, "host") == 0;
    if (*unified || strcmp(spec, "host-discrete:auto") == 0) {
        return QY_OK;
    }
    if (strncmp(spec, discrete, length) != 0 || (spec[length] != ':' && spec[length] != '\0')) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "device '%s': no such backend in this build; have: host, "
                            "host-discrete:<bytes>; use device 'host'",
                            spec);
    }
    if (spec[length] == '\0' || qy_parse_size(spec + length + 1, limit) != 0 || *limit == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "device '%s': no size; host-discrete:<bytes> is accepted, with bytes "
                            "of at least 1 as in 512M or 2G (K, M, G, T of 1024), or auto for what "
                            "the cache needs; say how much device memory it may take",
                            spec);
    }
    return QY_OK;
}

static enum qy_status check_link(const struct qy_link *link, struct qy_error *err)
{
    if (!(link->gbps >= 0 && link->gbps <= 1e6) || link->copy_ns > UINT64_C(1000000000)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "device: link of '%g' GB/s and '%llu' ns a copy; 0 (not limited) to "
                            "1000000 GB/s and up to a second a copy are accepted",
                            link->gbps, (unsigned long long)link->copy_ns);
    }
    return QY_OK;
}

static enum qy_status check_params(const struct qy_runtime *rt,
                                   const struct qy_device_params *params, struct qy_error *err)
{
    if (!rt || !params || !params->spec) {
        return qy_error_set(err, QY_ERR_INVALID, "device: no runtime, parameters or spec given");
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
    uint64_t limit = 0;
    int unified = 1;
    enum qy_status st = check_params(rt, params, err);
    if (st == QY_OK) {
        st = parse_spec(params->spec, &unified, &limit, err);
    }
    if (st == QY_OK) {
        st = check_link(&params->link, err);
    }
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
    d->caps.unified = unified;
    d->caps.deterministic = params->deterministic;
    d->caps.alignment = 64;
    snprintf(d->caps.name, sizeof d->caps.name, "host%s (%s)", unified ? "" : ", discrete",
             d->caps.kernels);
    d->memory.limit = limit;
    d->link = params->link;
    *dev = d;
    return QY_OK;
}

enum qy_status qy_device_set_link(struct qy_device *dev, const struct qy_link *link,
                                  struct qy_error *err)
{
    const enum qy_status st = check_link(link, err);
    if (st == QY_OK) {
        dev->link = *link;
    }
    return st;
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
    struct header *header = NULL;
    if (bytes <= SIZE_MAX - sizeof *header - 1) {
        header = qy_alloc_zero(&dev->rt->mem, sizeof *header + (bytes ? bytes : 1));
    }
    if (!header) {
        return qy_error_set(err, QY_ERR_NOMEM, "device 'host': no memory for %zu bytes", bytes);
    }
    header->bytes = bytes;
    dev->memory.used += bytes;
    if (dev->memory.used > dev->memory.peak) {
        dev->memory.peak = dev->memory.used;
    }
    *ptr = header + 1;
    return QY_OK;
}

void qy_device_free(struct qy_device *dev, void *ptr)
{
    if (dev && ptr) {
        struct header *header = (struct header *)ptr - 1;
        dev->memory.used -= header->bytes;
        qy_free(&dev->rt->mem, header);
    }
}

void qy_device_memory(const struct qy_device *dev, struct qy_device_memory *memory)
{
    *memory = dev->memory;
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
