/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata of a GGUF file: the checked cursor, and the list of values. Values stay where they
 * are in the file; what is built is a table of places. Nothing is read past the end, and nothing
 * is allocated before the file was seen to hold it.
 */
#include "model/gguf_file.h"

#include <string.h>

size_t qyi_gguf_type_bytes(uint32_t type)
{
    switch (type) {
    case QY_GGUF_U8:
    case QY_GGUF_I8:
    case QY_GGUF_BOOL:
        return 1;
    case QY_GGUF_U16:
    case QY_GGUF_I16:
        return 2;
    case QY_GGUF_U32:
    case QY_GGUF_I32:
    case QY_GGUF_F32:
        return 4;
    case QY_GGUF_U64:
    case QY_GGUF_I64:
    case QY_GGUF_F64:
        return 8;
    default:
        return 0;
    }
}

const char *qyi_gguf_show(struct qy_text text, char out[QYI_GGUF_SHOWN_BYTES])
{
    const size_t n = text.bytes < QYI_GGUF_SHOWN_BYTES ? text.bytes : QYI_GGUF_SHOWN_BYTES - 1;

    for (size_t i = 0; i < n; i++) {
        const char c = text.data[i];
        out[i] = (char)(c >= ' ' && c <= '~' ? c : '?');
    }
    out[n] = '\0';
    return out;
}

/* ---- the cursor ---- */

enum qy_status qyi_gguf_need(const struct qyi_gguf_cursor *cursor, uint64_t bytes, const char *what)
{
    const size_t left = cursor->gguf->n_bytes - cursor->at;

    if (bytes <= left) {
        return QY_OK;
    }
    return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                        "file '%s': %s at offset %zu takes %llu bytes; %zu are left; the file is "
                        "damaged or not whole",
                        cursor->gguf->name, what, cursor->at, (unsigned long long)bytes, left);
}

enum qy_status qyi_gguf_read_u32(struct qyi_gguf_cursor *cursor, const char *what, uint32_t *out)
{
    const enum qy_status st = qyi_gguf_need(cursor, sizeof(*out), what);

    if (st == QY_OK) {
        memcpy(out, cursor->gguf->bytes + cursor->at, sizeof(*out));
        cursor->at += sizeof(*out);
    }
    return st;
}

enum qy_status qyi_gguf_read_u64(struct qyi_gguf_cursor *cursor, const char *what, uint64_t *out)
{
    const enum qy_status st = qyi_gguf_need(cursor, sizeof(*out), what);

    if (st == QY_OK) {
        memcpy(out, cursor->gguf->bytes + cursor->at, sizeof(*out));
        cursor->at += sizeof(*out);
    }
    return st;
}

enum qy_status qyi_gguf_read_text(struct qyi_gguf_cursor *cursor, const char *what,
                                  uint64_t min_bytes, uint64_t max_bytes, struct qy_text *out)
{
    const size_t at = cursor->at;
    uint64_t bytes;
    enum qy_status st = qyi_gguf_read_u64(cursor, what, &bytes);

    if (st == QY_OK && (bytes < min_bytes || bytes > max_bytes)) {
        return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                            "file '%s': %s at offset %zu has %llu bytes; %llu to %llu are accepted",
                            cursor->gguf->name, what, at, (unsigned long long)bytes,
                            (unsigned long long)min_bytes, (unsigned long long)max_bytes);
    }
    if (st == QY_OK) {
        st = qyi_gguf_need(cursor, bytes, what);
    }
    if (st == QY_OK) {
        out->data = (const char *)cursor->gguf->bytes + cursor->at;
        out->bytes = (size_t)bytes;
        cursor->at += (size_t)bytes;
    }
    return st;
}

/* ---- values ---- */

static enum qy_status bad_type(const struct qyi_gguf_cursor *cursor, struct qy_text key,
                               const char *what, uint32_t type, size_t at)
{
    char shown[QYI_GGUF_SHOWN_BYTES];

    return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                        "file '%s': value '%s': %s %u at offset %zu; 0 to %d are accepted",
                        cursor->gguf->name, qyi_gguf_show(key, shown), what, type, at,
                        (int)QY_GGUF_F64);
}

/* A bool is one byte, 0 or 1. */
static enum qy_status check_bools(const struct qyi_gguf_cursor *cursor,
                                  const struct qy_gguf_value *value)
{
    char shown[QYI_GGUF_SHOWN_BYTES];

    for (size_t i = 0; i < value->bytes; i++) {
        if (value->data[i] > 1) {
            return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                                "file '%s': value '%s': bool %u at offset %zu; 0 and 1 are "
                                "accepted",
                                cursor->gguf->name, qyi_gguf_show(value->key, shown),
                                value->data[i], (size_t)(value->data + i - cursor->gguf->bytes));
        }
    }
    return QY_OK;
}

