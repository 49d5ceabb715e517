/* SPDX-License-Identifier: Apache-2.0 */
/* Merging of neighbours by priority. What merges with what is the caller's (bpe.c, spm.c). */
#include "model/merge.h"

#define NO_SYMBOL UINT32_MAX

void qyi_merger_init(struct qyi_merger *merger, const struct qy_allocator *mem)
{
    struct qyi_array symbols = {.mem = mem, .element_bytes = sizeof(struct qyi_symbol)};
    struct qyi_array heap = {.mem = mem, .element_bytes = sizeof(struct qyi_merge)};
    merger->symbols = symbols;
    merger->heap = heap;
}

void qyi_merger_fini(struct qyi_merger *merger)
{
    qyi_array_free(&merger->symbols);
    qyi_array_free(&merger->heap);
}

struct qyi_symbol *qyi_merger_begin(struct qyi_merger *merger, size_t n)
{
    merger->symbols.n = 0;
    merger->heap.n = 0;
    /* n - 1 pairs at first; each merge takes one entry out and puts at most two in. */
    if (qyi_array_reserve(&merger->symbols, n) != 0 ||
        qyi_array_reserve(&merger->heap, 2 * n) != 0) {
        return NULL;
    }
    merger->symbols.n = n;
    return merger->symbols.data;
}

static void heap_push(struct qyi_array *heap, struct qyi_merge merge)
{
    struct qyi_merge *entries = heap->data;
    size_t at = heap->n++;
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (entries[parent].order <= merge.order) {
            break;
        }
        entries[at] = entries[parent];
        at = parent;
    }
    entries[at] = merge;
}

static struct qyi_merge heap_pop(struct qyi_array *heap)
{
    struct qyi_merge *entries = heap->data;
    struct qyi_merge top = entries[0];
    struct qyi_merge moved = entries[--heap->n];
    size_t at = 0;
    for (size_t child = 1; child < heap->n; child = 2 * at + 1) {
        if (child + 1 < heap->n && entries[child + 1].order < entries[child].order) {
            child++;
        }
        if (moved.order <= entries[child].order) {
            break;
        }
        entries[at] = entries[child];
        at = child;
    }
    entries[at] = moved;
    return top;
}

static void consider(struct qyi_merger *merger, uint32_t left, qyi_merge_fn find, const void *ctx)
{
    const struct qyi_symbol *symbols = merger->symbols.data;
    uint32_t right = left == NO_SYMBOL ? NO_SYMBOL : symbols[left].next;
    uint32_t priority;
    struct qyi_merge merge;
    if (right != NO_SYMBOL && symbols[left].id != QYI_SYMBOL_LONE &&
        symbols[right].id != QYI_SYMBOL_LONE &&
        find(ctx, &symbols[left], &symbols[right], &priority, &merge.id)) {
        merge.order = (uint64_t)priority << 32 | left;
        merge.bytes = symbols[left].bytes + symbols[right].bytes;
        heap_push(&merger->heap, merge);
    }
}

void qyi_merger_run(struct qyi_merger *merger, qyi_merge_fn find, const void *ctx)
{
    struct qyi_symbol *symbols = merger->symbols.data;
    uint32_t n = (uint32_t)merger->symbols.n;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i].prev = i == 0 ? NO_SYMBOL : i - 1;
        symbols[i].next = i + 1 == n ? NO_SYMBOL : i + 1;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        consider(merger, i, find, ctx);
    }
    while (merger->heap.n > 0) {
        struct qyi_merge merge = heap_pop(&merger->heap);
        uint32_t left = (uint32_t)merge.order;
        uint32_t right = symbols[left].next;
        if (symbols[left].bytes == 0 || right == NO_SYMBOL ||
            symbols[left].bytes + symbols[right].bytes != merge.bytes) {
            continue;
        }
        symbols[left].bytes = merge.bytes;
        symbols[left].id = merge.id;
        symbols[left].next = symbols[right].next;
        symbols[right].bytes = 0;
        if (symbols[right].next != NO_SYMBOL) {
            symbols[symbols[right].next].prev = left;
        }
        consider(merger, symbols[left].prev, find, ctx);
        consider(merger, left, find, ctx);
    }
}
