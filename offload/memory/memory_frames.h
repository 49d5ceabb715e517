/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a memory server, cut into frames of one size, and what each is used for.
 *
 *   free -> coming (a block arrives) -> held -> dirty -> free
 *                                        |        ^
 *                                        v        |
 *                                      leaving (given back while an answer is sent from it)
 *
 * Dirty frames are cleared one by one, when there is time or when no other frame is left: giving back a
 * long sequence at once takes longer than others may be kept waiting.
 */
#ifndef QYI_OFFLOAD_MEMORY_FRAMES_H
#define QYI_OFFLOAD_MEMORY_FRAMES_H

#include "runtime/runtime.h"

struct qyi_frame {
    uint32_t pins; /* answers that are sent from it */
    uint32_t state;
};

struct qyi_frames {
    const struct qy_runtime *rt;
    uint64_t bytes;
    struct qy_pool *pool; /* NULL: no size is set, and nothing below is */
    size_t frame_bytes;
    uint32_t n;
    struct qyi_frame *frames; /* [n]   */
    uint32_t *dirty;          /* stack */
    uint32_t n_dirty;
};

/* Memory of rt and bytes are set before. */
void qyi_frames_close(struct qyi_frames *frames);
/* Cuts it anew. QY_AGAIN: frames of another size are in use. QY_ERR_INVALID: not one fits. QY_ERR_NOMEM.
 * [alloc] */
QY_MUST enum qy_status qyi_frames_size(struct qyi_frames *frames, size_t frame_bytes,
                                       struct qy_error *err);
uint32_t qyi_frames_free(const struct qyi_frames *frames);
/* A frame for a block that comes; NULL: none is free. What it holds is all 0. [noalloc] */
uint8_t *qyi_frames_take(struct qyi_frames *frames);
/* The frame that a block comes into, if this is the address of one; else NULL. */
uint8_t *qyi_frames_coming(const struct qyi_frames *frames, const void *address);
void qyi_frames_keep(struct qyi_frames *frames, const uint8_t *frame); /* it has come */
/* Gives it back, come or not. */
void qyi_frames_give(struct qyi_frames *frames, const uint8_t *frame);
/* While it is pinned nobody else gets it. */
void qyi_frames_pin(struct qyi_frames *frames, const uint8_t *frame);
void qyi_frames_unpin(struct qyi_frames *frames, const uint8_t *frame);
/* Clears dirty frames: one, and more up to a few MiB. How many are left. */
uint32_t qyi_frames_clean(struct qyi_frames *frames);

#endif
