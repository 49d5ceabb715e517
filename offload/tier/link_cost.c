/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The costs of a plan (plan.h), measured at open.
 *
 * Gathers: with b bytes of a row, a command for n rows takes copy + n * (row + b * byte). As b is
 * the same for all rows of a cache, `row` and `byte` are told apart by rows WIDE times as long:
 *
 *   one   = copy +     1 * row +     b * byte      1 row
 *   rows  = copy +     n * row + n * b * byte      n rows
 *   wide  = copy + n / W * row + n * b * byte      n / W rows, W = WIDE times as long
 *
 *   row = (rows - wide) / (n - n / W)   byte = ((rows - one) / (n - 1) - row) / b
 *   copy = one - row - b * byte
 *
 * n grows until its bytes take so long that the clock and the waking of threads count for little.
 * Each is the least of RUNS, over other rows each time: others use the machine too.
 *
 * Where rows at home are coded, gathers and attention decode them, and b is of a coded row.
 *
 * Attention over lists of rows: home rows for a push, slots for a pull. Two lengths give what an
 * item takes and what a row takes. Items share the device's threads, so these are shares of the time
 * of them all. differs: a push also merges its partial; that is a few hundred nanoseconds.
 *
 * Where noise leaves no difference, all of the longer time counts as that of rows. chosen: after
 * attend_ns and link_ns each is run but once; a plan corrects its costs as it goes, so opening
 * must not wait for good ones.
 */
#include "offload/tier/link_cost.h"

enum {
    WIDE = 16,
    GROWTH = 4,
    ITEMS = 8,        /* attention: at once                */
    MIN_LENGTH = 64,  /* rows of one, at long              */
    MAX_LENGTH = 512, /* as long as its rows are few bytes */
    SHORTER = 16,
    RUNS = 7,
    MAX_ROWS = 8192, /* of a gather, a power of 2          */
    ALIGN = 64
};
static const size_t home_bytes = (size_t)16 << 20; /* of rows: beyond the caches' share */
static const size_t slot_bytes = (size_t)2 << 20;
static const size_t attend_bytes = (size_t)1 << 20;
static const double enough_ns = 1e6;        /* that the rows of one gather take    */
static const uint64_t attend_ns = 15000000; /* from the start: attention is repeated */
static const uint64_t link_ns = 40000000;   /* gathers                              */
static const uint64_t timeout_ns = 5000000000;

struct trial {
    const struct qy_allocator *mem;
    struct qy_device *dev;
    const struct qyi_link_shape *shape;
    struct qy_stream *stream;
    uint32_t n_home, n_slots; /* rows; n_slots a power of two           */
    uint32_t length;          /* rows of an item of attention, at long  */
    uint8_t *home;            /* [n_home] rows                          */
    uint8_t *store;           /* [n_slots] rows, device memory          */
    uint32_t *ids, *slots;    /* [max(n_slots, ITEMS * length)]         */
    float *q, *out;           /* [group][d], [ITEMS][group][d + 1]      */
    struct qy_arena arena;
    uint64_t end_ns; /* of repeating runs                      */
    uint32_t seed;
};

/* Bytes of a row at home. */
static size_t home_row_bytes(const struct qyi_link_shape *s)
{
    return s->codec ? qy_row_codec_bytes(s->codec) : qy_row_bytes(s->row_type, s->d);
}

static uint32_t draw(struct trial *t, uint32_t below)
{
    t->seed = t->seed * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)t->seed * below >> 32);
}

static void trial_close(struct trial *t)
{
    qy_stream_close(t->stream); /* first: a command that timed out still has the memory */
    qy_device_free(t->dev, t->store);
    qy_free(t->mem, t->arena.base);
    qy_free(t->mem, t->out);
    qy_free(t->mem, t->q);
    qy_free(t->mem, t->slots);
    qy_free(t->mem, t->ids);
    qy_free(t->mem, t->home);
}

static enum qy_status trial_open(struct trial *t, struct qy_error *err)
{
    const struct qyi_link_shape *s = t->shape;
    const size_t row_bytes = qy_row_bytes(s->row_type, s->d);
    const size_t heads_d = (size_t)s->group * s->d;
    void *store = NULL;

