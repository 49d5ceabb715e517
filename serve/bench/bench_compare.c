/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench compare: sides that differ in settings, in turns. Each has a device, cache and sequences
 * of its own, since what a side finds on the device is what it brought there itself. In a turn every
 * side takes one step, so that what else the machine does meets them all: what is told of two sides is
 * the median of their ratios turn by turn, which a busy machine changes less than the times themselves.
 * Then as many turns for sides that move rows, each with a step that waits for every pull at once.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench_batch.h"

enum { MAX_SIDES = 8, SIDE_BYTES = 1024, MIN_TURNS = 5 };

struct side {
    char text[SIDE_BYTES]; /* "name: settings", cut into words where it lies */
    const char *name;
    struct qyi_app app; /* the settings of this side; threads and all else are the program's */
    struct qyi_bench_batch batch;
    uint64_t *ns;                   /* [turns] */
    uint64_t *waited_ns, *alone_ns; /* [turns] */
    struct qy_cache_stats stats;
};

struct compare {
    struct qyi_app *app;
    uint64_t turns, done, moved; /* asked for; done; done of those that time movement */
    uint32_t n;
    struct side sides[MAX_SIDES];
    uint64_t *sorted; /* [turns] */
    double *ratios;   /* [turns] */
};

struct figures {
    double step_ms, spread_ms, of_first;
    double alone_ms, overlap, hit_rate;
    int has_overlap;
};

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int moves(const struct side *side)
{
    return !qy_device_caps(side->batch.engine.dev)->unified;
}

/* "name: section.name=value section.name=value ...". */
static enum qy_status read_side(struct compare *c, struct side *side, const char *text,
                                struct qy_error *err)
{
    struct qyi_app *app = c->app;
    const struct qyi_app base = *app;
    char *colon, *rest;

    snprintf(side->text, sizeof side->text, "%s", text);
    colon = strstr(side->text, ":");
    if (strlen(text) >= sizeof side->text || colon == NULL || colon == side->text ||
        memchr(side->text, '=', (size_t)(colon - side->text)) != NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--side': '%s' refused; a name, a colon and settings are "
                            "accepted, as in 'push: plan.mode=push', below %d bytes",
                            text, SIDE_BYTES);
    }
    *colon = '\0';
    side->name = side->text;
    enum qy_status st = QY_OK;
    for (char *word = strtok_r(colon + 1, " ", &rest); st == QY_OK && word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        st = qy_config_set(app->config, word, "--side", err);
    }
    side->app = *app;
    app->cache = base.cache;
    app->retrieval = base.retrieval;
    app->program = base.program;
    app->net = base.net;
    return st;
}

static enum qy_status open_side(struct compare *c, struct side *side, struct qy_error *err)
{
    const struct qyi_args *args = c->app->args;
    const uint64_t warm = qyi_bench_most_warm_up(args);

    side->ns = calloc(3 * c->turns, sizeof *side->ns);
    if (side->ns == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench compare: out of memory");
    }
    side->waited_ns = side->ns + c->turns;
    side->alone_ns = side->waited_ns + c->turns;
    enum qy_status st =
        qyi_bench_batch_open(&side->app, args->context + warm + 3 * c->turns, &side->batch, err);
    for (uint64_t i = 0, ns; st == QY_OK && i < warm && !qyi_interrupted(); i++) {
        st = qyi_bench_batch_step(&side->batch, &ns, err);
    }
    if (st == QY_OK) {
        qy_cache_stats_reset(side->batch.engine.cache);
    }
    return st;
}

static enum qy_status run_steps(struct compare *c, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    while (st == QY_OK && c->done < c->turns && !qyi_interrupted()) {
        for (uint32_t i = 0; st == QY_OK && i < c->n; i++) {
            struct side *side = &c->sides[(i + c->done) % c->n]; /* none is always first */
            st = qyi_bench_batch_step(&side->batch, &side->ns[c->done], err);
        }
        c->done += st == QY_OK;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        qy_cache_stats(c->sides[i].batch.engine.cache, &c->sides[i].stats);
    }
    return st;
}

/* How long compute waits for rows in one step. */
static enum qy_status wait_of_step(struct side *side, int overlap, uint64_t *waited_ns,
                                   struct qy_error *err)
{
    struct qy_cache *cache = side->batch.engine.cache;
    struct qy_cache_stats stats;
    uint64_t ns;

