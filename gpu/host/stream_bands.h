/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a streaming product goes over its rows, for every vector kernel set: in bands of at most
 * max_band rows of activations, each band over all rows of weights. The including file defines
 * tile(R, M, ...), whose registers are its own.
 */
#ifndef QY_GPU_HOST_STREAM_BANDS_H
#define QY_GPU_HOST_STREAM_BANDS_H

#include <stddef.h>
#include <stdint.h>

/* M rows of activations by all rows of weights, R at a time. */
#define DEFINE_BAND(R, M)                                                                          \
    static void band_##M(const float *w, uint32_t rows, uint32_t n_in, const float *x, float *y,   \
                         size_t ldy)                                                               \
    {                                                                                              \
        for (uint32_t r = 0; r < rows; r += R) {                                                   \
            tile(R, M, w + (size_t)r * n_in, rows - r < R ? rows - r : R, n_in, x, y + r, ldy);    \
        }                                                                                          \
    }

typedef void (*band_fn)(const float *w, uint32_t rows, uint32_t n_in, const float *x, float *y,
                        size_t ldy);

/* band [max_band] by height, 1 first. Bands are of nearly equal height: with at most 6, 8 rows are
 * 4 + 4, not 6 + 2. */
static inline void multiply_bands(const band_fn *band, uint32_t max_band, const float *w,
                                  uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                                  float *y, size_t ldy)
{
    for (uint32_t left = (m + max_band - 1) / max_band; left > 0; left--) {
        const uint32_t height = m / left;
        band[height - 1](w, rows, n_in, x, y, ldy);
        x += (size_t)height * n_in;
        y += (size_t)height * ldy;
        m -= height;
    }
}

#endif