    t->length = MAX_LENGTH;
    while (t->length > MIN_LENGTH && ITEMS * t->length * row_bytes > attend_bytes) {
        t->length /= 2;
    }
    const size_t scratch = qy_device_attend_scratch(t->dev, ITEMS, t->length, s->group, s->d) +
                           (s->codec ? qy_device_attend_coded_scratch(t->dev, s->d) : 0);
    t->n_slots = MAX_ROWS;
    while (t->n_slots > 2 * WIDE && t->n_slots * row_bytes > slot_bytes) {
        t->n_slots /= 2;
    }
    t->n_home = (uint32_t)(home_bytes / home_row_bytes(s));
    t->n_home = t->n_home > t->n_slots ? t->n_home : t->n_slots;
    const size_t n_ids = t->n_slots > ITEMS * t->length ? t->n_slots : ITEMS * t->length;
    t->home = qy_alloc_zero(t->mem, t->n_home * home_row_bytes(s));
    t->ids = qy_alloc_zero(t->mem, n_ids * sizeof(*t->ids));
    t->slots = qy_alloc_zero(t->mem, n_ids * sizeof(*t->slots));
    t->q = qy_alloc_zero(t->mem, heads_d * sizeof(*t->q));
    t->out = qy_alloc_zero(t->mem, ITEMS * (heads_d + s->group) * sizeof(*t->out));
    void *base = qy_alloc_zero(t->mem, scratch + ALIGN);
    qy_arena_init(&t->arena, base, base != NULL ? scratch + ALIGN : 0);
    if (!t->home || !t->ids || !t->slots || !t->q || !t->out || !base) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "link: out of memory for the trial of what moving rows costs; set "
                            "plan.mode to pull or push to leave it out");
    }
    enum qy_status st = qy_device_alloc(t->dev, t->n_slots * row_bytes, &store, err);
    t->store = store;
    if (st == QY_OK) {
        st = qy_stream_open(t->dev, "trial", QY_TO_DEVICE, 1, &t->stream, err);
    }
    return st;
}

/* May a trial be run once more? */
static int goes_on(const struct trial *t, int run)
{
    return run == 0 || (run < RUNS && qy_clock_ns() < t->end_ns);
}

/* One gather of n rows (a power of two), each `wide` rows long, from and to anywhere. */
static enum qy_status run_gather(struct trial *t, uint32_t n, uint32_t wide, double *ns)
{
    const struct qyi_link_shape *s = t->shape;
    struct qy_row_codec codec = {0};
    if (s->codec) {
        codec = *s->codec;
        codec.d *= wide;
    }
    const struct qy_gather_item item = {.rows = {.blocks = &t->home,
                                                 .shift = 31,
                                                 .d = s->d * wide,
                                                 .type = s->row_type,
                                                 .n_coded = UINT32_MAX,
                                                 .codec = s->codec ? &codec : NULL},
                                        .ids = t->ids,
                                        .slots = t->slots,
                                        .n = n};
    const uint32_t first = draw(t, n);

    for (uint32_t i = 0; i < n; i++) {
        t->ids[i] = draw(t, t->n_home / wide);
        t->slots[i] = (first + i * 2654435761U) & (n - 1); /* an odd factor: each once */
    }
    const uint64_t begin = qy_clock_ns();
    enum qy_status st = qy_stream_gather(t->stream, &item, 1, t->store);
    if (st == QY_OK) {
        st = qy_stream_wait(t->stream, qy_stream_record(t->stream), timeout_ns);
    }
    *ns = (double)(qy_clock_ns() - begin);
    return st;
}

static enum qy_status time_gather(struct trial *t, uint32_t n, uint32_t wide, double *ns)
{
    for (int run = 0; goes_on(t, run); run++) {
        double took;
        const enum qy_status st = run_gather(t, n, wide, &took);
        if (st != QY_OK) {
            return st;
        }
        *ns = run == 0 || took < *ns ? took : *ns;
    }
    return QY_OK;
}

static double positive(double x)
{
    return x > 0.0 ? x : 0.0;
}

/* Time of one of many rows, from that of few and that of many. */
static double each_of(double few_ns, double many_ns, double few, double many)
{
    return many_ns > few_ns ? (many_ns - few_ns) / (many - few) : many_ns / many;
}

static enum qy_status measure_link(struct trial *t, struct qyi_plan_costs *costs)
{
    const double b = (double)home_row_bytes(t->shape);
    uint32_t n = WIDE;
    double one = 0.0;
    double rows = 0.0;
    double wide = 0.0;
    enum qy_status st = time_gather(t, 1, 1, &one);

