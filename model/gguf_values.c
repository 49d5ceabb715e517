/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an open GGUF file: lookup by name through the sorted orders, and conversions of values.
 * Everything was checked when the file was opened, so these only look.
 */
#include "model/gguf_file.h"

#include <math.h>
#include <string.h>

int qyi_gguf_compare(struct qy_text a, struct qy_text b)
{
    const size_t n = a.bytes < b.bytes ? a.bytes : b.bytes;
    const int diff = memcmp(a.data, b.data, n);

    if (diff != 0) {
        return diff < 0 ? -1 : 1;
    }
    return a.bytes < b.bytes ? -1 : a.bytes > b.bytes;
}

static void sift_down(const struct qy_gguf *gguf, uint32_t *order, size_t root, size_t n,
                      qyi_gguf_less less)
{
    for (size_t child = 2 * root + 1; child < n; child = 2 * root + 1) {
        if (child + 1 < n && less(gguf, order[child], order[child + 1])) {
            child++;
        }
        if (!less(gguf, order[root], order[child])) {
            return;
        }
        const uint32_t moved = order[root];
        order[root] = order[child];
        order[child] = moved;
        root = child;
    }
}

/* Heap sort: the names come from the file, so no input may make it quadratic. */
void qyi_gguf_sort(const struct qy_gguf *gguf, uint32_t *order, size_t n, qyi_gguf_less less)
{
    for (size_t i = n / 2; i > 0; i--) {
        sift_down(gguf, order, i - 1, n, less);
    }
    for (size_t end = n; end > 1; end--) {
        const uint32_t largest = order[0];
        order[0] = order[end - 1];
        order[end - 1] = largest;
        sift_down(gguf, order, 0, end - 1, less);
    }
}

size_t qy_gguf_n_values(const struct qy_gguf *gguf)
{
    return gguf->n_values;
}

size_t qy_gguf_n_tensors(const struct qy_gguf *gguf)
{
    return gguf->n_tensors;
}

const struct qy_gguf_value *qy_gguf_value_at(const struct qy_gguf *gguf, size_t i)
{
    return i < gguf->n_values ? &gguf->values[i] : NULL;
}

const struct qy_gguf_tensor *qy_gguf_tensor_at(const struct qy_gguf *gguf, size_t i)
{
    return i < gguf->n_tensors ? &gguf->tensors[i] : NULL;
}

const struct qy_gguf_value *qy_gguf_find_value(const struct qy_gguf *gguf, const char *key)
{
    const struct qy_text wanted = {key, strlen(key)};
    size_t low = 0;
    size_t high = gguf->n_values;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const struct qy_gguf_value *value = &gguf->values[gguf->value_order[middle]];
        const int order = qyi_gguf_compare(wanted, value->key);
        if (order == 0) {
            return value;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

const struct qy_gguf_tensor *qy_gguf_find_tensor(const struct qy_gguf *gguf, const char *name)
{
    const struct qy_text wanted = {name, strlen(name)};
    size_t low = 0;
    size_t high = gguf->n_tensors;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const struct qy_gguf_tensor *tensor = &gguf->tensors[gguf->tensor_order[middle]];
        const int order = qyi_gguf_compare(wanted, tensor->name);
        if (order == 0) {
            return tensor;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

/* A whole number of any type at data: its bits, sign-extended. 0 when type is no integer. */
static int load_integer(enum qy_gguf_type type, const uint8_t *data, uint64_t *bits, int *negative)
{
    const int is_signed =
        type == QY_GGUF_I8 || type == QY_GGUF_I16 || type == QY_GGUF_I32 || type == QY_GGUF_I64;
    const size_t bytes = qyi_gguf_type_bytes(type);

    if (bytes == 0 || type == QY_GGUF_F32 || type == QY_GGUF_F64) {
        return 0;
    }
    *bits = 0;
    for (size_t i = 0; i < bytes; i++) {
        *bits |= (uint64_t)data[i] << (8 * i);
    }
    *negative = is_signed && (data[bytes - 1] & 0x80) != 0;
    if (*negative && bytes < 8) {
        *bits |= UINT64_MAX << (8 * bytes);
    }
    return 1;
}

int qy_gguf_get_u64(const struct qy_gguf *gguf, const char *key, uint64_t *out)
{
    const struct qy_gguf_value *value = qy_gguf_find_value(gguf, key);
    uint64_t bits;
    int negative;

    if (!value) {
        return -1;
    }
    if (!load_integer(value->type, value->data, &bits, &negative) || negative) {
        return -2;
    }
    *out = bits;
    return 0;
}

static double load_float(enum qy_gguf_type type, const uint8_t *data)
{
    if (type == QY_GGUF_F32) {
        float single;
        memcpy(&single, data, sizeof(single));
        return single;
    }
    double value;
    memcpy(&value, data, sizeof(value));
    return value;
}

int qy_gguf_get_f64(const struct qy_gguf *gguf, const char *key, double *out)
{
    const struct qy_gguf_value *value = qy_gguf_find_value(gguf, key);

    if (!value) {
        return -1;
    }
    if (value->type != QY_GGUF_F32 && value->type != QY_GGUF_F64) {
        return -2;
    }
    *out = load_float(value->type, value->data);
    return 0;
}

int qy_gguf_next_text(const struct qy_gguf_value *array, size_t *cursor, struct qy_text *out)
{
    uint64_t bytes;

    if (array->element != QY_GGUF_STRING || *cursor >= array->bytes) {
        return -1;
    }
    memcpy(&bytes, array->data + *cursor, sizeof(bytes));
    out->data = (const char *)array->data + *cursor + sizeof(bytes);
    out->bytes = (size_t)bytes;
    *cursor += sizeof(bytes) + (size_t)bytes;
    return 0;
}

int qy_gguf_get_text(const struct qy_gguf *gguf, const char *key, struct qy_text *out)
{
    const struct qy_gguf_value *value = qy_gguf_find_value(gguf, key);
    size_t cursor = 0;

    if (!value) {
        return -1;
    }
    if (value->type != QY_GGUF_STRING) {
        return -2;
    }
    return qy_gguf_next_text(value, &cursor, out) == 0 ? 0 : -2;
}

/* NaN past the end and for strings. */
double qy_gguf_number_at(const struct qy_gguf_value *array, uint64_t i)
{
    const size_t bytes = qyi_gguf_type_bytes(array->element);
    uint64_t bits;
    int negative;

    if (i >= array->count || bytes == 0) {
        return NAN;
    }
    const uint8_t *data = array->data + (size_t)i * bytes;
    if (!load_integer(array->element, data, &bits, &negative)) {
        return load_float(array->element, data);
    }
    return negative ? -(double)(UINT64_MAX - bits + 1) : (double)bits;
}
