/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oneDNN primitives of one shape of weight: a product for each class of m, all reading one packed
 * format, and the reorder that packs a run of output rows. Made at setup, kept for all weights of
 * that shape.
 */
#include "gpu/host/onednn.h"

enum { CHUNK_ROWS = 64 };

static enum qy_status failed(struct qy_error *err, dnnl_status_t status, const char *what,
                             const struct qyi_onednn_shape *shape)
{
    return qy_error_set(err, status == dnnl_out_of_memory ? QY_ERR_NOMEM : QY_ERR_DEVICE,
                        "oneDNN %s of %u x %u: status %d", what, shape->n_out, shape->n_in,
                        (int)status);
}

/* y [m][n_out] = x [m][n_in] * w [n_in][n_out]; weights_md NULL: the library chooses the format. */
static dnnl_status_t describe_product(const struct qyi_onednn *lib,
                                      const struct qyi_onednn_shape *shape, uint32_t m,
                                      const dnnl_memory_desc_t *weights_md,
                                      dnnl_primitive_desc_t *out)
{
    const dnnl_dims_t x_dims = {m, shape->n_in};
    const dnnl_dims_t w_dims = {shape->n_in, shape->n_out};
    const dnnl_dims_t y_dims = {m, shape->n_out};
    dnnl_memory_desc_t x;
    dnnl_memory_desc_t w;
    dnnl_memory_desc_t y;
    dnnl_matmul_desc_t product;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t s = dnnl_memory_desc_init_by_tag(&x, 2, x_dims, lib->type, dnnl_ab);
    if (s == dnnl_success) {
        s = dnnl_memory_desc_init_by_tag(&y, 2, y_dims, dnnl_f32, dnnl_ab);
    }
    if (s == dnnl_success) {
        s = dnnl_memory_desc_init_by_tag(&w, 2, w_dims, lib->type, dnnl_format_tag_any);
    }
    if (s == dnnl_success) {
        s = dnnl_matmul_desc_init(&product, &x, weights_md ? weights_md : &w, NULL, &y);
    }
    if (s == dnnl_success) {
        s = dnnl_primitive_attr_create(&attr);
    }
    if (s != dnnl_success) {
        return s;
    }
    /* The library's own scratchpad belongs to the thread that made the primitive. */
    s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success) {
        s = dnnl_primitive_desc_create(out, &product, attr, lib->engine, NULL);
    }
    dnnl_primitive_attr_destroy(attr);
    return s;
}

static dnnl_status_t make_args(const struct qyi_onednn *lib, const_dnnl_primitive_desc_t pd,
                               struct qyi_onednn_args *args)
{
    const struct {
        dnnl_query_t query;
        dnnl_memory_t *memory;
        void *handle;
    } rows[] = {
        {dnnl_query_src_md, &args->src, DNNL_MEMORY_NONE},
        {dnnl_query_weights_md, &args->weights, DNNL_MEMORY_NONE},
        {dnnl_query_dst_md, &args->dst, DNNL_MEMORY_NONE},
        {dnnl_query_scratchpad_md, &args->scratchpad, DNNL_MEMORY_ALLOCATE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, rows[i].query, 0);
        const dnnl_status_t s = dnnl_memory_create(rows[i].memory, md, lib->engine, rows[i].handle);
        if (s != dnnl_success) {
            return s;
        }
    }
    return dnnl_success;
}

static dnnl_status_t make_class(const struct qyi_onednn *lib, struct qyi_onednn_shape *shape,
                                uint32_t class)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s =
        describe_product(lib, shape, QYI_CLASS_ROWS_MIN << class, &shape->packed, &pd);
    if (s != dnnl_success) {
        return s;
    }
    s = dnnl_primitive_create(&shape->product[class], pd);
    for (uint32_t t = 0; s == dnnl_success && t < shape->n_threads; t++) {
        s = make_args(lib, pd, &shape->args[t * QYI_CLASSES + class]);
    }
    dnnl_primitive_desc_destroy(pd);
    return s;
}

/* n_rows output rows: before, f32 [n_rows][n_in]; after, the same columns of the packed format. */
static dnnl_status_t make_pack(const struct qyi_onednn *lib, const struct qyi_onednn_shape *shape,
                               uint32_t n_rows, dnnl_memory_desc_t *from, dnnl_memory_desc_t *to,
                               dnnl_primitive_t *pack)
{
    const dnnl_dims_t dims = {shape->n_in, n_rows};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s = dnnl_memory_desc_init_by_tag(from, 2, dims, dnnl_f32, dnnl_ba);
    if (s != dnnl_success) {
        return s;
    }
    *to = shape->packed;
    to->dims[1] = n_rows;
    to->padded_dims[1] = n_rows;
    for (int i = 0; i < to->format_desc.blocking.inner_nblks; i++) {
        if (to->format_desc.blocking.inner_idxs[i] == 1) { /* the last block may be cut */
            to->padded_dims[1] = CHUNK_ROWS;
        }
    }
    s = dnnl_reorder_primitive_desc_create(&pd, from, lib->engine, to, lib->engine, NULL);
    if (s == dnnl_success) {
        s = dnnl_primitive_create(pack, pd);
        dnnl_primitive_desc_destroy(pd);
    }
    return s;
}

