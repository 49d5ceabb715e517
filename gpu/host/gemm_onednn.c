/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large products by oneDNN. One packed copy of a weight serves every m; the team divides the rows
 * of activations, and each thread runs the library's single-threaded primitives on its share:
 *
 *   rows of a thread, 150:  |<-------- 128 -------->|
 *                                                |<- 32 ->|   moved back: some rows come twice
 *
 * so that few classes of m (16, 32 .. 512) serve all m without padding. Numbers depend on the
 * class in their last bits; a deterministic device does not come here.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/host/onednn.h"

/* Rows per thread from which the library beats the streaming kernels, measured on Sapphire Rapids
 * (2 threads) with the shapes of a 135M model. Every thread reads the whole packed copy, so the
 * limit belongs to a thread's share. In f32 the two are even at 100 rows, and the library is ahead
 * by a tenth at 256; AMX with bf16 is ahead from the first class on. */
enum { MIN_SHARE_F32 = 128, MIN_SHARE_F32_PLAIN = 16, MIN_SHARE_BF16 = 16 };

static uint32_t min_share(const struct qy_device *dev)
{
    if (dev->compute == QY_COMPUTE_BF16) {
        return MIN_SHARE_BF16;
    }
    return dev->level == QY_CPU_PLAIN ? MIN_SHARE_F32_PLAIN : MIN_SHARE_F32;
}

static enum qy_status failed(struct qy_error *err, dnnl_status_t status, const char *what)
{
    return qy_error_set(err, status == dnnl_out_of_memory ? QY_ERR_NOMEM : QY_ERR_DEVICE,
                        "device 'host': oneDNN %s: status %d", what, (int)status);
}

static void onednn_close(struct qy_device *dev)
{
    struct qyi_onednn *lib = dev->dense_state;
    if (!lib) {
        return;
    }
    while (lib->shapes) {
        struct qyi_onednn_shape *next = lib->shapes->next;
        qyi_onednn_shape_close(dev, lib->shapes);
        lib->shapes = next;
    }
    for (uint32_t t = 0; lib->streams && t < lib->n_threads; t++) {
        dnnl_stream_destroy(lib->streams[t]);
    }
    dnnl_engine_destroy(lib->engine);
    qy_free(&dev->rt->mem, lib->streams);
    qy_free(&dev->rt->mem, lib);
    dev->dense_state = NULL;
}

static dnnl_status_t open_library(struct qyi_onednn *lib)
{
    dnnl_status_t s = dnnl_engine_create(&lib->engine, dnnl_cpu, 0);
    for (uint32_t t = 0; s == dnnl_success && t < lib->n_threads; t++) {
        s = dnnl_stream_create(&lib->streams[t], lib->engine, dnnl_stream_default_flags);
    }
    return s;
}

static enum qy_status onednn_open(struct qy_device *dev, struct qy_error *err)
{
    const int bf16 = dev->compute == QY_COMPUTE_BF16;
    if (bf16 && !dev->rt->cpu.avx512_bf16 && !dev->rt->cpu.amx_bf16) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "device 'host': compute 'bf16'; this processor has neither AVX512-BF16 "
                            "nor AMX-BF16; use compute 'f32'");
    }
    struct qyi_onednn *lib = qy_alloc_zero(&dev->rt->mem, sizeof *lib);
    dev->dense_state = lib;
    if (lib) {
        lib->n_threads = qy_team_size(dev->rt->team);
        lib->streams = qy_alloc_zero(&dev->rt->mem, lib->n_threads * sizeof *lib->streams);
    }
    if (!lib || !lib->streams) {
        onednn_close(dev);
        return qy_error_set(err, QY_ERR_NOMEM, "device 'host': no memory for oneDNN");
    }
    lib->type = bf16 ? dnnl_bf16 : dnnl_f32;
    lib->type_bytes = bf16 ? 2 : 4;
    lib->n_classes = 1;
    while (lib->n_classes < QYI_CLASSES &&
           (uint32_t)QYI_CLASS_ROWS_MIN << lib->n_classes <= dev->max_m) {
        lib->n_classes++;
    }
    const int before = qyi_onednn_one_thread();
    const dnnl_status_t s = open_library(lib);
    qyi_onednn_restore(before);
    if (s != dnnl_success) {
        onednn_close(dev);
        return failed(err, s, "engine");
    }
    const dnnl_version_t *version = dnnl_version();
    snprintf(dev->dense_name, sizeof dev->dense_name, "oneDNN %d.%d.%d", version->major,
             version->minor, version->patch);
    dev->caps.dense = dev->dense_name;
    dev->dense_min_m = min_share(dev) * lib->n_threads;
    return QY_OK;
}

/* ---- packing ------------------------------------------------------------------------------- */

