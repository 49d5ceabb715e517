/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's heap with a countdown and a count of what is live. */
#include "tests/support/fail_alloc.h"

static void *count_alloc(void *ctx, size_t bytes, size_t align)
{
    struct fail_alloc *f = ctx;
    struct qy_allocator system = qy_allocator_system();
    void *ptr = NULL;

    if (f->calls != f->fail_at) {
        ptr = system.alloc(system.ctx, bytes, align);
    }
    f->calls++;
    f->live += ptr != NULL;
    return ptr;
}

static void count_free(void *ctx, void *ptr)
{
    struct fail_alloc *f = ctx;
    struct qy_allocator system = qy_allocator_system();

    f->live -= ptr != NULL;
    system.free(system.ctx, ptr);
}

struct qy_allocator fail_alloc_make(struct fail_alloc *f)
{
    return (struct qy_allocator){.ctx = f, .alloc = count_alloc, .free = count_free};
}
