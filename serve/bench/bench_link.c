/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry bench link: copies between home memory and the device, each way, by rows and by sizes, from
 * the order to the end that the owner sees. Beside each: what memcpy does with as many bytes that
 * lie in one piece, by one thread and by the team; and, where the link is slowed down, what it then
 * lets through. The lower of the link and one thread is the ceiling.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/bench/bench.h"

enum {
    ROW_DIM = 64,
    ROW_BYTES = 4 * ROW_DIM, /* K and V in f16 */
    MAX_ROWS = 8192,
    RUNS = 33,
    MIN_RUNS = 5 /* however long they take; above it, a quarter of a second is enough */
};
#define HOME_BYTES ((size_t)256 << 20)
#define DEVICE_BYTES ((size_t)64 << 20)
#define LONG_NS UINT64_C(60000000000)

struct bench {
    struct qyi_app *app;
    struct qy_device *dev;
    struct qy_stream *streams[2]; /* by enum qy_direction */
    uint8_t *home;
    void *memory; /* of the device */
    size_t device_bytes;
    uint32_t *ids, *slots;      /* [MAX_ROWS] */
    struct qy_copy_item *items; /* [MAX_ROWS] */
    uint64_t random;
    cJSON *results;
};

/* One thing to measure: n rows at random places, or n bytes in one piece. */
struct job {
    enum qy_direction direction;
    int rows;
    size_t n;
};

static uint32_t draw(struct bench *b, size_t below)
{
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((b->random >> 32) * below >> 32);
}

/* Where the run-th copy of so many bytes begins: runs walk through both memories. */
static uint8_t *piece(uint8_t *memory, size_t memory_bytes, size_t bytes, uint32_t run)
{
    return memory + run % (memory_bytes / bytes) * bytes;
}

static enum qy_status run_rows(struct bench *b, const struct job *job)
{
    uint8_t *const blocks[1] = {b->home};
    const struct qy_gather_item gather = {
        .rows = {.blocks = blocks, .shift = 31, .d = ROW_DIM, .type = QY_ROW_F16},
        .ids = b->ids,
        .slots = b->slots,
        .n = (uint32_t)job->n};
    struct qy_stream *stream = b->streams[job->direction];
    const enum qy_status st = job->direction == QY_TO_DEVICE
                                  ? qy_stream_gather(stream, &gather, 1, b->memory)
                                  : qy_stream_copy(stream, b->items, (uint32_t)job->n);
    return st == QY_OK ? qy_stream_wait(stream, qy_stream_record(stream), LONG_NS) : st;
}

static enum qy_status run_bytes(struct bench *b, const struct job *job, uint32_t run)
{
    uint8_t *home = piece(b->home, HOME_BYTES, job->n, run);
    uint8_t *device = piece(b->memory, b->device_bytes, job->n, run);
    const int in = job->direction == QY_TO_DEVICE;
    const struct qy_copy_item item = {
        .from = in ? home : device, .to = in ? device : home, .bytes = job->n};
    struct qy_stream *stream = b->streams[job->direction];
    const enum qy_status st = qy_stream_copy(stream, &item, 1);
    return st == QY_OK ? qy_stream_wait(stream, qy_stream_record(stream), LONG_NS) : st;
}

/* Other rows for each run, so that no cache holds them. Not part of what is timed. */
static void choose_rows(struct bench *b, const struct job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        b->ids[i] = draw(b, HOME_BYTES / ROW_BYTES);
        b->slots[i] = draw(b, b->device_bytes / ROW_BYTES);
        b->items[i] =
            (struct qy_copy_item){.from = (uint8_t *)b->memory + (size_t)b->slots[i] * ROW_BYTES,
                                  .to = b->home + (size_t)b->ids[i] * ROW_BYTES,
                                  .bytes = ROW_BYTES};
    }
}