struct pack_job {
    const struct qy_device *dev;
    const struct qyi_onednn *lib;
    const struct qy_weight *weight;
    const struct qyi_onednn_shape *shape;
    size_t chunk_bytes; /* of f32 rows, per thread */
    dnnl_status_t status[256];
};

static dnnl_status_t pack_chunk(const struct pack_job *job, uint32_t thread, uint32_t chunk)
{
    const struct qyi_onednn_shape *shape = job->shape;
    const uint32_t begin = chunk * shape->chunk_rows;
    const int full = shape->n_out - begin >= shape->chunk_rows;
    const uint32_t end = full ? begin + shape->chunk_rows : shape->n_out;
    float *rows = (float *)((uint8_t *)job->dev->scratch + thread * job->chunk_bytes);
    qyi_weight_dequantize(job->weight, begin, end, rows);
    /* The stride of a plain format counts rows, that of a blocked one whole blocks. */
    const dnnl_blocking_desc_t *blocking = &shape->packed.format_desc.blocking;
    const int64_t step =
        blocking->inner_nblks ? blocking->strides[1] : blocking->strides[1] * shape->chunk_rows;
    uint8_t *to = (uint8_t *)job->weight->packed + (size_t)(chunk * step) * job->lib->type_bytes;
    dnnl_memory_t from_memory = NULL;
    dnnl_memory_t to_memory = NULL;
    dnnl_status_t s = dnnl_memory_create(&from_memory, full ? &shape->chunk : &shape->tail,
                                         job->lib->engine, rows);
    if (s == dnnl_success) {
        s = dnnl_memory_create(&to_memory, full ? &shape->chunk_packed : &shape->tail_packed,
                               job->lib->engine, to);
    }
    if (s == dnnl_success) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from_memory}, {DNNL_ARG_TO, to_memory}};
        s = dnnl_primitive_execute(full ? shape->pack_chunk : shape->pack_tail,
                                   job->lib->streams[thread], 2, args);
    }
    dnnl_memory_destroy(from_memory);
    dnnl_memory_destroy(to_memory);
    return s;
}

static void pack_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct pack_job *job = arg;
    size_t chunk;
    size_t end;
    const int before = qyi_onednn_one_thread();
    dnnl_status_t s = dnnl_success;
    qy_team_range(job->shape->n_chunks, thread, n_threads, &chunk, &end);
    for (; s == dnnl_success && chunk < end; chunk++) {
        s = pack_chunk(job, thread, (uint32_t)chunk);
    }
    job->status[thread] = s;
    qyi_onednn_restore(before);
}

static void onednn_unpack(struct qy_device *dev, struct qy_weight *weight)
{
    qy_free(&dev->rt->mem, weight->packed);
    weight->packed = NULL;
    weight->packed_bytes = 0;
}

static int is_padded(const dnnl_memory_desc_t *md)
{
    return md->dims[0] != md->padded_dims[0] || md->dims[1] != md->padded_dims[1];
}

static enum qy_status onednn_pack(struct qy_device *dev, struct qy_weight *weight,
                                  struct qy_error *err)
{
    struct qyi_onednn *lib = dev->dense_state;
    struct qyi_onednn_shape *shape = NULL;
    enum qy_status st = qyi_onednn_shape_find(dev, lib, weight->n_out, weight->n_in, &shape, err);
    if (st != QY_OK) {
        return st;
    }
    struct pack_job job = {.dev = dev, .lib = lib, .weight = weight, .shape = shape};
    job.chunk_bytes = (size_t)shape->chunk_rows * weight->n_in * sizeof(float);
    /* At a product the same scratch holds the activations in the library's type. */
    const size_t x_bytes = (size_t)dev->max_m * weight->n_in * lib->type_bytes;
    const size_t chunks_bytes = job.chunk_bytes * lib->n_threads;
    const size_t bytes = dnnl_memory_desc_get_size(&shape->packed);
    /* Not cleared: the threads that fill it touch it first. */
    weight->packed = dev->rt->mem.alloc(dev->rt->mem.ctx, bytes, 64);
    if (!weight->packed ||
        qyi_scratch_reserve(dev, x_bytes > chunks_bytes ? x_bytes : chunks_bytes) != QY_OK) {
        onednn_unpack(dev, weight);
        return qy_error_set(err, QY_ERR_NOMEM, "weight: no memory for %zu packed bytes of %u x %u",
                            bytes, weight->n_out, weight->n_in);
    }
    weight->packed_bytes = bytes;
    weight->layout = shape;
    if (is_padded(&shape->packed)) {
        memset(weight->packed, 0, bytes);
    }
    qy_team_run(dev->rt->team, pack_share, &job);
    for (uint32_t t = 0; t < lib->n_threads; t++) {
        if (job.status[t] != dnnl_success) {
            onednn_unpack(dev, weight);
            return failed(err, job.status[t], "packing");
        }
    }
    return QY_OK;
}

