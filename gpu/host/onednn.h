/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the oneDNN product share: its state, and the primitives of one shape of
 * weight. Included only by gpu/host/gemm_onednn.c and gpu/host/onednn_shape.c.
 */
#ifndef QY_GPU_HOST_ONEDNN_H
#define QY_GPU_HOST_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>

#include "gpu/host/dense.h"

/* Rows of activations of a primitive: 16 << class. */
enum { QYI_CLASSES = 6, QYI_CLASS_ROWS_MIN = 16 };

/* Argument objects of one thread: only their handles change at a call. */
struct qyi_onednn_args {
    dnnl_memory_t src, weights, dst, scratchpad;
};

/* Everything that depends on n_out and n_in but not on the weight. */
struct qyi_onednn_shape {
    struct qyi_onednn_shape *next;
    uint32_t n_out, n_in;
    dnnl_memory_desc_t packed;             /* the format that every class reads      */
    dnnl_primitive_t product[QYI_CLASSES]; /* of 16 << class rows                    */
    struct qyi_onednn_args *args;          /* [n_threads][QYI_CLASSES]               */
    uint32_t n_threads, chunk_rows, n_chunks;
    dnnl_memory_desc_t chunk, chunk_packed; /* a run of output rows before and after  */
    dnnl_memory_desc_t tail, tail_packed;   /* the last run, when it is shorter       */
    dnnl_primitive_t pack_chunk, pack_tail; /* pack_tail NULL: every chunk is full    */
};

struct qyi_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* [n_threads] */
    uint32_t n_threads, n_classes;
    dnnl_data_type_t type; /* of activations and weights */
    size_t type_bytes;
    struct qyi_onednn_shape *shapes;
};

/* The shape's primitives, made on first use. [setup] [alloc] */
QY_MUST enum qy_status qyi_onednn_shape_find(struct qy_device *dev, struct qyi_onednn *lib,
                                             uint32_t n_out, uint32_t n_in,
                                             struct qyi_onednn_shape **shape, struct qy_error *err);
void qyi_onednn_shape_close(struct qy_device *dev, struct qyi_onednn_shape *shape);

/* The OpenMP runtime that oneDNN runs on. Its header belongs to one compiler, so declared here. */
extern void omp_set_num_threads(int n);
extern int omp_get_max_threads(void);

/* Our team divides the work: inside, oneDNN must neither divide it again nor start threads of its
 * own that spin beside ours. The setting belongs to the calling thread; restore gives it back. */
static inline int qyi_onednn_one_thread(void)
{
    const int before = omp_get_max_threads();
    omp_set_num_threads(1);
    return before;
}

static inline void qyi_onednn_restore(int before)
{
    omp_set_num_threads(before);
}

#endif
