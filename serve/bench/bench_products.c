/* SPDX-License-Identifier: Apache-2.0 */
/* quarry bench kernels, second part: dense products with weights of the real model. */
#include <stdlib.h>

#include "serve/bench/bench.h"

/* Products with all feed-forward weights of the model: more than a core's cache holds. */
enum qy_status qyi_bench_products(struct qyi_app *app, struct qy_device *dev, double ceiling,
                                  struct qyi_bench_report *report, struct qy_error *err)
{
    enum { MAX_M = 512, MAX_LAYERS = 64 };
    static const uint32_t sizes[] = {1, 2, 4, 8, 16, 512};
    struct qyi_engine engine;
    struct qy_weight *weights[MAX_LAYERS] = {0};
    enum qy_status st = qyi_engine_open_file(app, &engine, err);
    if (st != QY_OK) {
        return st;
    }
    uint32_t n = 0, n_in = 0, n_out = 0;
    double bytes = 0;
    for (; st == QY_OK && n < MAX_LAYERS; n++) {
        char name[2][48];
        struct qy_matrix parts[2];
        snprintf(name[0], sizeof name[0], "blk.%u.ffn_gate.weight", n);
        snprintf(name[1], sizeof name[1], "blk.%u.ffn_up.weight", n);
        const struct qy_gguf_tensor *a = qy_gguf_find_tensor(engine.gguf, name[0]);
        const struct qy_gguf_tensor *b = qy_gguf_find_tensor(engine.gguf, name[1]);
        if (a == NULL || b == NULL) {
            break;
        }
        parts[0] = (struct qy_matrix){name[0], a->data, a->type, (uint32_t)a->dims[1],
                                      (uint32_t)a->dims[0]};
        parts[1] = (struct qy_matrix){name[1], b->data, b->type, (uint32_t)b->dims[1],
                                      (uint32_t)b->dims[0]};
        n_in = parts[0].n_in;
        n_out = parts[0].n_out + parts[1].n_out;
        bytes += (double)(a->bytes + b->bytes);
        st = qy_weight_open(dev, parts, 2, QY_WEIGHT_MULTIPLY, &weights[n], err);
    }
    float *x = calloc((size_t)MAX_M * (n_in + 1), sizeof *x);
    float *y = calloc((size_t)MAX_M * (n_out + 1), sizeof *y);
    for (size_t i = 0; x != NULL && i < (size_t)MAX_M * n_in; i++) {
        x[i] = (float)(i % 17) * 0.1f - 0.8f;
    }
    for (size_t s = 0; st == QY_OK && x != NULL && y != NULL && s < sizeof sizes / sizeof sizes[0];
         s++) {
        uint64_t samples[15];
        const int runs = sizes[s] > 16 ? 5 : 15;
        for (int r = -1; r < runs && st == QY_OK; r++) {
            const uint64_t begin = qy_clock_ns();
            for (uint32_t l = 0; l < n && st == QY_OK; l++) {
                st = qy_weight_multiply(dev, weights[l], x, sizes[s], y);
            }
            if (r >= 0) {
                samples[r] = qy_clock_ns() - begin;
            }
        }
        char name[64];
        snprintf(name, sizeof name, "%u x gate+up [%u x %u], m = %u", n, n_out, n_in, sizes[s]);
        qyi_bench_report(report, name, qyi_bench_median(samples, (size_t)runs), bytes, ceiling,
                         2.0 * n * n_out * n_in * sizes[s]);
    }
    free(x);
    free(y);
    for (uint32_t l = 0; l < n; l++) {
        qy_weight_close(dev, weights[l]);
    }
    qyi_engine_close(&engine);
    return st;
}
