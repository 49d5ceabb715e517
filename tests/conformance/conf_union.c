/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of the union of lists of ids: every kernel set, exactly. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

#include "tests/conformance/conf_support.h"

static int id_compare(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* n ids of base .. base + range - 1, ascending, none twice; fewer when the range is smaller. */
static uint32_t some_ids(uint32_t n, uint32_t base, uint32_t range, uint32_t *ids)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t begin = (uint32_t)((uint64_t)range * i / n);
        const uint32_t end = (uint32_t)((uint64_t)range * (i + 1) / n);
        if (end > begin) {
            ids[count++] = base + begin + conf_random(end - begin);
        }
    }
    return count;
}

static void union_one(struct conf *c, uint32_t n_lists, uint32_t stride, uint32_t base,
                      uint32_t range)
{
    uint32_t *lists = malloc(((size_t)n_lists * stride + 1) * sizeof(*lists));
    uint32_t counts[64];
    uint32_t longest = 0;
    uint32_t total = 0;
    uint32_t n_ids = 4321;

    assert_non_null(lists);
    for (uint32_t j = 0; j < n_lists; j++) {
        const uint32_t n = conf_random(5) == 0 ? conf_random(stride + 1) : stride;
        counts[j] = some_ids(n, base, range, lists + (size_t)j * stride);
        longest = counts[j] > longest ? counts[j] : longest;
        total += counts[j];
    }
    uint32_t *all = malloc((total + 1) * sizeof(*all));
    uint32_t *ids = malloc(total == 0 ? 1 : total * sizeof(*ids)); /* room for all, not more */
    assert_true(all != NULL && ids != NULL);
    const struct qy_union_item item = {lists, counts, n_lists, stride, ids, &n_ids};
    assert_int_equal(qy_device_union(c->dev, &item, 1), QY_OK);
    assert_in_range(n_ids, longest, total);

    uint32_t n = 0;
    for (uint32_t j = 0; j < n_lists; j++) {
        memcpy(all + n, lists + (size_t)j * stride, counts[j] * sizeof(*all));
        n += counts[j];
    }
    qsort(all, total, sizeof(*all), id_compare);
    n = 0;
    for (uint32_t i = 0; i < total; i++) {
        if (i == 0 || all[i] != all[i - 1]) {
            assert_true(n < n_ids && ids[n] == all[i]);
            n++;
        }
    }
    assert_int_equal(n, n_ids);
    free(all);
    free(ids);
    free(lists);
}

static void union_holds_each_id_once(void **unused)
{
    static const uint32_t groups[] = {0, 1, 2, 3, 4, 7, 64};
    (void)unused;
    for (enum qy_cpu_level level = QY_CPU_PLAIN; level <= conf_best(); level++) {
        struct conf c;
        conf_open(&c, level, 2);
        for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
            union_one(&c, groups[i], 240, 8, 8192);
            union_one(&c, groups[i], 240, 0, 240); /* all the same */
            union_one(&c, groups[i], 240, 5, 300);
            union_one(&c, groups[i], 240, 4090, 64); /* across the end of a window */
            union_one(&c, groups[i], 50, 1000, 1000000);
            union_one(&c, groups[i], 1, 77, 2);
            union_one(&c, groups[i], 0, 0, 1);
            union_one(&c, groups[i], 17, UINT32_MAX - 5000, 5000);
            union_one(&c, groups[i], 100, 0, UINT32_MAX);
        }
        union_one(&c, 3, 6000, 8, 131072);
        conf_close(&c);
    }
}

static void union_many_items_match_on_every_thread_count(void **unused)
{
    enum { ITEMS = 8, LISTS = 3, N = 300 };
    static uint32_t lists[ITEMS][LISTS][N];
    static uint32_t ids[3][ITEMS][LISTS * N];
    uint32_t counts[ITEMS][LISTS];
    uint32_t n_ids[3][ITEMS];
    (void)unused;

    for (uint32_t i = 0; i < ITEMS; i++) {
        for (uint32_t j = 0; j < LISTS; j++) {
            counts[i][j] = some_ids(N, 4, 4000 * (i + 1), lists[i][j]);
        }
    }
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct qy_union_item items[ITEMS];
        struct conf c;
        conf_open(&c, conf_best(), threads);
        for (uint32_t i = 0; i < ITEMS; i++) {
            items[i] = (struct qy_union_item){
                lists[i][0], counts[i], LISTS, N, ids[threads - 1][i], &n_ids[threads - 1][i]};
        }
        assert_int_equal(qy_device_union(c.dev, items, ITEMS), QY_OK);
        for (uint32_t i = 0; i < ITEMS; i++) {
            assert_int_equal(n_ids[threads - 1][i], n_ids[0][i]);
            assert_memory_equal(ids[threads - 1][i], ids[0][i], n_ids[0][i] * sizeof(uint32_t));
        }
        conf_close(&c);
    }
}

static void union_bad_shape_is_invalid(void **unused)
{
    uint32_t lists[65 * 2] = {0};
    uint32_t counts[65] = {0};
    uint32_t ids[65 * 2];
    uint32_t n_ids = 0;
    struct conf c;
    (void)unused;

    conf_open(&c, QY_CPU_PLAIN, 1);
    const struct qy_union_item too_many = {lists, counts, 65, 2, ids, &n_ids};
    assert_int_equal(qy_device_union(c.dev, &too_many, 1), QY_ERR_INVALID);
    counts[1] = 3;
    const struct qy_union_item too_long = {lists, counts, 2, 2, ids, &n_ids};
    assert_int_equal(qy_device_union(c.dev, &too_long, 1), QY_ERR_INVALID);
    conf_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(union_holds_each_id_once),
        cmocka_unit_test(union_many_items_match_on_every_thread_count),
        cmocka_unit_test(union_bad_shape_is_invalid),
    };
    return cmocka_run_group_tests_name("conf.gpu.union", tests, NULL, NULL);
}
