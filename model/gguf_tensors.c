/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensor table of a GGUF file: names, shapes and types, and the proof that each tensor lies
 * inside the file and apart from every other one.
 */
#include "model/gguf_file.h"

#include <stdio.h>
#include <string.h>

/* Types of the format that are not supported, so that the message can name them. */
static const struct {
    uint32_t type;
    const char *name;
} other_types[] = {
    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
    {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"},
};

static enum qy_status unsupported_type(const struct qyi_gguf_cursor *cursor, struct qy_text name,
                                       uint32_t type)
{
    char shown[QYI_GGUF_SHOWN_BYTES];
    char list[160] = "";
    const char *type_name = "unknown";
    size_t used = 0;

    for (size_t i = 0; i < sizeof(other_types) / sizeof(other_types[0]); i++) {
        if (other_types[i].type == type) {
            type_name = other_types[i].name;
        }
    }
    for (size_t i = 0; qy_tensor_type_at(i) && used < sizeof(list); i++) {
        const int n = snprintf(list + used, sizeof(list) - used, " %s", qy_tensor_type_at(i)->name);
        used += n > 0 ? (size_t)n : 0;
    }
    return qy_error_set(cursor->err, QY_ERR_UNSUPPORTED,
                        "file '%s': tensor '%s': type %u (%s); supported are%s; quantize the model "
                        "to one of these",
                        cursor->gguf->name, qyi_gguf_show(name, shown), type, type_name, list);
}

static enum qy_status bad_shape(const struct qyi_gguf_cursor *cursor,
                                const struct qy_gguf_tensor *tensor, const char *why)
{
    char shown[QYI_GGUF_SHOWN_BYTES];

    return qy_error_set(
        cursor->err, QY_ERR_CORRUPT, "file '%s': tensor '%s': shape %llu x %llu x %llu x %llu %s",
        cursor->gguf->name, qyi_gguf_show(tensor->name, shown), (unsigned long long)tensor->dims[0],
        (unsigned long long)tensor->dims[1], (unsigned long long)tensor->dims[2],
        (unsigned long long)tensor->dims[3], why);
}

/* Bytes from shape and type. */
static enum qy_status measure(const struct qyi_gguf_cursor *cursor, struct qy_gguf_tensor *tensor,
                              uint32_t type)
{
    const struct qy_tensor_type_info *info = qy_tensor_type_find(type);
    uint64_t elems = 1;

    if (!info) {
        return unsupported_type(cursor, tensor->name, type);
    }
    tensor->type = info->type;
    for (size_t i = 0; i < 4; i++) {
        if (tensor->dims[i] == 0) {
            return bad_shape(cursor, tensor, "has a zero; every dimension is at least 1");
        }
        if (tensor->dims[i] > (uint64_t)INT64_MAX / elems) {
            return bad_shape(cursor, tensor, "is larger than any memory");
        }
        elems *= tensor->dims[i];
    }
    if (tensor->dims[0] % info->block_elems != 0) {
        char why[80];
        (void)snprintf(why, sizeof(why), "has rows that are no multiple of %u, the block of %s",
                       info->block_elems, info->name);
        return bad_shape(cursor, tensor, why);
    }
    const uint64_t blocks = elems / info->block_elems;
    if (blocks > (uint64_t)INT64_MAX / info->block_bytes) {
        return bad_shape(cursor, tensor, "is larger than any memory");
    }
    tensor->bytes = blocks * info->block_bytes;
    return QY_OK;
}

/* One entry of the table. The data's place cannot be known before the table ends: *offset. */
static enum qy_status read_tensor(struct qyi_gguf_cursor *cursor, struct qy_gguf_tensor *tensor,
                                  uint64_t *offset)
{
    uint32_t type;
    char shown[QYI_GGUF_SHOWN_BYTES];
    enum qy_status st =
        qyi_gguf_read_text(cursor, "the name of a tensor", 1, QYI_GGUF_NAME_BYTES, &tensor->name);

    if (st == QY_OK) {
        st = qyi_gguf_read_u32(cursor, "the number of dimensions", &tensor->n_dims);
    }
    if (st != QY_OK) {
        return st;
    }
    if (tensor->n_dims < 1 || tensor->n_dims > 4) {
        return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                            "file '%s': tensor '%s': %u dimensions at offset %zu; 1 to 4 are "
                            "accepted",
                            cursor->gguf->name, qyi_gguf_show(tensor->name, shown), tensor->n_dims,
                            cursor->at - 4);
    }
    for (size_t i = 0; i < 4; i++) {
        tensor->dims[i] = 1;
        if (i < tensor->n_dims) {
            st = qyi_gguf_read_u64(cursor, "a dimension", &tensor->dims[i]);
            if (st != QY_OK) {
                return st;
            }
        }
    }
    st = qyi_gguf_read_u32(cursor, "the type of a tensor", &type);
    if (st == QY_OK) {
        st = qyi_gguf_read_u64(cursor, "the offset of a tensor", offset);
    }
    return st == QY_OK ? measure(cursor, tensor, type) : st;
}

