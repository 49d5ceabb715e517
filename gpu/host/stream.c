/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products on the file's blocks. Each thread takes a run of output rows and goes through it in
 * tiles: dequantize a tile of weight rows into scratch that stays in its cache, then multiply it
 * by all rows of activations. Weights come from memory once, in the size of the file, whatever m
 * is; activations are never rounded.
 *
 *   file blocks --dequantize--> tile [rows][n_in] f32 --multiply--> y [m][rows of the tile]
 */
#include "gpu/host/dense.h"

enum {
    ROW_UNIT = 8, /* rows that a kernel takes together at m = 1 */
    /* Up to this m the least tile is best: it stays in the first-level cache and the activations
     * in the second. Above, a large tile is: activations come from further away, fewer times. */
    SMALL_M = 32,
    TILE_BYTES = 256 << 10, /* of a large tile: half of the smallest second-level cache around */
    TILE_ROWS_MAX = 128
};

static uint32_t tile_rows(uint32_t n_in)
{
    const uint32_t rows = (uint32_t)(TILE_BYTES / sizeof(float)) / n_in / ROW_UNIT * ROW_UNIT;
    if (rows > TILE_ROWS_MAX) {
        return TILE_ROWS_MAX;
    }
    return rows < ROW_UNIT ? ROW_UNIT : rows;
}

static size_t tile_bytes(uint32_t n_in)
{
    return ((size_t)tile_rows(n_in) * n_in * sizeof(float) + 63) / 64 * 64;
}

size_t qyi_stream_scratch(const struct qy_device *dev, uint32_t n_in)
{
    return tile_bytes(n_in) * qy_team_size(dev->rt->team);
}

static void dequantize(const struct qyi_part *part, uint32_t first, uint32_t n, uint32_t n_in,
                       float *out)
{
    const uint8_t *blocks = part->data + first * part->row_bytes;
    const size_t n_elems = (size_t)n * n_in;
    if (part->dequantize) {
        part->dequantize(blocks, n_elems, out);
    } else {
        qy_tensor_dequantize(part->type, blocks, n_elems, out);
    }
}

/* The part that holds row, and the row's place in it. */
static const struct qyi_part *find_part(const struct qy_weight *weight, uint32_t *row)
{
    const struct qyi_part *part = weight->parts;
    while (*row >= part->n_out) {
        *row -= part->n_out;
        part++;
    }
    return part;
}

void qyi_weight_dequantize(const struct qy_weight *weight, uint32_t begin, uint32_t end, float *out)
{
    while (begin < end) {
        uint32_t first = begin;
        const struct qyi_part *part = find_part(weight, &first);
        const uint32_t here = part->n_out - first;
        const uint32_t n = here < end - begin ? here : end - begin;
        dequantize(part, first, n, weight->n_in, out);
        out += (size_t)n * weight->n_in;
        begin += n;
    }
}

struct job {
    const struct qy_device *dev;
    const struct qy_weight *weight;
    const float *x;
    float *y;
    uint32_t m;
};

static void multiply_share(void *arg, uint32_t thread, uint32_t n_threads)
{
    const struct job *job = arg;
    const struct qy_weight *weight = job->weight;
    const uint32_t n_in = weight->n_in;
    float *tile = (float *)((uint8_t *)job->dev->scratch + thread * tile_bytes(n_in));
    size_t row;
    size_t end;
    qyi_weight_share(weight, ROW_UNIT, thread, n_threads, &row, &end);
    const uint32_t step = job->m > SMALL_M ? tile_rows(n_in) : ROW_UNIT;
    while (row < end) {
        uint32_t first = (uint32_t)row;
        const struct qyi_part *part = find_part(weight, &first);
        size_t n = part->n_out - first;
        n = n < step ? n : step;
        n = n < end - row ? n : end - row;
        const float *w = tile;
        if (part->type == QY_TYPE_F32 && (uintptr_t)part->data % sizeof(float) == 0) {
            w = (const float *)(const void *)part->data + (size_t)first * n_in;
        } else {
            dequantize(part, first, (uint32_t)n, n_in, tile);
        }
        job->dev->kernels->multiply(w, (uint32_t)n, n_in, job->x, job->m, job->y + row,
                                    weight->n_out);
        row += n;
    }
}

void qyi_stream_multiply(struct qy_device *dev, const struct qy_weight *weight, const float *x,
                         uint32_t m, float *y)
{
    struct job job = {.dev = dev, .weight = weight, .x = x, .y = y, .m = m};
    qy_team_run(dev->rt->team, multiply_share, &job);
}
