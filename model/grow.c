/* SPDX-License-Identifier: Apache-2.0 */
/* The growing array of the tokenizer's scratch and results. */
#include "model/grow.h"

#include <string.h>

int qyi_array_reserve(struct qyi_array *array, size_t n_more)
{
    size_t limit = SIZE_MAX / 2 / array->element_bytes;
    if (n_more > limit || array->n > limit - n_more) {
        return -1;
    }
    size_t need = array->n + n_more;
    if (need <= array->capacity) {
        return 0;
    }
    size_t capacity = array->capacity < 64 ? 64 : array->capacity;
    while (capacity < need) {
        capacity += capacity / 2;
    }
    void *data = array->mem->alloc(array->mem->ctx, capacity * array->element_bytes, 64);
    if (data == NULL) {
        return -1;
    }
    if (array->n > 0) {
        memcpy(data, array->data, array->n * array->element_bytes);
    }
    qy_free(array->mem, array->data);
    array->data = data;
    array->capacity = capacity;
    return 0;
}

void qyi_array_free(struct qyi_array *array)
{
    qy_free(array->mem, array->data);
    array->data = NULL;
    array->n = array->capacity = 0;
}
