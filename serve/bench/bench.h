/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks share. */
#ifndef QY_SERVE_BENCH_H
#define QY_SERVE_BENCH_H

#include "serve/serve.h"

/* Sorts samples and returns the middle. */
uint64_t qyi_bench_median(uint64_t *samples, size_t n);
/* One copy that a team shares: qy_team_run(team, qyi_bench_copy_share, &copy). */
struct qyi_bench_copy {
    uint8_t *to;
    const uint8_t *from;
    size_t bytes;
};
void qyi_bench_copy_share(void *copy, uint32_t thread, uint32_t n_threads);
/* Read side of a copy that no cache holds, by the team (NULL: one thread), 10^9 bytes per second:
 * the ceiling of everything that reads rows. 0 when there is no memory for it. */
double qyi_bench_memcpy_gbps(struct qy_team *team);

/* Steps that are timed, of a model or of a shape without one: first warm, then time, then (on a
 * discrete device) movement. */
struct qyi_bench_moved {
    uint64_t asked, found;       /* rows  */
    uint64_t to_device, to_host; /* bytes */
};
struct qyi_bench_steps {
    struct qy_cache *cache; /* borrowed */
    /* One step of all sequences; *ns: what it took. */
    enum qy_status (*step)(void *data, uint64_t *ns, struct qy_error *err);
    void *data;
    int overlap;                   /* step.overlap, as it was set */
    uint64_t n;                    /* to be timed */
    uint64_t *samples;             /* [n] ns, in order */
    uint64_t *sorted;              /* [n] scratch */
    uint64_t n_timed;              /* less than n when the program was interrupted */
    struct qy_cache_stats stats;   /* of the steps timed */
    uint32_t n_layers;             /* that `told` tells of                        */
    struct qyi_bench_moved *moved; /* [n] of the steps timed up to each one */
    cJSON *told;                   /* plan and layers of the steps timed     */
    /* Of as many pairs of steps, waits for movement: of the first, and of the second of each, which
     * has step.overlap off. */
    uint64_t waited_ns, alone_ns;
};
QY_MUST enum qy_status qyi_bench_steps_open(struct qyi_bench_steps *steps, uint64_t n,
                                            struct qy_error *err);
void qyi_bench_steps_close(struct qyi_bench_steps *steps);
/* Steps that nobody looks at, fewer when interrupted. */
QY_MUST enum qy_status qyi_bench_steps_warm(struct qyi_bench_steps *steps, uint64_t n,
                                            struct qy_error *err);
/* Resets the cache's counters, and reads them after the last step. */
QY_MUST enum qy_status qyi_bench_steps_time(struct qyi_bench_steps *steps, struct qy_error *err);
/* As many pairs of steps, the second of each with every pull waited for at once. */
QY_MUST enum qy_status qyi_bench_steps_movement(struct qyi_bench_steps *steps,
                                                struct qy_error *err);
/* What the samples say, per step. Overlap is 1 - (time compute waited for movement) / (time movement
 * takes alone); it is not clamped, and there is none (has_overlap 0) when movement alone is below a
 * floor: 2 % of the step, or the spread of the steps. */
struct qyi_bench_summary {
    double step_ms, spread_ms; /* median, and median distance from it */
    double waited_ms, alone_ms, floor_ms;
    int has_overlap;
    double overlap;
};
/* At least one step was timed. */
struct qyi_bench_summary qyi_bench_steps_summary(struct qyi_bench_steps *steps);
void qyi_bench_summary_json(const struct qyi_bench_summary *summary, const struct qyi_args *args,
                            cJSON *object);
/* Moves plan and layers of the steps timed into object, and adds steps: each one's time, hit rate and
 * bytes. */
void qyi_bench_steps_json(struct qyi_bench_steps *steps, cJSON *object);
/* Rows that select and attend read, 10^9 bytes per second of their time. */
double qyi_bench_kv_gbps(const struct qy_cache_stats *stats);
/* The line about overlap; none when nothing moves. */
void qyi_bench_overlap_print(const struct qyi_bench_summary *summary);

/* Where results go: a JSON array, and lines on stdout unless json is set. */
struct qyi_bench_report {
    cJSON *results;
    int json;
};
/* One result. flops > 0: a product, whose rate of arithmetic stands beside the bytes of its
 * weights. */
void qyi_bench_report(struct qyi_bench_report *report, const char *name, uint64_t p50, double bytes,
                      double ceiling, double flops);
QY_MUST enum qy_status qyi_bench_products(struct qyi_app *app, struct qy_device *dev,
                                          double ceiling, struct qyi_bench_report *report,
                                          struct qy_error *err);

/* What kernels are measured on, each with its ceiling, and where the results go. */
struct qyi_bench_target {
    struct qy_device *solo, *team; /* solo: a device of one thread */
    double ceiling_solo, ceiling;
    struct qyi_bench_report report;
};
struct qyi_bench_kernel {
    const char *name;
    /* One call, the `run`-th, on the data of a benchmark. */
    enum qy_status (*run)(void *data, struct qy_device *dev, uint32_t run);
    int solo;
    double bytes; /* that a call reads */
};
QY_MUST enum qy_status qyi_bench_measure(struct qyi_bench_target *target,
                                         const struct qyi_bench_kernel *kernel, void *data,
                                         struct qy_error *err);
/* Stops early when the program is interrupted. */
QY_MUST enum qy_status qyi_bench_measure_all(struct qyi_bench_target *target,
                                             const struct qyi_bench_kernel *kernels, size_t n,
                                             void *data, struct qy_error *err);
/* Codes of quantizers. */
QY_MUST enum qy_status qyi_bench_codes(struct qyi_bench_target *target, struct qy_error *err);
/* 4-bit keys and page bounds. */
QY_MUST enum qy_status qyi_bench_keys(struct qyi_bench_target *target, struct qy_error *err);
/* From scores to ids: pooling, top-k, top-p, union. */
QY_MUST enum qy_status qyi_bench_selection(struct qyi_bench_target *target, struct qy_error *err);

/* Each benchmark prints its own result. */
QY_MUST enum qy_status qyi_bench_decode(struct qyi_app *app, struct qy_error *err);
/* bench decode --shape: layers without a model. Its options are checked. */
QY_MUST enum qy_status qyi_bench_shape(struct qyi_app *app, struct qy_error *err);
/* Sides that differ in settings, in turns. */
QY_MUST enum qy_status qyi_bench_compare(struct qyi_app *app, struct qy_error *err);
/* Rows of a step that were there before. */
QY_MUST enum qy_status qyi_bench_residency(struct qyi_app *app, struct qy_error *err);
QY_MUST enum qy_status qyi_bench_kernels(struct qyi_app *app, struct qy_error *err);
QY_MUST enum qy_status qyi_bench_link(struct qyi_app *app, struct qy_error *err);
/* Questions to memory servers. */
QY_MUST enum qy_status qyi_bench_net(struct qyi_app *app, struct qy_error *err);

#endif
