/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conformance of decode attention over rows that lie anywhere in one row store: ids are then row
 * numbers in token order, so in no order of their own. Where a row lies changes no bit. And of the
 * merge of partials that may be empty.
 */
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/conformance/conf_support.h"

enum { GROUP = 5, STORE_SHIFT = 31 };

/* A store that holds just the chosen rows, each at a random place, between rows of NaN. */
struct store {
    uint8_t *base;
    uint32_t *numbers; /* [n] of the chosen rows, in token order */
    struct qy_rows rows;
};

static void store_open(struct store *s, const struct conf_rows *home, const uint32_t *ids,
                       uint32_t n)
{
    const size_t row_bytes = qy_row_bytes(home->rows.type, home->rows.d);
    const uint32_t n_slots = 2 * n + 1;

    s->base = malloc(n_slots * row_bytes);
    s->numbers = malloc(n_slots * sizeof(*s->numbers));
    assert_true(s->base != NULL && s->numbers != NULL);
    memset(s->base, 0xff, n_slots * row_bytes);
    for (uint32_t i = 0; i < n_slots; i++) {
        s->numbers[i] = i;
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t other = i + conf_random(n_slots - i);
        const uint32_t number = s->numbers[other];
        s->numbers[other] = s->numbers[i];
        s->numbers[i] = number;
        memcpy(s->base + number * row_bytes, qy_row_at(&home->rows, ids[i]), row_bytes);
    }
    s->rows = (struct qy_rows){
        .blocks = &s->base, .shift = STORE_SHIFT, .d = home->rows.d, .type = home->rows.type};
}

static void store_close(struct store *s)
{
    free(s->base);
    free(s->numbers);
}

/* n of the home's rows, ascending. */
static uint32_t *choose(const struct conf_rows *home, uint32_t n)
{
    uint32_t *ids = malloc((n + 1) * sizeof(*ids));

    assert_non_null(ids);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = (uint32_t)((uint64_t)i * home->n / n);
    }
    return ids;
}

static void slots_equal_home_rows(struct conf *c, enum qy_row_type type, uint32_t d, uint32_t n,
                                  int with_bias)
{
    const size_t heads_d = (size_t)GROUP * d;
    struct conf_rows home;
    struct store store;
    float lse[2][GROUP];
    float *q = conf_floats(heads_d, 2.0F);
    float *out = conf_floats(2 * heads_d, 1.0F);
    float *bias = conf_floats(n, 1.0F);

    conf_rows_open(&home, type, d, 4, 2 * n + 9, 2.0F);
    uint32_t *ids = choose(&home, n);
    store_open(&store, &home, ids, n);
    const struct qy_attend_item items[2] = {{.q = q,
                                             .rows = home.rows,
                                             .ids = ids,
                                             .n = n,
                                             .group = GROUP,
                                             .bias = with_bias ? bias : NULL,
                                             .out = out,
                                             .lse = lse[0]},
                                            {.q = q,
                                             .rows = store.rows,
                                             .ids = store.numbers,
                                             .n = n,
                                             .group = GROUP,
                                             .bias = with_bias ? bias : NULL,
                                             .out = out + heads_d,
                                             .lse = lse[1]}};
    conf_arena(c, qy_device_attend_scratch(c->dev, 2, n, GROUP, d));
    assert_int_equal(qy_device_attend(c->dev, items, 2, 0.125F, &c->arena), QY_OK);
    assert_memory_equal(out, out + heads_d, heads_d * sizeof(*out));
    assert_memory_equal(lse[0], lse[1], sizeof(lse[0]));
    store_close(&store);
    conf_rows_close(&home);
    free(ids);
    free(q);
    free(out);
    free(bias);
}

static void attend_slots_in_any_order_equal_home_rows_in_bits(void **unused)
{
    static const uint32_t sizes_d[] = {64, 80, 128, 6};
    static const uint32_t lengths[] = {1, 33, 256, 257, 1500};
    (void)unused;
    conf_seed(31);
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (uint32_t i = 0; i < 4; i++) {
            for (uint32_t j = 0; j < 5; j++) {
                slots_equal_home_rows(&c, QY_ROW_F16, sizes_d[i], lengths[j], j % 2);
                slots_equal_home_rows(&c, QY_ROW_F32, sizes_d[i], lengths[j], i % 2);
            }
        }
        conf_close(&c);
    }
}