/* Where the data starts: the end of the table, rounded up. */
static enum qy_status find_data(struct qy_gguf *gguf, const struct qyi_gguf_cursor *cursor)
{
    const size_t over = cursor->at % gguf->alignment;
    const size_t pad = over ? gguf->alignment - over : 0;
    const enum qy_status st =
        gguf->n_tensors ? qyi_gguf_need(cursor, pad, "the padding before the tensors") : QY_OK;

    if (st == QY_OK) {
        const size_t left = gguf->n_bytes - cursor->at;
        gguf->data_offset = cursor->at + (pad < left ? pad : left);
    }
    return st;
}

static enum qy_status place_tensor(const struct qy_gguf *gguf, struct qy_gguf_tensor *tensor,
                                   uint64_t offset, struct qy_error *err)
{
    const uint64_t data_bytes = gguf->n_bytes - gguf->data_offset;
    char shown[QYI_GGUF_SHOWN_BYTES];

    if (offset % gguf->alignment != 0) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "file '%s': tensor '%s': offset %llu is no multiple of the alignment "
                            "%u",
                            gguf->name, qyi_gguf_show(tensor->name, shown),
                            (unsigned long long)offset, gguf->alignment);
    }
    if (offset > data_bytes || tensor->bytes > data_bytes - offset) {
        return qy_error_set(err, QY_ERR_CORRUPT,
                            "file '%s': tensor '%s': %llu bytes at offset %llu of the data; the "
                            "file has %llu bytes of data; it is damaged or not whole",
                            gguf->name, qyi_gguf_show(tensor->name, shown),
                            (unsigned long long)tensor->bytes, (unsigned long long)offset,
                            (unsigned long long)data_bytes);
    }
    tensor->data = gguf->bytes + gguf->data_offset + (size_t)offset;
    return QY_OK;
}

static int data_less(const struct qy_gguf *gguf, uint32_t a, uint32_t b)
{
    return (const uint8_t *)gguf->tensors[a].data < (const uint8_t *)gguf->tensors[b].data;
}

static int name_less(const struct qy_gguf *gguf, uint32_t a, uint32_t b)
{
    return qyi_gguf_compare(gguf->tensors[a].name, gguf->tensors[b].name) < 0;
}

/* No two tensors share a byte or a name. Leaves tensor_order sorted by name. */
static enum qy_status check_apart(struct qy_gguf *gguf, struct qy_error *err)
{
    uint32_t *order = gguf->tensor_order;
    char shown[2][QYI_GGUF_SHOWN_BYTES];

    qyi_gguf_sort(gguf, order, gguf->n_tensors, data_less);
    for (size_t i = 1; i < gguf->n_tensors; i++) {
        const struct qy_gguf_tensor *a = &gguf->tensors[order[i - 1]];
        const struct qy_gguf_tensor *b = &gguf->tensors[order[i]];
        if (a->bytes > (uint64_t)((const uint8_t *)b->data - (const uint8_t *)a->data)) {
            return qy_error_set(
                err, QY_ERR_CORRUPT, "file '%s': tensors '%s' and '%s' overlap at offset %zu",
                gguf->name, qyi_gguf_show(a->name, shown[0]), qyi_gguf_show(b->name, shown[1]),
                (size_t)((const uint8_t *)b->data - gguf->bytes));
        }
    }
    qyi_gguf_sort(gguf, order, gguf->n_tensors, name_less);
    for (size_t i = 1; i < gguf->n_tensors; i++) {
        const struct qy_text name = gguf->tensors[order[i]].name;
        if (qyi_gguf_compare(gguf->tensors[order[i - 1]].name, name) == 0) {
            return qy_error_set(err, QY_ERR_CORRUPT,
                                "file '%s': tensor '%s' is there twice (again at offset %zu)",
                                gguf->name, qyi_gguf_show(name, shown[0]),
                                (size_t)((const uint8_t *)name.data - gguf->bytes));
        }
    }
    return QY_OK;
}

enum qy_status qyi_gguf_read_tensors(struct qy_gguf *gguf, struct qyi_gguf_cursor *cursor,
                                     uint64_t n_tensors)
{
    const size_t n = (size_t)n_tensors;

    if (n == 0) {
        return find_data(gguf, cursor);
    }
    uint64_t *offsets = qy_alloc_zero(&gguf->mem, n * sizeof(*offsets));
    gguf->tensors = qy_alloc_zero(&gguf->mem, n * sizeof(*gguf->tensors));
    gguf->tensor_order = qy_alloc_zero(&gguf->mem, n * sizeof(*gguf->tensor_order));
    enum qy_status st = QY_OK;
    if (!offsets || !gguf->tensors || !gguf->tensor_order) {
        st = qy_error_set(cursor->err, QY_ERR_NOMEM, "file '%s': no memory for %zu tensors",
                          gguf->name, n);
    }
    for (size_t i = 0; i < n && st == QY_OK; i++) {
        st = read_tensor(cursor, &gguf->tensors[i], &offsets[i]);
        gguf->tensor_order[i] = (uint32_t)i;
    }
    gguf->n_tensors = n;
    if (st == QY_OK) {
        st = find_data(gguf, cursor);
    }
    for (size_t i = 0; i < n && st == QY_OK; i++) {
        st = place_tensor(gguf, &gguf->tensors[i], offsets[i], cursor->err);
    }
    qy_free(&gguf->mem, offsets);
    return st == QY_OK ? check_apart(gguf, cursor->err) : st;
}