/* ---- products ------------------------------------------------------------------------------- */

struct job {
    const struct qy_device *dev;
    const struct qyi_onednn *lib;
    const struct qy_weight *weight;
    const uint8_t *x; /* in the library's type */
    float *y;
    uint32_t m, n_shares;
    int failed; /* written by a thread that fails, never cleared by another */
};

/* Class for the next rows when `left` of a share of `all` rows remain: the least one that covers
 * them, if little of it is done twice, else the largest one within them. */
static uint32_t pick_class(const struct qyi_onednn *lib, uint32_t left, uint32_t all)
{
    uint32_t class = 0;
    while (class + 1 < lib->n_classes && (uint32_t)QYI_CLASS_ROWS_MIN << (class + 1) <= left) {
        class ++;
    }
    const uint32_t rows = (uint32_t)QYI_CLASS_ROWS_MIN << class;
    const uint32_t cover = rows * 2;
    if (rows < left && class + 1 < lib->n_classes && cover <= all && cover - left <= rows / 4) {
        class ++;
    }
    return class;
}

static dnnl_status_t multiply_rows(const struct job *job, uint32_t thread, uint32_t first,
                                   uint32_t class)
{
    const struct qyi_onednn_shape *shape = job->weight->layout;
    const struct qyi_onednn_args *a = &shape->args[thread * QYI_CLASSES + class];
    const size_t x_at = (size_t)first * shape->n_in * job->lib->type_bytes;
    dnnl_status_t s = dnnl_memory_set_data_handle(a->src, (void *)(job->x + x_at));
    if (s == dnnl_success) {
        s = dnnl_memory_set_data_handle(a->weights, job->weight->packed);
    }
    if (s == dnnl_success) {
        s = dnnl_memory_set_data_handle(a->dst, job->y + (size_t)first * shape->n_out);
    }
    if (s != dnnl_success) {
        return s;
    }
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, a->src},
                                    {DNNL_ARG_WEIGHTS, a->weights},
                                    {DNNL_ARG_DST, a->dst},
                                    {DNNL_ARG_SCRATCHPAD, a->scratchpad}};
    return dnnl_primitive_execute(shape->product[class], job->lib->streams[thread], 4, args);
}

static void multiply_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    struct job *job = arg;
    size_t begin;
    size_t end;
    (void)n_threads;
    if (thread >= job->n_shares) {
        return;
    }
    qy_team_range(job->m, thread, job->n_shares, &begin, &end);
    const int before = qyi_onednn_one_thread();
    dnnl_status_t s = dnnl_success;
    for (size_t row = begin; s == dnnl_success && row < end;) {
        const uint32_t class = pick_class(job->lib, (uint32_t)(end - row), (uint32_t)(end - begin));
        const size_t rows = (size_t)QYI_CLASS_ROWS_MIN << class;
        const size_t first = row + rows <= end ? row : end - rows; /* the share has that many */
        s = multiply_rows(job, thread, (uint32_t)first, class);
        row = first + rows;
    }
    if (s != dnnl_success) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED); /* read after the team's join */
    }
    qyi_onednn_restore(before);
}

static void to_bf16_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct job *job = arg;
    size_t begin;
    size_t end;
    qy_team_range((size_t)job->m * job->weight->n_in, thread, n_threads, &begin, &end);
    job->dev->kernels->to_bf16((const float *)(const void *)job->x + begin, end - begin,
                               (uint16_t *)job->dev->scratch + begin);
}

static enum qy_status onednn_multiply(struct qy_device *dev, const struct qy_weight *weight,
                                      const float *x, uint32_t m, float *y)
{
    const struct qyi_onednn *lib = dev->dense_state;
    const uint32_t most = m / QYI_CLASS_ROWS_MIN;
    struct job job = {.dev = dev,
                      .lib = lib,
                      .weight = weight,
                      .x = (const uint8_t *)x,
                      .y = y,
                      .m = m,
                      .n_shares = lib->n_threads < most ? lib->n_threads : most};
    if (lib->type == dnnl_bf16) {
        qy_team_run(dev->rt->team, to_bf16_share, &job);
        job.x = dev->scratch;
    }
    qy_team_run(dev->rt->team, multiply_share, &job);
    return job.failed ? QY_ERR_DEVICE : QY_OK;
}

const struct qyi_dense qyi_dense_onednn = {
    .open = onednn_open,
    .close = onednn_close,
    .pack = onednn_pack,
    .unpack = onednn_unpack,
    .multiply = onednn_multiply,
};