/* Row numbers up to the last that a store can have. */
static void attend_last_row_numbers_are_reached(void **unused)
{
    enum { N = 300, D = 64, LAST = 0x7fffffff };
    const size_t row_bytes = qy_row_bytes(QY_ROW_F16, D);
    const size_t bytes = row_bytes << STORE_SHIFT;
    const size_t tail = N * row_bytes;
    const size_t tail_at = (bytes - tail) / 65536 * 65536; /* whole pages */
    /* half a terabyte of addresses, of which the last few pages are used */
    uint8_t *base =
        mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct conf_rows home;
    uint32_t ids[2][N];
    float lse[2][GROUP];
    float *q = conf_floats((size_t)GROUP * D, 2.0F);
    float *out = conf_floats((size_t)2 * GROUP * D, 1.0F);
    (void)unused;

    if (base == MAP_FAILED) {
        free(q);
        free(out);
        skip(); /* the address space is limited */
    }
    assert_int_equal(mprotect(base + tail_at, bytes - tail_at, PROT_READ | PROT_WRITE), 0);
    conf_rows_open(&home, QY_ROW_F16, D, 7, N, 2.0F);
    const struct qy_rows rows = {.blocks = &base, .shift = STORE_SHIFT, .d = D, .type = QY_ROW_F16};
    for (uint32_t i = 0; i < N; i++) { /* backwards */
        ids[0][i] = i;
        ids[1][i] = (uint32_t)LAST - i;
        memcpy(base + ids[1][i] * row_bytes, qy_row_at(&home.rows, i), row_bytes);
    }
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 1);
        struct qy_attend_item items[2];
        for (uint32_t i = 0; i < 2; i++) {
            items[i] = (struct qy_attend_item){.q = q,
                                               .rows = i ? rows : home.rows,
                                               .ids = ids[i],
                                               .n = N,
                                               .group = GROUP,
                                               .out = out + (size_t)i * GROUP * D,
                                               .lse = lse[i]};
        }
        assert_int_equal(qy_device_attend(c.dev, items, 2, 0.125F, &c.arena), QY_OK);
        assert_memory_equal(out, items[1].out, (size_t)GROUP * D * sizeof(*out));
        assert_memory_equal(lse[0], lse[1], sizeof(lse[0]));
        conf_close(&c);
    }
    conf_rows_close(&home);
    munmap(base, bytes);
    free(q);
    free(out);
}

/* Empty partials, whatever their outputs hold, change no bit wherever they stand. */
static void merge_empty_partials_change_no_bit(void **unused)
{
    enum { FULL = 4, MOST = 12, D = 48, FLOATS = GROUP * D };
    static float all[MOST][FLOATS];
    static float all_lse[MOST][GROUP];
    struct conf c;
    float want[FLOATS];
    float want_lse[GROUP];
    float out[FLOATS];
    float lse[GROUP];
    float *parts = conf_floats((size_t)FULL * FLOATS, 1.0F);
    float *lses = conf_floats((size_t)FULL * GROUP, 9.0F);
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    assert_int_equal(qy_device_merge(c.dev, parts, lses, FULL, GROUP, D, want, want_lse), QY_OK);
    for (int round = 0; round < 20; round++) {
        uint32_t left = FULL;
        for (uint32_t p = 0; p < MOST; p++) {
            const int full = left > 0 && conf_random(MOST - p) < left;
            for (uint32_t i = 0; i < FLOATS; i++) {
                all[p][i] = full ? parts[(FULL - left) * FLOATS + i] : round % 2 ? NAN : 3.0F;
            }
            for (uint32_t h = 0; h < GROUP; h++) {
                all_lse[p][h] = full ? lses[(FULL - left) * GROUP + h] : -INFINITY;
            }
            left -= (uint32_t)full;
        }
        assert_int_equal(left, 0);
        assert_int_equal(qy_device_merge(c.dev, all[0], all_lse[0], MOST, GROUP, D, out, lse),
                         QY_OK);
        assert_memory_equal(out, want, sizeof(want));
        assert_memory_equal(lse, want_lse, sizeof(want_lse));
    }
    conf_close(&c);
    free(parts);
    free(lses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attend_slots_in_any_order_equal_home_rows_in_bits),
        cmocka_unit_test(attend_last_row_numbers_are_reached),
        cmocka_unit_test(merge_empty_partials_change_no_bit),
    };
    return cmocka_run_group_tests_name("conf.gpu.slots", tests, NULL, NULL);
}
