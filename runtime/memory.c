/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C library's heap behind struct qy_allocator. Setup only: a step takes from an arena.
 */
#include "runtime/runtime.h"

#include <stdlib.h>
#include <string.h>

/* A cache line, and what the widest vector loads want. */
enum { ALIGN_BYTES = 64 };

static void *system_alloc(void *ctx, size_t bytes, size_t align)
{
    void *ptr = NULL;

    (void)ctx;
    if (align < sizeof(void *)) {
        align = sizeof(void *);
    }
    return posix_memalign(&ptr, align, bytes > 0 ? bytes : 1) == 0 ? ptr : NULL;
}

static void system_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

struct qy_allocator qy_allocator_system(void)
{
    return (struct qy_allocator){.ctx = NULL, .alloc = system_alloc, .free = system_free};
}

void *qy_alloc_zero(const struct qy_allocator *mem, size_t bytes)
{
    void *ptr = mem->alloc(mem->ctx, bytes > 0 ? bytes : 1, ALIGN_BYTES);

    if (ptr != NULL) {
        memset(ptr, 0, bytes);
    }
    return ptr;
}

void qy_free(const struct qy_allocator *mem, void *ptr)
{
    if (ptr != NULL) {
        mem->free(mem->ctx, ptr);
    }
}
