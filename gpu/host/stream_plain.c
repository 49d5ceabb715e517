/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming product, plain C: a tile of f32 weight rows by rows of activations. The inner loop is
 * 16 independent sums, which compilers turn into vectors of whatever the machine has.
 */
#include "gpu/host/host.h"
#include "gpu/host/kernels.h"

enum { LANES = 16 };

static float dot(const float *a, const float *b, uint32_t n)
{
    float sum[LANES] = {0};
    uint32_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        for (int j = 0; j < LANES; j++) {
            sum[j] += a[k + j] * b[k + j];
        }
    }
    for (int j = 0; k < n; k++, j++) {
        sum[j] += a[k] * b[k];
    }
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int j = 0; j < width; j++) {
            sum[j] += sum[j + width];
        }
    }
    return sum[0];
}

void qyi_multiply_plain(const float *w, uint32_t rows, uint32_t n_in, const float *x, uint32_t m,
                        float *y, size_t ldy)
{
    for (uint32_t i = 0; i < m; i++) {
        for (uint32_t r = 0; r < rows; r++) {
            y[i * ldy + r] = dot(w + (size_t)r * n_in, x + (size_t)i * n_in, n_in);
        }
    }
}