    while (st == QY_OK && n < t->n_slots && rows - one < enough_ns) {
        n = n < t->n_slots / GROWTH ? n * GROWTH : t->n_slots;
        st = run_gather(t, n, 1, &rows);
    }
    if (st == QY_OK) {
        st = time_gather(t, n, 1, &rows);
    }
    if (st == QY_OK) {
        st = time_gather(t, n / WIDE, WIDE, &wide);
    }
    const double each = each_of(one, rows, 1, n);
    const double row = positive((rows - wide) / (n - n / WIDE));
    costs->link_row_ns = row < each ? row : each;
    costs->link_byte_ns = (each - costs->link_row_ns) / b;
    costs->link_copy_ns = positive(one - each);
    return st;
}

/* ITEMS items of n rows anywhere among n_rows at base. */
static enum qy_status time_attend(struct trial *t, uint8_t *base, uint32_t n_rows, uint32_t n,
                                  double *ns)
{
    const struct qyi_link_shape *s = t->shape;
    const size_t heads_d = (size_t)s->group * s->d;
    struct qy_attend_item items[ITEMS];

    for (uint32_t i = 0; i < ITEMS; i++) {
        items[i] = (struct qy_attend_item){.q = t->q,
                                           .rows = {.blocks = &base,
                                                    .shift = 31,
                                                    .d = s->d,
                                                    .type = s->row_type,
                                                    .n_coded = UINT32_MAX,
                                                    .codec = base == t->home ? s->codec : NULL},
                                           .ids = t->ids + (size_t)i * n,
                                           .n = n,
                                           .group = s->group,
                                           .out = t->out + i * (heads_d + s->group),
                                           .lse = t->out + i * (heads_d + s->group) + heads_d};
    }
    for (int run = 0; goes_on(t, run); run++) {
        for (uint32_t i = 0; i < ITEMS * n; i++) {
            t->ids[i] = draw(t, n_rows);
        }
        const uint64_t begin = qy_clock_ns();
        const enum qy_status st = qy_device_attend(t->dev, items, ITEMS, 1.0F, &t->arena);
        const double took = (double)(qy_clock_ns() - begin);
        if (st != QY_OK) {
            return st;
        }
        *ns = run == 0 || took < *ns ? took : *ns;
    }
    return QY_OK;
}

/* What an item and what a row of it take. */
static enum qy_status measure_attend(struct trial *t, uint8_t *base, uint32_t n_rows,
                                     double *item_ns, double *row_ns)
{
    const uint32_t few = t->length / SHORTER;
    double at_long = 0.0;
    double at_short = 0.0;
    enum qy_status st = time_attend(t, base, n_rows, t->length, &at_long);

    if (st == QY_OK) {
        st = time_attend(t, base, n_rows, few, &at_short);
    }
    *row_ns = each_of(at_short, at_long, ITEMS * few, ITEMS * t->length);
    *item_ns = positive(at_short / ITEMS - few * *row_ns);
    return st;
}

enum qy_status qyi_link_cost_measure(const struct qy_allocator *mem, struct qy_device *dev,
                                     const struct qyi_link_shape *shape,
                                     struct qyi_plan_costs *costs, struct qy_error *err)
{
    struct trial t = {.mem = mem, .dev = dev, .shape = shape, .seed = 1};
    struct qyi_plan_costs measured = *costs;
    const uint64_t start = qy_clock_ns(); /* taking memory counts too */
    double slot_item_ns; /* of a pull: the device attends to the resident rows anyway */
    enum qy_status st = trial_open(&t, err);

    if (st == QY_OK) {
        t.end_ns = start + attend_ns;
        st = measure_attend(&t, t.home, t.n_home, &measured.push_ns, &measured.push_row_ns);
        if (st == QY_OK) {
            st = measure_attend(&t, t.store, t.n_slots, &slot_item_ns, &measured.pull_row_ns);
        }
        t.end_ns = start + link_ns;
        if (st == QY_OK) {
            st = measure_link(&t, &measured);
        }
        if (st != QY_OK) {
            st = qy_error_set(err, st,
                              "link: the trial of what moving rows costs failed; set plan.mode to "
                              "pull or push to leave it out");
        }
    }
    trial_close(&t);
    if (st == QY_OK) {
        *costs = measured;
    }
    return st;
}
