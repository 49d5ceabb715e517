/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array over an allocator, for the calls of the tokenizer that may allocate. */
#ifndef QY_MODEL_GROW_H
#define QY_MODEL_GROW_H

#include "runtime/runtime.h"

/* A plain value; zeroed but for mem and element_bytes it is empty. Freed with qyi_array_free. */
struct qyi_array {
    const struct qy_allocator *mem; /* kept */
    void *data;
    size_t n, capacity, element_bytes;
};

/* Makes room for n_more elements after the first n. 0, or -1 when there is no memory. */
int qyi_array_reserve(struct qyi_array *array, size_t n_more);
void qyi_array_free(struct qyi_array *array);

static inline int qyi_array_add_i32(struct qyi_array *array, int32_t value)
{
    if (array->n == array->capacity && qyi_array_reserve(array, 1) != 0) {
        return -1;
    }
    ((int32_t *)array->data)[array->n++] = value;
    return 0;
}

static inline int qyi_array_add_u32(struct qyi_array *array, uint32_t value)
{
    if (array->n == array->capacity && qyi_array_reserve(array, 1) != 0) {
        return -1;
    }
    ((uint32_t *)array->data)[array->n++] = value;
    return 0;
}

#endif
