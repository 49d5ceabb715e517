/* SPDX-License-Identifier: Apache-2.0 */
/* The audit against the same sums in double precision. */
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 16, GROUP = 3, MOST_N = 120, ITEMS = 9, SHIFT = 4, SLAB = 1 << SHIFT };
#define SCALE 0.25F

struct bed {
    struct qy_runtime rt;
    struct qy_device *dev;
    float rows[ITEMS][MOST_N][2 * D];
    float q[ITEMS][GROUP * D];
    uint8_t *blocks[ITEMS][MOST_N / SLAB + 1];
    struct qy_select_item select[ITEMS];
    struct qy_audit_item items[ITEMS];
    uint32_t ids[ITEMS][MOST_N];
    struct qy_arena arena;
};

static float uniform(uint32_t *state)
{
    *state = *state * 1664525U + 1013904223U;
    return (float)(*state >> 8) * 0x1p-23F - 1.0F;
}

/* Item i has 120 - 7 i tokens; sinks 5, window 9; it attends to every third candidate. */
static struct bed *bed_open(void)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    const struct qy_device_params params = {.spec = "host", .max_m = 1};
    uint32_t state = 1;

    assert_non_null(bed);
    bed->rt.mem = qy_allocator_system();
    qy_cpu_detect(&bed->rt.cpu);
    assert_int_equal(qy_device_open(&bed->rt, &params, &bed->dev, NULL), QY_OK);
    for (uint32_t i = 0; i < ITEMS; i++) {
        struct qy_select_item *s = &bed->select[i];
        struct qy_audit_item *item = &bed->items[i];

        for (uint32_t t = 0; t < MOST_N; t++) {
            for (int j = 0; j < 2 * D; j++) {
                bed->rows[i][t][j] = 3.0F * uniform(&state);
            }
            bed->blocks[i][t / SLAB] = (uint8_t *)bed->rows[i][t / SLAB * SLAB];
        }
        for (int j = 0; j < GROUP * D; j++) {
            bed->q[i][j] = uniform(&state);
        }
        *s = (struct qy_select_item){
            .q = bed->q[i],
            .rows = {.blocks = bed->blocks[i], .shift = SHIFT, .d = D, .type = QY_ROW_F32},
            .group = GROUP,
            .n = MOST_N - 7 * i,
            .lo = 5,
            .hi = MOST_N - 7 * i - 9,
            .k = MOST_N};
        *item = (struct qy_audit_item){.select = s, .ids = bed->ids[i]};
        for (uint32_t t = 0; t < s->n; t++) {
            if (t < s->lo || t >= s->hi || t % 3 == 0) {
                bed->ids[i][item->n_ids++] = t;
            }
        }
    }
    const size_t bytes = qy_audit_scratch(bed->dev, ITEMS, GROUP, MOST_N);
    void *base = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(base);
    qy_arena_init(&bed->arena, base, bytes);
    return bed;
}

static void bed_close(struct bed *bed)
{
    qy_device_close(bed->dev);
    free(bed->arena.base);
    free(bed);
}

/* Mean over the group of the softmax over all n tokens. */
static void pool(const struct qy_select_item *s, double *pooled)
{
    memset(pooled, 0, s->n * sizeof(*pooled));
    for (uint32_t g = 0; g < s->group; g++) {
        double weights[MOST_N];
        double sum = 0.0;

        for (uint32_t t = 0; t < s->n; t++) {
            const float *k = (const float *)(const void *)qy_row_at(&s->rows, t);
            double dot = 0.0;

            for (int j = 0; j < D; j++) {
                dot += (double)s->q[g * D + (uint32_t)j] * k[j];
            }
            weights[t] = exp(dot * (double)SCALE);
            sum += weights[t];
        }
        for (uint32_t t = 0; t < s->n; t++) {
            pooled[t] += weights[t] / sum / s->group;
        }
    }
}

static struct qy_audit_sums reference(const struct qy_audit_item *items, uint32_t n)
{
    struct qy_audit_sums sums = {.n = n};