/* Output rows that are contiguous in the packed format; 0 when the format is not understood. */
static uint32_t block_rows(const dnnl_memory_desc_t *md)
{
    if (md->format_kind != dnnl_blocked || md->offset0 != 0) {
        return 0;
    }
    int64_t rows = 1;
    for (int i = 0; i < md->format_desc.blocking.inner_nblks; i++) {
        if (md->format_desc.blocking.inner_idxs[i] == 1) {
            rows *= md->format_desc.blocking.inner_blks[i];
        }
    }
    return (uint32_t)rows;
}

static dnnl_status_t make_packs(const struct qyi_onednn *lib, struct qyi_onednn_shape *shape)
{
    const uint32_t block = block_rows(&shape->packed);
    if (block != 1 && block != CHUNK_ROWS) {
        return dnnl_unimplemented;
    }
    shape->chunk_rows = CHUNK_ROWS;
    shape->n_chunks = (shape->n_out + CHUNK_ROWS - 1) / CHUNK_ROWS;
    const uint32_t tail = shape->n_out % CHUNK_ROWS;
    dnnl_status_t s = dnnl_success;
    if (shape->n_out >= CHUNK_ROWS) {
        s = make_pack(lib, shape, CHUNK_ROWS, &shape->chunk, &shape->chunk_packed,
                      &shape->pack_chunk);
    }
    if (s == dnnl_success && tail != 0) {
        s = make_pack(lib, shape, tail, &shape->tail, &shape->tail_packed, &shape->pack_tail);
    }
    return s;
}

static enum qy_status make_shape(const struct qyi_onednn *lib, struct qyi_onednn_shape *shape,
                                 struct qy_error *err)
{
    dnnl_primitive_desc_t pd = NULL;
    /* The format is the same for all classes that were tried; the largest one asks. */
    const uint32_t m = QYI_CLASS_ROWS_MIN << (lib->n_classes - 1);
    dnnl_status_t s = describe_product(lib, shape, m, NULL, &pd);
    if (s != dnnl_success) {
        return failed(err, s, "product", shape);
    }
    shape->packed = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(pd);
    for (uint32_t class = 0; class < lib->n_classes; class ++) {
        s = make_class(lib, shape, class);
        if (s != dnnl_success) {
            return failed(err, s, "product", shape);
        }
    }
    s = make_packs(lib, shape);
    return s == dnnl_success ? QY_OK : failed(err, s, "packing", shape);
}

enum qy_status qyi_onednn_shape_find(struct qy_device *dev, struct qyi_onednn *lib, uint32_t n_out,
                                     uint32_t n_in, struct qyi_onednn_shape **shape,
                                     struct qy_error *err)
{
    for (struct qyi_onednn_shape *s = lib->shapes; s; s = s->next) {
        if (s->n_out == n_out && s->n_in == n_in) {
            *shape = s;
            return QY_OK;
        }
    }
    struct qyi_onednn_shape *s = qy_alloc_zero(&dev->rt->mem, sizeof *s);
    struct qyi_onednn_args *args =
        qy_alloc_zero(&dev->rt->mem, lib->n_threads * QYI_CLASSES * sizeof *args);
    if (!s || !args) {
        qy_free(&dev->rt->mem, args);
        qy_free(&dev->rt->mem, s);
        return qy_error_set(err, QY_ERR_NOMEM, "weight: no memory for its oneDNN primitives");
    }
    s->n_out = n_out;
    s->n_in = n_in;
    s->n_threads = lib->n_threads;
    s->args = args;
    const int before = qyi_onednn_one_thread();
    const enum qy_status st = make_shape(lib, s, err);
    qyi_onednn_restore(before);
    if (st != QY_OK) {
        qyi_onednn_shape_close(dev, s);
        return st;
    }
    s->next = lib->shapes;
    lib->shapes = s;
    *shape = s;
    return QY_OK;
}

void qyi_onednn_shape_close(struct qy_device *dev, struct qyi_onednn_shape *shape)
{
    for (uint32_t i = 0; i < shape->n_threads * QYI_CLASSES; i++) {
        dnnl_memory_destroy(shape->args[i].src);
        dnnl_memory_destroy(shape->args[i].weights);
        dnnl_memory_destroy(shape->args[i].dst);
        dnnl_memory_destroy(shape->args[i].scratchpad);
    }
    for (uint32_t class = 0; class < QYI_CLASSES; class ++) {
        dnnl_primitive_destroy(shape->product[class]);
    }
    dnnl_primitive_destroy(shape->pack_chunk);
    dnnl_primitive_destroy(shape->pack_tail);
    qy_free(&dev->rt->mem, shape->args);
    qy_free(&dev->rt->mem, shape);
}
