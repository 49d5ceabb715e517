/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens scored in parts: the best of all parts' best, united, are what one select chooses, ties and all. */
#include "tests/unit/retrieval/token_bed.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS = 3, MOST = BED_MAX_N };

struct found {
    uint32_t id;
    float score;
};

static int by_score(const void *a, const void *b)
{
    const struct found *x = a;
    const struct found *y = b;

    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* Each query head's best of the item's blocks p, p + PARTS, ...: found [group][MOST], n_found. */
static void best_of_part(struct bed *bed, const struct qy_select_item *it, uint32_t p, uint32_t k,
                         struct found *found, uint32_t *n_found)
{
    uint8_t *blocks[BED_MAX_BLOCKS];
    uint32_t numbers[BED_MAX_BLOCKS];
    uint32_t places[BED_GROUP * MOST];
    float scores[BED_GROUP * MOST];
    const uint32_t last = (it->hi - 1) >> BED_SHIFT;
    struct qy_best_item item = {.q = it->q,
                                .index = it->index,
                                .group = it->group,
                                .n_tokens = it->n,
                                .layer = it->layer,
                                .kv_head = it->kv_head,
                                .sequence = it->sequence,
                                .places = places,
                                .scores = scores};
    uint32_t n = 0;

    for (uint32_t b = (it->lo >> BED_SHIFT) + p; b <= last; b += PARTS) {
        numbers[n] = b;
        blocks[n++] = it->index.blocks[b];
    }
    if (n == 0) {
        return;
    }
    item.index.blocks = blocks;
    item.first = numbers[0] << BED_SHIFT < it->lo ? it->lo - (numbers[0] << BED_SHIFT) : 0;
    item.n = (n << BED_SHIFT) - item.first;
    item.n -= numbers[n - 1] == last ? ((last + 1) << BED_SHIFT) - it->hi : 0;
    item.k = k < item.n ? k : item.n;
    const size_t scratch = bed->ops->best_scratch(bed->policy, 1, item.n);
    assert_int_equal(bed->ops->best(bed->policy, &item, 1, bed_arena(bed, scratch)), QY_OK);
    for (uint32_t h = 0; h < it->group; h++) {
        for (uint32_t i = 0; i < item.k; i++) {
            const uint32_t place = places[h * item.k + i];

            found[h * MOST + n_found[h]++] = (struct found){
                numbers[place >> BED_SHIFT] << BED_SHIFT | (place & ((1U << BED_SHIFT) - 1)),
                scores[h * item.k + i]};
        }
    }
}

static void expect_same(struct bed *bed, uint32_t at)
{
    static struct found found[BED_GROUP * MOST];
    const struct qy_select_item *it = &bed->items[at];
    uint32_t n_found[BED_GROUP] = {0};
    uint8_t chosen[MOST] = {0};
    uint32_t n = 0;

    const uint32_t k = bed->ops->best_k(bed->policy, it);
    for (uint32_t p = 0; k > 0 && p < PARTS; p++) {
        best_of_part(bed, it, p, k, found, n_found);
    }
    for (uint32_t h = 0; h < it->group; h++) {
        qsort(found + h * MOST, n_found[h], sizeof(found[0]), by_score);
        for (uint32_t i = 0; i < k; i++) {
            chosen[found[h * MOST + i].id] = 1;
        }
    }
    for (uint32_t id = 0; id < it->n; id++) {
        n += chosen[id];
        assert_int_equal(chosen[id], bed_has(bed, at, id));
    }
    assert_int_equal(n, bed->n_ids[at]);
}

/* noise 0: keys are words, and many tokens score the same. */
static void parts_choose_what_one_select_does(void **state)
{
    static const uint32_t lengths[BED_TEXTS] = {500, 800, 137, 70, 333};
    static const struct {
        const char *policy;
        enum qy_first_stage first;
    } cases[] = {{"a2ats", QY_STAGE1_PQ4},
                 {"a2ats+", QY_STAGE1_PQ4},
                 {"a2ats+", QY_STAGE1_KEYS},
                 {"a2ats+", QY_STAGE1_WROPE}};
    (void)state;

    for (uint32_t noisy = 0; noisy < 2; noisy++) {
        struct bed *bed = bed_new(1 + noisy);

        for (uint32_t i = 0; i < BED_TEXTS; i++) {
            bed_text(bed, i, lengths[i], noisy ? 0.3F : 0.0F);
        }
        bed->settings.wrope_window = BED_WINDOW;
        bed->settings.pooling = QY_POOLED_UNION;
        bed->settings.rerank = QY_RERANK_OFF;
        for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
            bed->settings.first_stage = cases[c].first;
            bed_policy(bed, cases[c].policy, 0);
            assert_true(bed->ops->scores_apart(&bed->settings, BED_WINDOW));
            for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
                bed_item(bed, i, i / BED_KV, i % BED_KV, 2 + 7 * i);
            }
            bed_select(bed, BED_MAX_ITEMS);
            for (uint32_t i = 0; i < BED_MAX_ITEMS; i++) {
                expect_same(bed, i);
            }
        }
        bed_free(bed);
    }
}

static void settings_say_who_may(void **state)
{
    const struct qy_policy_ops *plus = qy_policy_find("a2ats+");
    const struct qy_policy_ops *plain = qy_policy_find("a2ats");
    struct bed *bed = bed_new(1);
    struct qy_retrieval_settings *s = &bed->settings;
    (void)state;

    assert_int_equal(plain->scores_apart(s, (uint32_t)s->wrope_window), 1);
    assert_int_equal(plain->scores_apart(s, (uint32_t)s->wrope_window - 1),
                     0); /* keys of the near */
    s->pooling = QY_POOLED_SUM;
    assert_int_equal(plain->scores_apart(s, 1 << 20), 0);
    for (int preset = QY_PRESET_FAITHFUL; preset <= QY_PRESET_FAST; preset++) {
        s->preset = preset;
        s->pooling = QY_POOLED_AUTO;
        assert_int_equal(plus->scores_apart(s, 1 << 20), 0);
        s->pooling = QY_POOLED_UNION;
        assert_int_equal(plus->scores_apart(s, 1 << 20), preset == QY_PRESET_FAST);
    }
    s->estimate = 4;
    assert_int_equal(plus->scores_apart(s, 1 << 20), 0);
    s->estimate = 0;
    s->first_stage = QY_STAGE1_BANDS;
    assert_int_equal(plus->scores_apart(s, 1 << 20), 0);
    s->first_stage = QY_STAGE1_EXACT;
    assert_int_equal(plus->scores_apart(s, 1 << 20), 0);
    assert_null(qy_policy_find("quest")->scores_apart);
    bed_free(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_choose_what_one_select_does),
        cmocka_unit_test(settings_say_who_may),
    };
    return cmocka_run_group_tests_name("retrieval.rank_best", tests, NULL, NULL);
}
