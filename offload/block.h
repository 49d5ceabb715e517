/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks and the home they live in. The host home is one pool of blocks in this process's memory;
 * a block is used where it lies, tails included (unified devices).
 *
 * A block is *open* while it is a tail and *sealed* when full. (id, generation) names its content:
 * the generation goes up when the block is given back, and when a sealed block is opened again.
 */
#ifndef QYI_OFFLOAD_BLOCK_H
#define QYI_OFFLOAD_BLOCK_H

#include "offload/layout.h"

/* Ids are places in the pool. With a disk tier (home_far.h) there are more ids than places, and `frames`
 * says which place a block has, if any. */
struct qyi_home {
    struct qy_pool *pool;
    uint32_t n_ids;
    uint64_t *generations; /* [n_ids] */
    uint32_t *frames;      /* [n_ids] place in the pool, or QYI_NO_FRAME; NULL: the id itself */
    uint32_t *free_ids;    /* stack; NULL as above */
    uint32_t n_free_ids;
    struct qyi_layout layout;
    struct qy_allocator mem;
};

#define QYI_NO_FRAME UINT32_MAX

/* A pool of n_blocks on the NUMA node where the team runs, and n_ids names for blocks, at least as
 * many. home is zeroed on failure. */
QY_MUST enum qy_status qyi_home_open(const struct qy_runtime *rt, const struct qyi_layout *layout,
                                     uint32_t n_blocks, uint32_t n_ids, struct qyi_home *home,
                                     struct qy_error *err);
void qyi_home_close(struct qyi_home *home);
/* n blocks, their ids and addresses, all or none. QY_AGAIN: not so many are free. [noalloc] */
QY_MUST enum qy_status qyi_home_get(struct qyi_home *home, uint32_t n, uint32_t *ids,
                                    uint8_t **addresses);
/* clean != 0: nothing was written to the block since qyi_home_get. [noalloc] */
void qyi_home_put(struct qyi_home *home, uint32_t id, int clean);
/* With a disk tier: a block without a place gets one (QY_AGAIN: none is free), or leaves its own, which is
 * zeroed. [noalloc] */
QY_MUST enum qy_status qyi_home_take_frame(struct qyi_home *home, uint32_t id, uint8_t **address);
void qyi_home_give_frame(struct qyi_home *home, uint32_t id);
uint32_t qyi_home_free_ids(const struct qyi_home *home);

static inline struct qyi_footer *qyi_block_footer(const struct qyi_layout *layout, uint8_t *block)
{
    return (struct qyi_footer *)(void *)(block + layout->footer_at);
}

static inline uint64_t *qyi_block_sums(const struct qyi_layout *layout, uint8_t *block)
{
    return (uint64_t *)(void *)(block + layout->footer_at + sizeof(struct qyi_footer));
}

/* block_sums.c: what checksum i of a block's footer has to be: of slab i of rows, then of those of the
 * index. [any] [noalloc] */
uint64_t qyi_block_sum(const struct qyi_layout *layout, const uint8_t *block, size_t i);
/* The first that differs from the footer's; SIZE_MAX: none. team may be NULL. [noalloc] */
size_t qyi_block_bad_sum(struct qy_team *team, const struct qyi_layout *layout, uint8_t *block);

#endif
