/* SPDX-License-Identifier: Apache-2.0 */
/* Opening GGUF files that may be wrong; see the header. */
#include "tests/support/test.h"

#include "tests/unit/model/gguf_try.h"

#include <stdlib.h>
#include <string.h>

/* ---- an allocator that counts bytes ---- */

struct count {
    size_t asked; /* bytes of all allocations together */
    long live;
};

static void *count_alloc(void *ctx, size_t bytes, size_t align)
{
    const struct qy_allocator heap = qy_allocator_system();
    struct count *count = ctx;
    void *ptr = heap.alloc(heap.ctx, bytes, align);

    count->asked += bytes;
    count->live += ptr != NULL;
    return ptr;
}

static void count_free(void *ctx, void *ptr)
{
    const struct qy_allocator heap = qy_allocator_system();
    struct count *count = ctx;

    count->live -= ptr != NULL;
    heap.free(heap.ctx, ptr);
}

/* Reads everything that the accessors give, as a user would. */
static uint64_t walk(const struct qy_gguf *gguf)
{
    uint64_t sum = qy_gguf_hash(gguf);

    for (size_t i = 0; i < qy_gguf_n_values(gguf); i++) {
        const struct qy_gguf_value *value = qy_gguf_value_at(gguf, i);
        struct qy_text text;
        size_t cursor = 0;
        while (qy_gguf_next_text(value, &cursor, &text) == 0) {
            sum += qy_checksum(text.data, text.bytes, sum);
        }
        for (uint64_t j = 0; value->element != QY_GGUF_STRING && j < value->count; j++) {
            sum += qy_gguf_number_at(value, j) > 0.0;
        }
    }
    for (size_t i = 0; i < qy_gguf_n_tensors(gguf); i++) {
        const struct qy_gguf_tensor *tensor = qy_gguf_tensor_at(gguf, i);
        sum += qy_checksum(tensor->data, (size_t)tensor->bytes, sum);
    }
    return sum;
}

enum qy_status gguf_try_open(const uint8_t *bytes, size_t n, struct qy_error *err)
{
    struct count count = {0};
    const struct qy_allocator mem = {.ctx = &count, .alloc = count_alloc, .free = count_free};
    struct qy_gguf *gguf = NULL;
    uint8_t *copy = malloc(n + (n == 0));

    assert_non_null(copy);
    memcpy(copy, bytes, n);
    memset(err, 0, sizeof(*err));
    const enum qy_status st = qy_gguf_open_memory(&mem, copy, n, "t.gguf", &gguf, err);
    if (st == QY_OK) {
        (void)walk(gguf);
        qy_gguf_close(gguf);
    } else {
        assert_null(gguf);
        assert_int_equal(err->status, st);
        assert_non_null(strstr(err->text, "t.gguf"));
    }
    assert_int_equal(count.live, 0);
    assert_true(count.asked <= 8 * n + 1024);
    free(copy);
    return st;
}

void gguf_expect_refused(struct gguf_writer *w, enum qy_status status, const char *words)
{
    struct qy_error err;
    size_t n;
    uint8_t *bytes = gguf_writer_finish(w, &n);
    const enum qy_status st = gguf_try_open(bytes, n, &err);

    free(bytes);
    if (st != status || !strstr(err.text, words)) {
        fail_msg("expected %s with '%s'; got %s '%s'", qy_status_name(status), words,
                 qy_status_name(st), err.text);
    }
}
