/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_frames.h. */
#include "offload/memory/memory_frames.h"

#include <assert.h>

enum state { FREE = 0, COMING, HELD, LEAVING, DIRTY };

/* chosen: what keeps others waiting for about a millisecond */
static const size_t clean_bytes = (size_t)8 << 20;
/* chosen: 12 TiB of blocks of a small model; bounds the lists that a tiny layout could ask for */
enum { MAX_FRAMES = 1 << 22 };

void qyi_frames_close(struct qyi_frames *f)
{
    const struct qyi_frames empty = {.rt = f->rt, .bytes = f->bytes};

    if (f->pool) {
        qy_pool_close(f->pool);
        qy_free(&f->rt->mem, f->dirty);
        qy_free(&f->rt->mem, f->frames);
        *f = empty;
    }
}

enum qy_status qyi_frames_size(struct qyi_frames *f, size_t frame_bytes, struct qy_error *err)
{
    const struct qy_allocator *mem = &f->rt->mem;
    const uint64_t fit = f->bytes / frame_bytes;
    struct qyi_frames made = {.rt = f->rt, .bytes = f->bytes, .frame_bytes = frame_bytes};
    const struct qy_pool_params params = {.block_bytes = frame_bytes,
                                          .n_blocks = fit < MAX_FRAMES ? (uint32_t)fit : MAX_FRAMES,
                                          .node = -1,
                                          .topology = f->rt->topology};

    if (f->pool && f->frame_bytes == frame_bytes) {
        return QY_OK;
    }
    if (fit == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "memory of %llu bytes: a block of %zu bytes does not fit; give it more",
                            (unsigned long long)f->bytes, frame_bytes);
    }
    if (f->pool && qyi_frames_free(f) < f->n) {
        return QY_AGAIN;
    }
    qyi_frames_close(f);
    enum qy_status st = qy_pool_open(mem, &params, &made.pool, err);
    if (st != QY_OK) {
        return st;
    }
    made.n = params.n_blocks;
    made.frames = qy_alloc_zero(mem, made.n * sizeof(*made.frames));
    made.dirty = qy_alloc_zero(mem, made.n * sizeof(*made.dirty));
    if (!made.frames || !made.dirty) {
        qyi_frames_close(&made);
        return qy_error_set(err, QY_ERR_NOMEM, "memory: out of memory for the list of %u blocks",
                            params.n_blocks);
    }
    *f = made;
    return QY_OK;
}

uint32_t qyi_frames_free(const struct qyi_frames *f)
{
    return f->pool ? qy_pool_free_count(f->pool) + f->n_dirty : 0;
}

static uint32_t number_of(const struct qyi_frames *f, const void *address)
{
    const uint8_t *base = qy_pool_at(f->pool, 0);
    const size_t at = (size_t)((const uint8_t *)address - base);

    assert(at / f->frame_bytes < f->n);
    return (uint32_t)(at / f->frame_bytes);
}

static void clean_one(struct qyi_frames *f)
{
    const uint32_t i = f->dirty[--f->n_dirty];

    f->frames[i].state = FREE;
    qy_pool_put(f->pool, i, 1);
}

uint8_t *qyi_frames_take(struct qyi_frames *f)
{
    uint32_t i;

    if (qyi_frames_free(f) == 0) {
        return NULL;
    }
    if (qy_pool_free_count(f->pool) == 0) {
        clean_one(f);
    }
    if (qy_pool_get(f->pool, &i) != QY_OK) {
        return NULL;
    }
    f->frames[i] = (struct qyi_frame){.state = COMING};
    return qy_pool_at(f->pool, i);
}

uint8_t *qyi_frames_coming(const struct qyi_frames *f, const void *address)
{
    if (!f->pool || !address) {
        return NULL;
    }
    /* below the first: very large */
    const uintptr_t at = (uintptr_t)address - (uintptr_t)qy_pool_at(f->pool, 0);
    const uintptr_t i = at / f->frame_bytes;

    if (i >= f->n || at % f->frame_bytes != 0 || f->frames[i].state != COMING) {
        return NULL;
    }
    return qy_pool_at(f->pool, (uint32_t)i);
}

void qyi_frames_keep(struct qyi_frames *f, const uint8_t *frame)
{
    struct qyi_frame *info = &f->frames[number_of(f, frame)];

    assert(info->state == COMING);
    info->state = HELD;
}

void qyi_frames_give(struct qyi_frames *f, const uint8_t *frame)
{
    const uint32_t i = number_of(f, frame);
    struct qyi_frame *info = &f->frames[i];

    assert(info->state == COMING || info->state == HELD);
    if (info->pins > 0) {
        info->state = LEAVING;
    } else {
        info->state = DIRTY;
        f->dirty[f->n_dirty++] = i;
    }
}

void qyi_frames_pin(struct qyi_frames *f, const uint8_t *frame)
{
    struct qyi_frame *info = &f->frames[number_of(f, frame)];

    assert(info->state == HELD);
    info->pins++;
}

void qyi_frames_unpin(struct qyi_frames *f, const uint8_t *frame)
{
    const uint32_t i = number_of(f, frame);
    struct qyi_frame *info = &f->frames[i];

    assert(info->pins > 0);
    info->pins--;
    if (info->pins == 0 && info->state == LEAVING) {
        info->state = DIRTY;
        f->dirty[f->n_dirty++] = i;
    }
}

uint32_t qyi_frames_clean(struct qyi_frames *f)
{
    size_t done = 0;

    while (f->n_dirty > 0 && (done == 0 || done + f->frame_bytes <= clean_bytes)) {
        clean_one(f);
        done += f->frame_bytes;
    }
    return f->n_dirty;
}
