/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF writer of the tests; see the header. */
#include "tests/support/make_gguf_writer.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *grow(struct gguf_bytes *b, size_t n)
{
    if (b->room - b->n < n || !b->data) {
        b->room = 2 * (b->n + n) + 64;
        b->data = realloc(b->data, b->room);
        if (!b->data) {
            abort();
        }
    }
    uint8_t *at = b->data + b->n;
    b->n += n;
    return at;
}

void gguf_bytes_put(struct gguf_bytes *b, const void *data, size_t n)
{
    uint8_t *at = grow(b, n);

    if (n > 0) {
        memcpy(at, data, n);
    }
}

static void put_u32(struct gguf_bytes *b, uint32_t value)
{
    gguf_bytes_put(b, &value, sizeof(value));
}

static void put_u64(struct gguf_bytes *b, uint64_t value)
{
    gguf_bytes_put(b, &value, sizeof(value));
}

void gguf_bytes_put_text(struct gguf_bytes *b, const char *data, size_t n)
{
    put_u64(b, n);
    gguf_bytes_put(b, data, n);
}

static void pad(struct gguf_bytes *b, size_t n)
{
    memset(grow(b, n), 0, n);
}

void gguf_writer_init(struct gguf_writer *w, uint32_t version, uint32_t alignment)
{
    memset(w, 0, sizeof(*w));
    w->version = version;
    w->alignment = alignment;
}

uint8_t *gguf_writer_finish(struct gguf_writer *w, size_t *n_bytes)
{
    struct gguf_bytes file = {0};

    gguf_bytes_put(&file, "GGUF", 4);
    put_u32(&file, w->version);
    put_u64(&file, w->n_tensors);
    put_u64(&file, w->n_values);
    gguf_bytes_put(&file, w->values.data, w->values.n);
    gguf_bytes_put(&file, w->table.data, w->table.n);
    if (file.n % w->alignment != 0) {
        pad(&file, w->alignment - file.n % w->alignment);
    }
    gguf_bytes_put(&file, w->data.data, w->data.n);
    free(w->values.data);
    free(w->table.data);
    free(w->data.data);
    memset(w, 0, sizeof(*w));
    *n_bytes = file.n;
    return file.data;
}

static void put_key(struct gguf_writer *w, const char *key, uint32_t type)
{
    gguf_bytes_put_text(&w->values, key, strlen(key));
    put_u32(&w->values, type);
    w->n_values++;
}

void gguf_put_raw(struct gguf_writer *w, const char *key, uint32_t type, const void *bytes,
                  size_t n)
{
    put_key(w, key, type);
    gguf_bytes_put(&w->values, bytes, n);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    gguf_put_raw(w, key, QY_GGUF_U32, &value, sizeof(value));
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float value)
{
    gguf_put_raw(w, key, QY_GGUF_F32, &value, sizeof(value));
}

void gguf_put_bool(struct gguf_writer *w, const char *key, int value)
{
    const uint8_t byte = value != 0;

    gguf_put_raw(w, key, QY_GGUF_BOOL, &byte, sizeof(byte));
}

void gguf_put_text(struct gguf_writer *w, const char *key, const char *value)
{
    put_key(w, key, QY_GGUF_STRING);
    gguf_bytes_put_text(&w->values, value, strlen(value));
}

void gguf_put_array(struct gguf_writer *w, const char *key, uint32_t element, uint64_t count,
                    const void *bytes, size_t n)
{
    put_key(w, key, QY_GGUF_ARRAY);
    put_u32(&w->values, element);
    put_u64(&w->values, count);
    gguf_bytes_put(&w->values, bytes, n);
}

void gguf_put_texts(struct gguf_writer *w, const char *key, const struct qy_text *texts, size_t n)
{
    struct gguf_bytes all = {0};

    for (size_t i = 0; i < n; i++) {
        gguf_bytes_put_text(&all, texts[i].data, texts[i].bytes);
    }
    gguf_put_array(w, key, QY_GGUF_STRING, n, all.data, all.n);
    free(all.data);
}

void gguf_put_entry(struct gguf_writer *w, const char *name, uint32_t n_dims, const uint64_t *dims,
                    uint32_t type, uint64_t offset)
{
    gguf_bytes_put_text(&w->table, name, strlen(name));
    put_u32(&w->table, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) {
        put_u64(&w->table, dims[i]);
    }
    put_u32(&w->table, type);
    put_u64(&w->table, offset);
    w->n_tensors++;
}

uint8_t *gguf_put_tensor(struct gguf_writer *w, const char *name, uint32_t n_dims,
                         const uint64_t *dims, uint32_t type, size_t bytes)
{
    if (w->data.n % w->alignment != 0) {
        pad(&w->data, w->alignment - w->data.n % w->alignment);
    }
    gguf_put_entry(w, name, n_dims, dims, type, w->data.n);
    uint8_t *at = grow(&w->data, bytes);
    memset(at, 0, bytes);
    return at;
}