/* The count elements at the cursor; sets value->bytes and moves on. */
static enum qy_status read_elements(struct qyi_gguf_cursor *cursor, struct qy_gguf_value *value)
{
    const size_t element_bytes = qyi_gguf_type_bytes(value->element);
    const size_t begin = cursor->at;
    const size_t left = cursor->gguf->n_bytes - begin;
    const size_t least = element_bytes ? element_bytes : sizeof(uint64_t);
    enum qy_status st = QY_OK;
    char shown[QYI_GGUF_SHOWN_BYTES];

    if (value->count > left / least) {
        return qy_error_set(
            cursor->err, QY_ERR_CORRUPT,
            "file '%s': value '%s': %llu elements at offset %zu; at most %zu fit in "
            "what is left; the file is damaged or not whole",
            cursor->gguf->name, qyi_gguf_show(value->key, shown), (unsigned long long)value->count,
            begin, left / least);
    }
    value->data = cursor->gguf->bytes + begin;
    if (element_bytes) {
        value->bytes = (size_t)value->count * element_bytes;
        cursor->at += value->bytes;
        return value->element == QY_GGUF_BOOL ? check_bools(cursor, value) : QY_OK;
    }
    for (uint64_t i = 0; i < value->count && st == QY_OK; i++) {
        struct qy_text text;
        st = qyi_gguf_read_text(cursor, "a string", 0, UINT64_MAX, &text);
    }
    value->bytes = cursor->at - begin;
    return st;
}

static enum qy_status read_value(struct qyi_gguf_cursor *cursor, struct qy_gguf_value *value)
{
    uint32_t type;
    enum qy_status st = qyi_gguf_read_text(cursor, "a key", 1, QYI_GGUF_KEY_BYTES, &value->key);

    if (st == QY_OK) {
        st = qyi_gguf_read_u32(cursor, "the type of a value", &type);
    }
    if (st != QY_OK) {
        return st;
    }
    if (type > QY_GGUF_F64) {
        return bad_type(cursor, value->key, "type", type, cursor->at - 4);
    }
    value->type = (enum qy_gguf_type)type;
    value->element = value->type;
    value->count = 1;
    if (type == QY_GGUF_ARRAY) {
        st = qyi_gguf_read_u32(cursor, "the type of an array", &type);
        if (st != QY_OK) {
            return st;
        }
        if (type == QY_GGUF_ARRAY) {
            char shown[QYI_GGUF_SHOWN_BYTES];
            return qy_error_set(cursor->err, QY_ERR_UNSUPPORTED,
                                "file '%s': value '%s': an array of arrays at offset %zu; arrays "
                                "of numbers, bools and strings are read",
                                cursor->gguf->name, qyi_gguf_show(value->key, shown), cursor->at);
        }
        if (type > QY_GGUF_F64) {
            return bad_type(cursor, value->key, "array of type", type, cursor->at - 4);
        }
        value->element = (enum qy_gguf_type)type;
        st = qyi_gguf_read_u64(cursor, "the length of an array", &value->count);
        if (st != QY_OK) {
            return st;
        }
    }
    return read_elements(cursor, value);
}

static int key_less(const struct qy_gguf *gguf, uint32_t a, uint32_t b)
{
    return qyi_gguf_compare(gguf->values[a].key, gguf->values[b].key) < 0;
}

enum qy_status qyi_gguf_read_values(struct qy_gguf *gguf, struct qyi_gguf_cursor *cursor,
                                    uint64_t n_values)
{
    const size_t n = (size_t)n_values;
    char shown[QYI_GGUF_SHOWN_BYTES];

    if (n == 0) {
        return QY_OK;
    }
    gguf->values = qy_alloc_zero(&gguf->mem, n * sizeof(*gguf->values));
    gguf->value_order = qy_alloc_zero(&gguf->mem, n * sizeof(*gguf->value_order));
    if (!gguf->values || !gguf->value_order) {
        return qy_error_set(cursor->err, QY_ERR_NOMEM, "file '%s': no memory for %zu values",
                            gguf->name, n);
    }
    for (size_t i = 0; i < n; i++) {
        const enum qy_status st = read_value(cursor, &gguf->values[i]);
        if (st != QY_OK) {
            return st;
        }
        gguf->value_order[i] = (uint32_t)i;
    }
    qyi_gguf_sort(gguf, gguf->value_order, n, key_less);
    for (size_t i = 1; i < n; i++) {
        const struct qy_text key = gguf->values[gguf->value_order[i]].key;
        if (qyi_gguf_compare(gguf->values[gguf->value_order[i - 1]].key, key) == 0) {
            return qy_error_set(cursor->err, QY_ERR_CORRUPT,
                                "file '%s': key '%s' is there twice (again at offset %zu)",
                                gguf->name, qyi_gguf_show(key, shown),
                                (size_t)((const uint8_t *)key.data - gguf->bytes));
        }
    }
    gguf->n_values = n;
    return QY_OK;
}
