/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open GGUF file as the parts of the reader share it, and the checked cursor that they read
 * with. Private to model/gguf*.c.
 *
 *   "GGUF" version n_tensors n_values | values | tensor table | padding | tensor data
 *          u32     u64       u64        key, type, value   name, dims, type, offset
 */
#ifndef QY_MODEL_GGUF_FILE_H
#define QY_MODEL_GGUF_FILE_H

#include "model/model.h"

struct qy_gguf {
    struct qy_allocator mem;
    char *name;           /* for messages */
    const uint8_t *bytes; /* the whole file */
    size_t n_bytes;
    int mapped; /* bytes are a mapping of ours */
    uint32_t alignment;
    size_t data_offset; /* of the tensor data */
    size_t n_values, n_tensors;
    struct qy_gguf_value *values;         /* in file order */
    struct qy_gguf_tensor *tensors;       /* in file order */
    uint32_t *value_order, *tensor_order; /* places sorted by key, by name */
};

/* What the format allows at most; far above any real file. */
enum {
    QYI_GGUF_KEY_BYTES = 65535,
    QYI_GGUF_NAME_BYTES = 64,
    QYI_GGUF_MAX_VALUES = 1 << 20,
    QYI_GGUF_MAX_TENSORS = 1 << 20,
    QYI_GGUF_MAX_ALIGNMENT = 1 << 16,
    QYI_GGUF_DEFAULT_ALIGNMENT = 32
};

/* Reads forward through the file; at <= gguf->n_bytes always. */
struct qyi_gguf_cursor {
    const struct qy_gguf *gguf;
    size_t at;
    struct qy_error *err;
};

/* Bytes of one value of a fixed size; 0 for strings, arrays and unknown numbers. */
size_t qyi_gguf_type_bytes(uint32_t type);
/* text, clipped and without bytes that a terminal would act on, into out. Returns out. */
enum { QYI_GGUF_SHOWN_BYTES = 72 };
const char *qyi_gguf_show(struct qy_text text, char out[QYI_GGUF_SHOWN_BYTES]);
/* -1, 0, 1 by bytes, then by length. */
int qyi_gguf_compare(struct qy_text a, struct qy_text b);

/* Fails with QY_ERR_CORRUPT when fewer than bytes remain; what says what should be there. */
QY_MUST enum qy_status qyi_gguf_need(const struct qyi_gguf_cursor *cursor, uint64_t bytes,
                                     const char *what);
QY_MUST enum qy_status qyi_gguf_read_u32(struct qyi_gguf_cursor *cursor, const char *what,
                                         uint32_t *out);
QY_MUST enum qy_status qyi_gguf_read_u64(struct qyi_gguf_cursor *cursor, const char *what,
                                         uint64_t *out);
QY_MUST enum qy_status qyi_gguf_read_text(struct qyi_gguf_cursor *cursor, const char *what,
                                          uint64_t min_bytes, uint64_t max_bytes,
                                          struct qy_text *out);

/* gguf_metadata.c: n_values values into gguf->values, sorted into gguf->value_order. */
QY_MUST enum qy_status qyi_gguf_read_values(struct qy_gguf *gguf, struct qyi_gguf_cursor *cursor,
                                            uint64_t n_values);
/* gguf_tensors.c: the table, with every tensor inside the file and apart from the others. */
QY_MUST enum qy_status qyi_gguf_read_tensors(struct qy_gguf *gguf, struct qyi_gguf_cursor *cursor,
                                             uint64_t n_tensors);

/* Sorts order [n] with less(gguf, a, b); in place, n log n whatever the input. */
typedef int (*qyi_gguf_less)(const struct qy_gguf *gguf, uint32_t a, uint32_t b);
void qyi_gguf_sort(const struct qy_gguf *gguf, uint32_t *order, size_t n, qyi_gguf_less less);

#endif
