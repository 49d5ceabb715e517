/* SPDX-License-Identifier: Apache-2.0 */
/* See last_lists.h. */
#include "offload/step/last_lists.h"

#include <string.h>

static size_t of_sequence(const struct qyi_last_lists *lists)
{
    return (size_t)lists->n_layers * lists->n_heads;
}

uint64_t qyi_last_lists_bytes(const struct qyi_last_lists *sizes)
{
    return (uint64_t)sizes->n_sequences * of_sequence(sizes) *
           (sizeof(struct qyi_last_list) + (uint64_t)sizes->capacity * sizeof(uint32_t));
}

enum qy_status qyi_last_lists_open(const struct qy_allocator *mem, struct qyi_last_lists *lists)
{
    const size_t n = lists->n_sequences * of_sequence(lists);

    lists->lists = qy_alloc_zero(mem, n * sizeof(*lists->lists));
    lists->ids = qy_alloc_zero(mem, n * lists->capacity * sizeof(*lists->ids));
    if (!lists->lists || !lists->ids) {
        return QY_ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        lists->lists[i].ids = lists->ids + i * lists->capacity;
    }
    return QY_OK;
}

void qyi_last_lists_close(const struct qy_allocator *mem, struct qyi_last_lists *lists)
{
    qy_free(mem, lists->ids);
    qy_free(mem, lists->lists);
    lists->ids = NULL;
    lists->lists = NULL;
}

void qyi_last_list_keep(struct qyi_last_list *list, uint32_t n, uint32_t hi, const uint32_t *ids,
                        uint32_t n_ids)
{
    list->n = n;
    list->used = n;
    list->hi = hi;
    list->n_ids = n_ids;
    memcpy(list->ids, ids, n_ids * sizeof(*ids));
}

void qyi_last_lists_forget(struct qyi_last_lists *lists, uint32_t sequence, uint32_t n_tokens)
{
    for (size_t i = 0; lists->lists && i < of_sequence(lists); i++) {
        struct qyi_last_list *list = &lists->lists[sequence * of_sequence(lists) + i];

        if (list->n > n_tokens) {
            list->n = 0;
            list->n_ids = 0;
        }
        list->used = list->used > n_tokens ? 0 : list->used;
    }
}

void qyi_last_lists_copy(struct qyi_last_lists *lists, uint32_t dst, uint32_t src)
{
    for (size_t i = 0; lists->lists && i < of_sequence(lists); i++) {
        const struct qyi_last_list *from = &lists->lists[src * of_sequence(lists) + i];

        qyi_last_list_keep(&lists->lists[dst * of_sequence(lists) + i], from->n, from->hi,
                           from->ids, from->n_ids);
    }
}
