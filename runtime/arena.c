/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bump allocation for one step: mark, take, rewind. It never frees a single piece and never grows.
 */
#include "runtime/runtime.h"

#include <assert.h>

void qy_arena_init(struct qy_arena *arena, void *base, size_t bytes)
{
    arena->base = base;
    arena->bytes = bytes;
    arena->used = 0;
    arena->high_water = 0;
}

void *qy_arena_take(struct qy_arena *arena, size_t bytes, size_t align)
{
    /* The address is aligned, not the offset: base may be less aligned than the caller asks. */
    size_t at = (size_t)((uintptr_t)arena->base + arena->used);
    size_t pad = (align - (at & (align - 1))) & (align - 1);
    size_t left = arena->bytes - arena->used;
    size_t round;

    assert(align > 0 && (align & (align - 1)) == 0);
    if (arena->base == NULL || bytes > SIZE_MAX - (align - 1)) {
        return NULL;
    }
    round = (bytes + align - 1) & ~(align - 1);
    if (pad > left || round > left - pad) { /* this form cannot overflow */
        return NULL;
    }
    arena->used += pad + round;
    if (arena->used > arena->high_water) {
        arena->high_water = arena->used;
    }
    return arena->base + (arena->used - round);
}

size_t qy_arena_mark(const struct qy_arena *arena)
{
    return arena->used;
}

void qy_arena_rewind(struct qy_arena *arena, size_t mark)
{
    assert(mark <= arena->used);
    arena->used = mark;
}