    for (uint32_t i = 0; i < n; i++) {
        const struct qy_select_item *s = items[i].select;
        double pooled[MOST_N];
        uint32_t n_chosen = 0;
        uint32_t n_good = 0;

        pool(s, pooled);
        for (uint32_t j = 0; j < items[i].n_ids; j++) {
            sums.mass += pooled[items[i].ids[j]];
            n_chosen += items[i].ids[j] >= s->lo && items[i].ids[j] < s->hi;
        }
        for (uint32_t j = 0; j < items[i].n_ids; j++) {
            const uint32_t id = items[i].ids[j];
            uint32_t above = 0;

            for (uint32_t t = s->lo; t < s->hi; t++) {
                above += pooled[t] > pooled[id];
            }
            n_good += id >= s->lo && id < s->hi && above < n_chosen;
        }
        sums.recall += n_chosen > 0 ? (double)n_good / n_chosen : s->k > 0;
    }
    return sums;
}

static void audit_equals_the_reference_for_any_number_of_items(void **state)
{
    struct bed *bed = bed_open();
    (void)state;

    for (uint32_t n = 0; n <= ITEMS; n++) {
        const struct qy_audit_sums want = reference(bed->items, n);
        struct qy_audit_sums got = {.n = 100, .recall = 1000.0, .mass = 2000.0};

        assert_int_equal(qy_audit(bed->dev, bed->items, n, SCALE, &bed->arena, &got), QY_OK);
        assert_int_equal(got.n, 100 + want.n); /* sums go on */
        assert_float_equal((got.recall - 1000.0), want.recall, 1e-9);
        assert_float_equal((got.mass - 2000.0), want.mass, 1e-5);
        assert_int_equal(qy_arena_mark(&bed->arena), 0);
    }
    bed_close(bed);
}

/* Frame without a choice, no candidates at all, everything attended, one token. */
static void audit_of_edges_is_defined(void **state)
{
    struct bed *bed = bed_open();
    struct qy_audit_sums sums = {0};
    (void)state;

    bed->select[0].hi = bed->select[0].n; /* no window, and only the sinks are attended */
    bed->items[0].n_ids = 5;
    bed->select[1] = bed->select[0];
    bed->items[1].n_ids = 5;
    bed->select[1].k = 0; /* the policy could not choose */
    bed->select[2].lo = bed->select[2].hi = bed->select[2].n;
    bed->items[2].n_ids = 0;
    bed->select[2].k = 0;
    for (uint32_t t = 0; t < bed->select[3].n; t++) {
        bed->ids[3][t] = t;
    }
    bed->items[3].n_ids = bed->select[3].n;
    bed->select[4].n = 1;
    bed->select[4].lo = bed->select[4].hi = 0;
    bed->select[4].k = 0;
    bed->items[4].n_ids = 1;
    bed->ids[4][0] = 0;
    static const double recalls[] = {1.0, 0.0, 0.0, 1.0, 0.0};
    static const double masses[] = {-1.0, -1.0, 0.0, 1.0, 1.0};
    for (uint32_t i = 0; i < 5; i++) {
        sums = (struct qy_audit_sums){0};
        assert_int_equal(qy_audit(bed->dev, &bed->items[i], 1, SCALE, &bed->arena, &sums), QY_OK);
        assert_int_equal(sums.n, 1);
        assert_float_equal(sums.recall, recalls[i], 1e-12);
        if (masses[i] >= 0.0) {
            assert_float_equal(sums.mass, masses[i], 1e-5);
        } else {
            assert_float_equal(sums.mass, reference(&bed->items[i], 1).mass, 1e-5);
        }
    }
    bed_close(bed);
}

static void audit_without_room_changes_nothing(void **state)
{
    struct bed *bed = bed_open();
    struct qy_audit_sums sums = {.n = 3, .recall = 2.0, .mass = 1.0};
    (void)state;

    bed->arena.bytes = 4096;
    assert_int_equal(qy_audit(bed->dev, bed->items, ITEMS, SCALE, &bed->arena, &sums),
                     QY_ERR_NOMEM);
    assert_true(sums.n == 3 && sums.recall == 2.0 && sums.mass == 1.0);
    assert_int_equal(qy_arena_mark(&bed->arena), 0);
    bed_close(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(audit_equals_the_reference_for_any_number_of_items),
        cmocka_unit_test(audit_of_edges_is_defined),
        cmocka_unit_test(audit_without_room_changes_nothing),
    };
    return cmocka_run_group_tests_name("retrieval.audit", tests, NULL, NULL);
}