    qy_cache_stats_reset(cache);
    qy_cache_set_overlap(cache, overlap && side->app.cache.overlap);
    const enum qy_status st = qyi_bench_batch_step(&side->batch, &ns, err);
    qy_cache_stats(cache, &stats);
    *waited_ns = stats.stage_ns[QY_STAGE_WAIT];
    return st;
}

static enum qy_status run_movement(struct compare *c, struct qy_error *err)
{
    enum qy_status st = QY_OK;
    while (st == QY_OK && c->moved < c->done && !qyi_interrupted()) {
        for (uint32_t i = 0; st == QY_OK && i < c->n; i++) {
            struct side *side = &c->sides[i];
            if (moves(side)) {
                st = wait_of_step(side, 1, &side->waited_ns[c->moved], err);
                if (st == QY_OK) {
                    st = wait_of_step(side, 0, &side->alone_ns[c->moved], err);
                }
            }
        }
        c->moved += st == QY_OK;
    }
    return st;
}

static double median_ms(struct compare *c, const uint64_t *ns, uint64_t n)
{
    memcpy(c->sorted, ns, n * sizeof *ns);
    return n == 0 ? 0 : (double)qyi_bench_median(c->sorted, n) * 1e-6;
}

/* Of the distances from the median. */
static double spread_ms(struct compare *c, const uint64_t *ns, uint64_t n, double median)
{
    for (uint64_t i = 0; i < n; i++) {
        const double distance = (double)ns[i] - median * 1e6;
        c->sorted[i] = (uint64_t)(distance < 0 ? -distance : distance);
    }
    return (double)qyi_bench_median(c->sorted, n) * 1e-6;
}

static struct figures figures_of(struct compare *c, const struct side *side)
{
    enum { FLOOR_SHARE = 50 }; /* as of bench decode: 2 % of a step are noise */
    struct figures f = {0};
    const struct qy_cache_stats *stats = &side->stats;

    f.step_ms = median_ms(c, side->ns, c->done);
    f.spread_ms = spread_ms(c, side->ns, c->done, f.step_ms);
    for (uint64_t i = 0; i < c->done; i++) {
        c->ratios[i] = (double)side->ns[i] / (double)c->sides[0].ns[i];
    }
    qsort(c->ratios, c->done, sizeof *c->ratios, ascending);
    f.of_first = (c->ratios[(c->done - 1) / 2] + c->ratios[c->done / 2]) / 2;
    f.hit_rate = stats->rows_asked > 0 ? (double)stats->rows_found / (double)stats->rows_asked : 0;
    f.alone_ms = moves(side) ? median_ms(c, side->alone_ns, c->moved) : 0;
    f.has_overlap = f.alone_ms * FLOOR_SHARE > f.step_ms;
    f.overlap = f.has_overlap ? 1.0 - median_ms(c, side->waited_ns, c->moved) / f.alone_ms : 0;
    return f;
}

/* Per step: MB that come from memory servers or go there with pushes. */
static double remote_mb(const struct compare *c, const struct side *side)
{
    return (double)(side->stats.remote_read_bytes + side->stats.remote_pushed_bytes) /
           (double)c->done * 1e-6;
}

static cJSON *side_json(struct compare *c, const struct side *side, const struct figures *f)
{
    const double n = (double)c->done;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", side->name);
    cJSON_AddNumberToObject(object, "step_ms", f->step_ms);
    cJSON_AddNumberToObject(object, "step_spread_ms", f->spread_ms);
    cJSON_AddNumberToObject(object, "tokens_per_s", (double)c->app->args->batch / f->step_ms * 1e3);
    cJSON_AddNumberToObject(object, "of_first", f->of_first);
    cJSON_AddNumberToObject(object, "hit_rate", f->hit_rate);
    cJSON_AddNumberToObject(object, "rows_pulled", (double)side->stats.rows_pulled / n);
    cJSON_AddNumberToObject(object, "rows_pushed", (double)side->stats.rows_pushed / n);
    cJSON_AddNumberToObject(object, "remote_kv_bytes", (double)side->stats.remote_bytes);
    cJSON_AddNumberToObject(object, "remote_mb", remote_mb(c, side));
    cJSON_AddNumberToObject(object, "movement_alone_ms", f->alone_ms);
    if (f->has_overlap) {
        cJSON_AddNumberToObject(object, "overlap", f->overlap);
    } else {
        cJSON_AddNullToObject(object, "overlap");
    }
    return object;
}

