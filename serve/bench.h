/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks share. */
#ifndef QY_SERVE_BENCH_H
#define QY_SERVE_BENCH_H

#include "serve/serve.h"

/* Sorts samples and returns the middle. */
uint64_t qyi_bench_median(uint64_t *samples, size_t n);
/* Read side of a copy that no cache holds, by the team (NULL: one thread), 10^9 bytes per second:
 * the ceiling of everything that reads rows. 0 when there is no memory for it. */
double qyi_bench_memcpy_gbps(struct qy_team *team);

/* Each benchmark prints its own result. */
QY_MUST enum qy_status qyi_bench_decode(struct qyi_app *app, struct qy_error *err);
QY_MUST enum qy_status qyi_bench_kernels(struct qyi_app *app, struct qy_error *err);

#endif