/* Median of the job, or, if team is not NULL, of a memcpy of its bytes by *team. */
static enum qy_status measure(struct bench *b, const struct job *job, struct qy_team *const *team,
                              uint64_t *p50)
{
    uint64_t samples[RUNS], total = 0;
    size_t n = 0;
    const size_t bytes = job->rows ? job->n * ROW_BYTES : job->n;
    for (uint32_t run = 0; n < RUNS && (n < MIN_RUNS || total < UINT64_C(250000000)); run++) {
        struct qyi_bench_copy share = {piece(b->memory, b->device_bytes, bytes, run),
                                       piece(b->home, HOME_BYTES, bytes, run), bytes};
        enum qy_status st = QY_OK;
        if (job->rows && team == NULL) {
            choose_rows(b, job);
        }
        const uint64_t begin = qy_clock_ns();
        if (team != NULL) {
            qy_team_run(*team, qyi_bench_copy_share, &share);
        } else {
            st = job->rows ? run_rows(b, job) : run_bytes(b, job, run);
        }
        const uint64_t takes = qy_clock_ns() - begin;
        if (st != QY_OK) {
            return st;
        }
        if (run > 0) { /* one to warm up */
            samples[n++] = takes;
            total += takes;
        }
    }
    *p50 = qyi_bench_median(samples, n);
    return QY_OK;
}

/* 10^9 bytes per second. */
static double rate(double bytes, uint64_t ns)
{
    return ns > 0 ? bytes / (double)ns : 0;
}

static void report(struct bench *b, const struct job *job, uint64_t p50, uint64_t solo,
                   uint64_t team)
{
    const double bytes = (double)(job->rows ? job->n * ROW_BYTES : job->n);
    const struct qy_link link = qyi_link(b->app);
    const double link_ns = (double)link.copy_ns + (link.gbps > 0 ? bytes / link.gbps : 0);
    double ceiling = rate(bytes, solo);
    if (link_ns > 0 && bytes / link_ns < ceiling) {
        ceiling = bytes / link_ns;
    }
    const char *to = job->direction == QY_TO_DEVICE ? "device" : "home";
    char name[64], size[32];
    if (job->rows) {
        snprintf(name, sizeof name, "to %s, %zu rows of %d B", to, job->n, ROW_BYTES);
    } else {
        snprintf(name, sizeof name, "to %s, %s", to, qy_format_size(job->n, size, sizeof size));
    }
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", name);
    cJSON_AddNumberToObject(item, "p50_ns", (double)p50);
    cJSON_AddNumberToObject(item, "bytes", bytes);
    cJSON_AddNumberToObject(item, "gbps", rate(bytes, p50));
    cJSON_AddNumberToObject(item, "ceiling_gbps", ceiling);
    cJSON_AddNumberToObject(item, "memcpy_gbps", rate(bytes, solo));
    cJSON_AddNumberToObject(item, "memcpy_team_gbps", rate(bytes, team));
    cJSON_AddItemToArray(b->results, item);
    if (!b->app->args->json) {
        printf("%-30s %10.1f us %8.3f GB/s of %7.3f   memcpy: %7.3f, team %7.3f\n", name,
               (double)p50 * 1e-3, rate(bytes, p50), ceiling, rate(bytes, solo), rate(bytes, team));
        fflush(stdout);
    }
}

static enum qy_status run_all(struct bench *b, struct qy_error *err)
{
    static const size_t rows[] = {64, 230, 1024, MAX_ROWS};
    static const size_t sizes[] = {4 << 10, 64 << 10, 1 << 20, 16 << 20};
    enum { N = 4 };
    struct qy_team *const solo = NULL;
    for (uint32_t i = 0; i < 2 * 2 * N && !qyi_interrupted(); i++) {
        const struct job job = {.direction = i / N % 2 ? QY_TO_HOST : QY_TO_DEVICE,
                                .rows = i < 2 * N,
                                .n = i < 2 * N ? rows[i % N] : sizes[i % N]};
        uint64_t p50 = 0, one = 0, team = 0;
        enum qy_status st = measure(b, &job, NULL, &p50);
        if (st == QY_OK) {
            st = measure(b, &job, &solo, &one);
        }
        if (st == QY_OK) {
            st = measure(b, &job, &b->app->rt.team, &team);
        }
        if (st != QY_OK) {
            return qy_error_set(err, st, "bench link: a copy of %zu %s ended with %s", job.n,
                                job.rows ? "rows" : "bytes", qy_status_name(st));
        }
        report(b, &job, p50, one, team);
    }
    return QY_OK;
}