static void side_text(const struct compare *c, const struct side *side, const struct figures *f)
{
    const double n = (double)c->done;
    char overlap[16] = "-";
    if (f->has_overlap) {
        snprintf(overlap, sizeof overlap, "%.2f", f->overlap);
    }
    printf("%-14s %9.2f %7.2f %9.1f %9.3f %6.1f %% %8.0f %8.0f %8.2f %9.1f %8s\n", side->name,
           f->step_ms, f->spread_ms, (double)c->app->args->batch / f->step_ms * 1e3, f->of_first,
           100 * f->hit_rate, (double)side->stats.rows_pulled / n,
           (double)side->stats.rows_pushed / n, remote_mb(c, side), f->alone_ms, overlap);
}

static void report(struct compare *c)
{
    const struct qyi_args *args = c->app->args;
    cJSON *object = cJSON_CreateObject(), *sides = cJSON_AddArrayToObject(object, "sides");
    cJSON_AddNumberToObject(object, "batch", (double)args->batch);
    cJSON_AddNumberToObject(object, "context", (double)args->context);
    cJSON_AddNumberToObject(object, "turns", (double)c->done);
    if (!args->json) {
        printf(
            "batch %llu, context %llu, %llu turns of one step each; of first: median of the "
            "turns' ratios; rows, and MB to and from memory servers, of a step; alone: movement "
            "with nothing beside it\n"
            "%-14s %9s %7s %9s %9s %8s %8s %8s %8s %9s %8s\n",
            (unsigned long long)args->batch, (unsigned long long)args->context,
            (unsigned long long)c->done, "side", "ms/step", "+-", "tokens/s", "of first", "found",
            "pulled", "pushed", "net MB", "alone ms", "overlap");
    }
    for (uint32_t i = 0; i < c->n; i++) {
        const struct figures f = figures_of(c, &c->sides[i]);
        if (!args->json) {
            side_text(c, &c->sides[i], &f);
        }
        cJSON_AddItemToArray(sides, side_json(c, &c->sides[i], &f));
    }
    if (args->json) {
        qyi_print_json(object);
    } else {
        cJSON_Delete(object);
    }
}

static enum qy_status open_all(struct compare *c, struct qy_error *err)
{
    const struct qyi_args *args = c->app->args;
    enum qy_status st = qyi_bench_check(args, err);

    if (st == QY_OK && (args->n_texts < 2 || args->n_texts > MAX_SIDES)) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "bench compare: %zu times --side; 2 to %d are accepted", args->n_texts,
                          MAX_SIDES);
    }
    if (st != QY_OK) {
        return st;
    }
    c->turns = args->steps < MIN_TURNS ? MIN_TURNS : args->steps;
    c->sorted = calloc(c->turns, sizeof *c->sorted);
    c->ratios = calloc(c->turns, sizeof *c->ratios);
    if (c->sorted == NULL || c->ratios == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench compare: out of memory");
    }
    for (; st == QY_OK && c->n < args->n_texts; c->n++) {
        st = read_side(c, &c->sides[c->n], args->texts[c->n], err);
    }
    for (uint32_t i = 0; st == QY_OK && i < c->n; i++) {
        st = open_side(c, &c->sides[i], err);
    }
    return st;
}

enum qy_status qyi_bench_compare(struct qyi_app *app, struct qy_error *err)
{
    struct compare *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench compare: out of memory");
    }
    c->app = app;
    enum qy_status st = open_all(c, err);
    if (st == QY_OK) {
        st = run_steps(c, err);
    }
    if (st == QY_OK) {
        st = run_movement(c, err);
    }
    if (st == QY_OK && c->done > 0) {
        report(c);
    }
    for (uint32_t i = 0; i < c->n; i++) {
        qyi_bench_batch_close(&c->sides[i].batch);
        free(c->sides[i].ns);
    }
    free(c->sorted);
    free(c->ratios);
    free(c);
    return st;
}
