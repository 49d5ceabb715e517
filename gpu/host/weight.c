/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights: what a product is made of, and which of the two ways takes it. Small m goes through
 * the streaming kernels (gpu/host/stream.c), large m through the library on its packed copy.
 */
#include "gpu/host/dense.h"

static enum qy_status check_matrix(const struct qy_matrix *part, uint32_t n_in,
                                   struct qy_error *err)
{
    const char *name = part->name ? part->name : "";
    const struct qy_tensor_type_info *info = qy_tensor_type_find((uint32_t)part->type);
    if (!info) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "weight '%s': tensor type '%d'; a type of qy_tensor_type_at; "
                            "convert the file",
                            name, (int)part->type);
    }
    if (!part->data || part->n_out == 0 || part->n_in == 0) {
        return qy_error_set(err, QY_ERR_INVALID, "weight '%s': no data, or no rows or columns",
                            name);
    }
    if (part->n_in % info->block_elems != 0) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "weight '%s': %u columns of %s; a multiple of %u; convert the file "
                            "with another type",
                            name, part->n_in, info->name, info->block_elems);
    }
    if (part->n_in != n_in) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "weight '%s': %u columns; the parts before it have %u", name,
                            part->n_in, n_in);
    }
    return QY_OK;
}

static enum qy_status check_parts(const struct qy_matrix *parts, size_t n_parts, unsigned use,
                                  struct qy_error *err)
{
    if (!parts || n_parts == 0) {
        return qy_error_set(err, QY_ERR_INVALID, "weight: no parts");
    }
    if (use == 0 || (use & ~(unsigned)(QY_WEIGHT_MULTIPLY | QY_WEIGHT_ROWS))) {
        return qy_error_set(err, QY_ERR_INVALID, "weight: use '%u'; multiply, rows or both", use);
    }
    uint64_t n_out = 0;
    for (size_t i = 0; i < n_parts; i++) {
        const enum qy_status st = check_matrix(&parts[i], parts[0].n_in, err);
        if (st != QY_OK) {
            return st;
        }
        n_out += parts[i].n_out;
    }
    if (n_out > UINT32_MAX) {
        return qy_error_set(err, QY_ERR_INVALID, "weight: more than 2^32 - 1 rows in all");
    }
    return QY_OK;
}

static void take_parts(const struct qy_device *dev, const struct qy_matrix *parts,
                       struct qy_weight *weight)
{
    const struct qy_tensor_type_info *first = qy_tensor_type_at(0);
    for (size_t i = 0; i < weight->n_parts; i++) {
        const struct qy_tensor_type_info *info = qy_tensor_type_find((uint32_t)parts[i].type);
        weight->parts[i] = (struct qyi_part){
            .data = parts[i].data,
            .row_bytes = (size_t)weight->n_in / info->block_elems * info->block_bytes,
            .n_out = parts[i].n_out,
            .type = parts[i].type,
            .dequantize = dev->kernels->dequantize ? dev->kernels->dequantize[info - first] : NULL,
        };
        weight->n_out += parts[i].n_out;
    }
}

static enum qy_status prepare_multiply(struct qy_device *dev, struct qy_weight *weight,
                                       struct qy_error *err)
{
    if (qyi_scratch_reserve(dev, qyi_stream_scratch(dev, weight->n_in)) != QY_OK) {
        return qy_error_set(err, QY_ERR_NOMEM, "weight: no memory for the scratch of products");
    }
    const uint64_t most = (uint64_t)weight->n_out * weight->n_in * sizeof(float);
    if (!dev->dense || most > dev->packed_left) {
        return QY_OK;
    }
    const enum qy_status st = dev->dense->pack(dev, weight, err);
    if (st == QY_OK) {
        dev->packed_left -= most;
    }
    return st;
}

enum qy_status qy_weight_open(struct qy_device *dev, const struct qy_matrix *parts, size_t n_parts,
                              unsigned use, struct qy_weight **weight, struct qy_error *err)
{
    enum qy_status st = check_parts(parts, n_parts, use, err);
    if (st != QY_OK) {
        return st;
    }
    struct qy_weight *w = qy_alloc_zero(&dev->rt->mem, sizeof *w);
    struct qyi_part *copies = qy_alloc_zero(&dev->rt->mem, n_parts * sizeof *copies);
    if (!w || !copies) {
        qy_free(&dev->rt->mem, copies);
        qy_free(&dev->rt->mem, w);
        return qy_error_set(err, QY_ERR_NOMEM, "weight: no memory for its description");
    }
    w->parts = copies;
    w->n_parts = n_parts;
    w->n_in = parts[0].n_in;
    w->use = use;
    take_parts(dev, parts, w);
    if (use & QY_WEIGHT_MULTIPLY) {
        st = prepare_multiply(dev, w, err);
        if (st != QY_OK) {
            qy_weight_close(dev, w);
            return st;
        }
    }
    *weight = w;
    return QY_OK;
}

void qy_weight_close(struct qy_device *dev, struct qy_weight *weight)
{
    if (!weight) {
        return;
    }
    if (weight->packed) {
        dev->packed_left += (uint64_t)weight->n_out * weight->n_in * sizeof(float);
        dev->dense->unpack(dev, weight);
    }
    qy_free(&dev->rt->mem, weight->parts);
    qy_free(&dev->rt->mem, weight);
}

uint32_t qy_weight_n_out(const struct qy_weight *weight)
{
    return weight->n_out;
}

uint32_t qy_weight_n_in(const struct qy_weight *weight)
{
    return weight->n_in;
}

size_t qy_weight_bytes(const struct qy_weight *weight)
{
    return sizeof *weight + weight->n_parts * sizeof *weight->parts + weight->packed_bytes;
}

enum qy_status qy_weight_multiply(struct qy_device *dev, const struct qy_weight *weight,
                                  const float *x, uint32_t m, float *y)
{
    if (!(weight->use & QY_WEIGHT_MULTIPLY) || m > dev->max_m) {
        return QY_ERR_INVALID;
    }
    if (m == 0) {
        return QY_OK;
    }
    if (weight->packed && m >= dev->dense_min_m) {
        return dev->dense->multiply(dev, weight, x, m, y);
    }
    qyi_stream_multiply(dev, weight, x, m, y);
    return QY_OK;
}

enum qy_status qy_weight_rows(struct qy_device *dev, const struct qy_weight *weight,
                              const int32_t *ids, uint32_t m, float *out)
{
    (void)dev;
    const uint32_t n_rows = weight->parts[0].n_out;
    if (!(weight->use & QY_WEIGHT_ROWS)) {
        return QY_ERR_INVALID;
    }
    for (uint32_t i = 0; i < m; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_rows) {
            return QY_ERR_INVALID;
        }
    }
    for (uint32_t i = 0; i < m; i++) {
        const uint32_t row = (uint32_t)ids[i];
        qyi_weight_dequantize(weight, row, row + 1, out + (size_t)i * weight->n_in);
    }
    return QY_OK;
}
