/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench decode --report DIR: the run as a page. DIR gets
 *
 *   bench.json, trace.json      what --json and --trace give
 *   batch-<batch>-<policy>.json the same as bench.json: runs of several batches into one DIR are
 *                               drawn together
 *   step.svg, steps.svg, batches.svg   pictures, by scripts/plot
 *   index.html                  the page: tables and pictures, nothing from elsewhere
 */
#ifndef QY_SERVE_BENCH_PAGE_H
#define QY_SERVE_BENCH_PAGE_H

#include "serve/bench/bench.h"

/* Before the run: DIR can be written, and pictures can be drawn. QY_ERR_CONFIG says what is missing. */
QY_MUST enum qy_status qyi_page_check(const struct qyi_args *args, struct qy_error *err);
/* After the run, when nobody records in the trace. result is borrowed. */
QY_MUST enum qy_status qyi_page_write(const struct qyi_app *app, const cJSON *result,
                                      struct qy_error *err);

/* bench_plot.c: runs scripts/plot with arguments (NULL after the last, at most 60). What it says goes
 * into err. */
QY_MUST enum qy_status qyi_plot(const char *const *args, struct qy_error *err);
/* bench_html.c: writes the page; pictures [n] are paths of SVG files, captions stand under them. */
struct qyi_picture {
    const char *path, *caption;
};
QY_MUST enum qy_status qyi_html_write(const char *path, const cJSON *result,
                                      const struct qyi_picture *pictures, size_t n,
                                      struct qy_error *err);

#endif