static enum qy_status prepare(struct bench *b, struct qy_error *err)
{
    struct qy_device_memory memory;
    qy_device_memory(b->dev, &memory);
    b->device_bytes = DEVICE_BYTES;
    if (memory.limit > 0 && memory.limit < DEVICE_BYTES) {
        char text[32];
        return qy_error_set(err, QY_ERR_CONFIG,
                            "bench link: the device '%s' has %s; copies are measured within 64 "
                            "MiB of it; give host-discrete:64M or more",
                            b->app->program.device,
                            qy_format_size(memory.limit, text, sizeof text));
    }
    b->home = aligned_alloc(4096, HOME_BYTES);
    b->ids = calloc(MAX_ROWS, sizeof *b->ids);
    b->slots = calloc(MAX_ROWS, sizeof *b->slots);
    b->items = calloc(MAX_ROWS, sizeof *b->items);
    if (!b->home || !b->ids || !b->slots || !b->items) {
        return qy_error_set(err, QY_ERR_NOMEM, "bench link: needs 320 MiB of memory");
    }
    enum qy_status st = qy_device_alloc(b->dev, b->device_bytes, &b->memory, err);
    if (st == QY_OK) { /* real pages of both, not the zero page */
        memset(b->home, 1, HOME_BYTES);
        memset(b->memory, 2, b->device_bytes);
        st = qy_stream_open(b->dev, "pull", QY_TO_DEVICE, 1, &b->streams[QY_TO_DEVICE], err);
    }
    if (st == QY_OK) {
        st = qy_stream_open(b->dev, "push", QY_TO_HOST, 1, &b->streams[QY_TO_HOST], err);
    }
    return st;
}

static void release(struct bench *b)
{
    qy_stream_close(b->streams[QY_TO_DEVICE]);
    qy_stream_close(b->streams[QY_TO_HOST]);
    qy_device_free(b->dev, b->memory);
    qy_device_close(b->dev);
    free(b->home);
    free(b->ids);
    free(b->slots);
    free(b->items);
    cJSON_Delete(b->results);
}

enum qy_status qyi_bench_link(struct qyi_app *app, struct qy_error *err)
{
    struct bench b = {
        .app = app, .random = (uint64_t)app->program.seed + 1, .results = cJSON_CreateArray()};
    const struct qy_link link = qyi_link(app);
    const struct qy_device_params params = {.spec = app->program.device, .max_m = 1, .link = link};
    enum qy_status st = qy_device_open(&app->rt, &params, &b.dev, err);
    if (st == QY_OK) {
        st = prepare(&b, err);
    }
    if (st == QY_OK) {
        if (!app->args->json) {
            printf("%s, %u threads; link: ", qy_device_caps(b.dev)->name, app->n_threads);
            if (link.gbps > 0 || link.copy_ns > 0) {
                printf("slowed down to %g GB/s (0: not limited) and %g us a copy\n", link.gbps,
                       (double)link.copy_ns * 1e-3);
            } else {
                printf("not slowed down\n");
            }
        }
        st = run_all(&b, err);
    }
    if (st == QY_OK && app->args->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "device", qy_device_caps(b.dev)->name);
        cJSON_AddNumberToObject(object, "link_gbps", link.gbps);
        cJSON_AddNumberToObject(object, "link_copy_us", (double)link.copy_ns * 1e-3);
        cJSON_AddItemToObject(object, "results", b.results);
        b.results = NULL;
        qyi_print_json(object);
    }
    release(&b);
    return st;
}
