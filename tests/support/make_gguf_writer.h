/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds a GGUF file in memory: metadata values and tensors in the order they are put. For tests;
 * it checks nothing, so that it can also write files that are wrong, and it aborts when the heap
 * is empty.
 */
#ifndef QY_TESTS_SUPPORT_MAKE_GGUF_WRITER_H
#define QY_TESTS_SUPPORT_MAKE_GGUF_WRITER_H

#include "model/model.h"

struct gguf_bytes {
    uint8_t *data;
    size_t n, room;
};

struct gguf_writer {
    uint32_t version, alignment;
    uint64_t n_values, n_tensors; /* what the header will say; tests may change them */
    struct gguf_bytes values, table, data;
};

/* alignment is what tensors are placed at; other than 32 it must also be put as a value. */
void gguf_writer_init(struct gguf_writer *w, uint32_t version, uint32_t alignment);
/* The file: returned, freed with free(). The writer is empty afterwards. */
uint8_t *gguf_writer_finish(struct gguf_writer *w, size_t *n_bytes);

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_writer *w, const char *key, float value);
void gguf_put_bool(struct gguf_writer *w, const char *key, int value);
void gguf_put_text(struct gguf_writer *w, const char *key, const char *value);
/* A value of any type from its bytes in the file (host order is the file's). */
void gguf_put_raw(struct gguf_writer *w, const char *key, uint32_t type, const void *bytes,
                  size_t n);
/* An array of count elements from their bytes in the file. */
void gguf_put_array(struct gguf_writer *w, const char *key, uint32_t element, uint64_t count,
                    const void *bytes, size_t n);
void gguf_put_texts(struct gguf_writer *w, const char *key, const struct qy_text *texts, size_t n);

/* Appends an entry to the table as it is given. */
void gguf_put_entry(struct gguf_writer *w, const char *name, uint32_t n_dims, const uint64_t *dims,
                    uint32_t type, uint64_t offset);
/* Appends a tensor of bytes bytes at the next aligned offset; returns its zeroed data, valid until
 * the next call. */
uint8_t *gguf_put_tensor(struct gguf_writer *w, const char *name, uint32_t n_dims,
                         const uint64_t *dims, uint32_t type, size_t bytes);

/* Plain growing bytes, for values that tests build themselves. */
void gguf_bytes_put(struct gguf_bytes *b, const void *data, size_t n);
void gguf_bytes_put_text(struct gguf_bytes *b, const char *data, size_t n);

#endif
