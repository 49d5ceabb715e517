/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of one size in one mapping, handed out by a stack of free indices: get and put are a few
 * instructions and never enter the kernel (put with zero writes the block's bytes, no more).
 * It does not count references and does not know what a block holds.
 */
#include "runtime/runtime.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

enum { BLOCK_ALIGN = 64, HUGE_BYTES = 2 << 20 };

struct qy_pool {
    struct qy_allocator mem;
    uint8_t *base; /* first block                                               */
    void *map;     /* what munmap wants: base minus what aligned it             */
    size_t map_bytes, block_bytes;
    uint32_t n_blocks, n_free;
    uint32_t least_free;  /* there ever were                                    */
    uint32_t *free_stack; /* [n_blocks], the top is at n_free - 1               */
    uint8_t *taken;       /* [n_blocks] 1 = handed out; catches a second put    */
};

/* Bytes of the blocks and of the mapping; 0 when they do not fit size_t. A mapping that can hold a
 * huge page gets room to start on one. */
static int size_mapping(const struct qy_pool_params *params, size_t *block_bytes, size_t *bytes,
                        size_t *map_bytes)
{
    size_t huge = HUGE_BYTES;

    if (params->block_bytes > SIZE_MAX - (BLOCK_ALIGN - 1)) {
        return 0;
    }
    *block_bytes = (params->block_bytes + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    if (__builtin_mul_overflow(*block_bytes, (size_t)params->n_blocks, bytes)) {
        return 0;
    }
    *map_bytes = *bytes;
    return *bytes < huge || !__builtin_add_overflow(*bytes, huge, map_bytes);
}

static enum qy_status map_blocks(struct qy_pool *pool, size_t bytes, struct qy_error *err)
{
    char text[32];

    pool->map =
        mmap(NULL, pool->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pool->map == MAP_FAILED) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "pool of %u blocks: the kernel refused a mapping of %s; ask for fewer "
                            "or smaller blocks",
                            pool->n_blocks, qy_format_size(bytes, text, sizeof(text)));
    }
    pool->base = pool->map;
    if (pool->map_bytes > bytes) {
        uintptr_t start = ((uintptr_t)pool->map + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1);

        pool->base += start - (uintptr_t)pool->map;
        /* Refused where huge pages are off: the pool then has small pages and works the same. */
        (void)madvise(pool->base, bytes, MADV_HUGEPAGE);
    }
    /* Users' text is in here, and a core dump of it would be as large as the pool. */
    (void)madvise(pool->map, pool->map_bytes, MADV_DONTDUMP);
    return QY_OK;
}

/* Only a node that does not exist is an error: a container may refuse the binding itself. */
static enum qy_status bind_blocks(struct qy_pool *pool, const struct qy_pool_params *params,
                                  size_t bytes, struct qy_error *err)
{
    if (params->topology == NULL || params->node < 0) {
        return QY_OK;
    }
    if (qy_topology_bind_memory(params->topology, pool->base, bytes, params->node) ==
        QY_ERR_NOT_FOUND) {
        return qy_error_set(err, QY_ERR_NOT_FOUND,
                            "pool on numa node '%d': no such node; -1 leaves the choice to the "
                            "kernel",
                            params->node);
    }
    return QY_OK;
}

enum qy_status qy_pool_open(const struct qy_allocator *mem, const struct qy_pool_params *params,
                            struct qy_pool **out, struct qy_error *err)
{
    struct qy_pool *pool;
    size_t block_bytes, bytes, map_bytes;
    enum qy_status st = QY_ERR_NOMEM;

    if (params->block_bytes == 0 || params->n_blocks == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "pool of %u blocks of %zu bytes: both must be above 0",
                            params->n_blocks, params->block_bytes);
    }
    if (!size_mapping(params, &block_bytes, &bytes, &map_bytes)) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "pool of %u blocks of %zu bytes: more than can be addressed",
                            params->n_blocks, params->block_bytes);
    }
    pool = qy_alloc_zero(mem, sizeof(*pool));
    if (pool == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "pool: no memory for its handle");
    }
    pool->mem = *mem;
    pool->n_blocks = params->n_blocks;
    pool->block_bytes = block_bytes;
    pool->map_bytes = map_bytes;
    pool->free_stack = qy_alloc_zero(mem, (size_t)params->n_blocks * sizeof(*pool->free_stack));
    pool->taken = qy_alloc_zero(mem, params->n_blocks);
    if (pool->free_stack == NULL || pool->taken == NULL) {
        qy_error_set(err, QY_ERR_NOMEM, "pool: no memory for the list of its %u blocks",
                     params->n_blocks);
        goto err_free;
    }
    st = map_blocks(pool, bytes, err);
    if (st != QY_OK) {
        goto err_free;
    }
    st = bind_blocks(pool, params, bytes, err);
    if (st != QY_OK) {
        goto err_unmap;
    }
    for (uint32_t i = 0; i < pool->n_blocks; i++) {
        pool->free_stack[i] = pool->n_blocks - 1 - i; /* block 0 goes out first */
    }
    pool->n_free = pool->n_blocks;
    pool->least_free = pool->n_blocks;
    *out = pool;
    return QY_OK;

err_unmap:
    munmap(pool->map, pool->map_bytes);
err_free:
    qy_free(mem, pool->taken);
    qy_free(mem, pool->free_stack);
    qy_free(mem, pool);
    return st;
}

void qy_pool_close(struct qy_pool *pool)
{
    struct qy_allocator mem;

    if (pool == NULL) {
        return;
    }
    mem = pool->mem;
    munmap(pool->map, pool->map_bytes);
    qy_free(&mem, pool->taken);
    qy_free(&mem, pool->free_stack);
    qy_free(&mem, pool);
}

enum qy_status qy_pool_get(struct qy_pool *pool, uint32_t *block)
{
    if (pool->n_free == 0) {
        return QY_AGAIN;
    }
    *block = pool->free_stack[--pool->n_free];
    if (pool->n_free < pool->least_free) {
        pool->least_free = pool->n_free;
    }
    pool->taken[*block] = 1;
    return QY_OK;
}

void qy_pool_put(struct qy_pool *pool, uint32_t block, int zero)
{
    assert(block < pool->n_blocks && pool->taken[block] == 1);
    if (zero) {
        memset(qy_pool_at(pool, block), 0, pool->block_bytes);
    }
    pool->taken[block] = 0;
    pool->free_stack[pool->n_free++] = block;
}

void *qy_pool_at(const struct qy_pool *pool, uint32_t block)
{
    assert(block < pool->n_blocks);
    return pool->base + (size_t)block * pool->block_bytes;
}

uint32_t qy_pool_free_count(const struct qy_pool *pool)
{
    return pool->n_free;
}

uint32_t qy_pool_peak(const struct qy_pool *pool)
{
    return pool->n_blocks - pool->least_free;
}

uint32_t qy_pool_total(const struct qy_pool *pool)
{
    return pool->n_blocks;
}

size_t qy_pool_block_bytes(const struct qy_pool *pool)
{
    return pool->block_bytes;
}
