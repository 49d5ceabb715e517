/* SPDX-License-Identifier: Apache-2.0 */
/* How long a kernel takes: the middle of some calls, after two that warm up. */
#include "serve/bench/bench.h"

enum { WARM = 2, RUNS = 33 };

enum qy_status qyi_bench_measure(struct qyi_bench_target *target,
                                 const struct qyi_bench_kernel *kernel, void *data,
                                 struct qy_error *err)
{
    struct qy_device *dev = kernel->solo ? target->solo : target->team;
    uint64_t samples[RUNS];

    for (uint32_t i = 0; i < WARM + RUNS; i++) {
        const uint64_t begin = qy_clock_ns();
        const enum qy_status st = kernel->run(data, dev, i);
        if (st != QY_OK) {
            return qy_error_set(err, st, "bench %s: %s", kernel->name, qy_status_name(st));
        }
        if (i >= WARM) {
            samples[i - WARM] = qy_clock_ns() - begin;
        }
    }
    qyi_bench_report(&target->report, kernel->name, qyi_bench_median(samples, RUNS), kernel->bytes,
                     kernel->solo ? target->ceiling_solo : target->ceiling, 0);
    return QY_OK;
}

enum qy_status qyi_bench_measure_all(struct qyi_bench_target *target,
                                     const struct qyi_bench_kernel *kernels, size_t n, void *data,
                                     struct qy_error *err)
{
    enum qy_status st = QY_OK;

    for (size_t i = 0; st == QY_OK && i < n && !qyi_interrupted(); i++) {
        st = qyi_bench_measure(target, &kernels[i], data, err);
    }
    return st;
}
