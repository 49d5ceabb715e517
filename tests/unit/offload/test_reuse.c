/* SPDX-License-Identifier: Apache-2.0 */
/* Choices used again: when the policy is asked, and what is attended to when it is not. */
#include "tests/unit/offload/probe.h"
#include "tests/unit/offload/rig.h"

#include <string.h>

#include "offload/cache.h"

static void reuse_parse_takes_pairs_of_layers(void **state)
{
    static const struct {
        const char *text;
        uint32_t at, source; /* of one layer */
        enum qy_status status;
    } cases[] = {
        {"off", 3, QYI_NO_SOURCE, QY_OK},
        {"", 3, QYI_NO_SOURCE, QY_OK},
        {"4:3", 4, 3, QY_OK},
        {"4:3,5:3,7:6", 5, 3, QY_OK},
        {"4:3,5:3,7:6", 6, QYI_NO_SOURCE, QY_OK},
        {"4:3,5:4", 0, 0, QY_ERR_CONFIG}, /* 4 chose nothing itself */
        {"3:4", 0, 0, QY_ERR_CONFIG},
        {"3:3", 0, 0, QY_ERR_CONFIG},
        {"8:3", 0, 0, QY_ERR_CONFIG}, /* there are 8 layers */
        {"4:3,", 0, 0, QY_ERR_CONFIG},
        {"4", 0, 0, QY_ERR_CONFIG},
        {"4:3 5:3", 0, 0, QY_ERR_CONFIG},
        {"on", 0, 0, QY_ERR_CONFIG},
    };
    uint32_t source[8];
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct qy_error err = {0};
        const enum qy_status st = qyi_reuse_parse(cases[i].text, 8, source, &err);

        assert_int_equal(st, cases[i].status);
        if (st == QY_OK) {
            assert_int_equal(source[cases[i].at], cases[i].source);
        } else {
            assert_non_null(strstr(err.text, "retrieval.reuse_layers"));
        }
    }
}

static void reuse_alike_asks_every_head(void **state)
{
    static const float a[4] = {1.0F, 0.0F, 0.0F, 2.0F};
    static const struct {
        float b[4];
        double least;
        int alike;
    } cases[] = {
        {{2.0F, 0.0F, 0.0F, 1.0F}, 0.99, 1}, {{1.0F, 1.0F, 0.0F, 1.0F}, 0.7, 1},
        {{1.0F, 1.0F, 0.0F, 1.0F}, 0.8, 0},  {{2.0F, 0.0F, 0.0F, -1.0F}, 0.5, 0},
        {{2.0F, 0.0F, 1.0F, 0.0F}, -0.5, 1}, {{2.0F, 0.0F, 1.0F, 0.0F}, 0.5, 0},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(qyi_reuse_alike(a, cases[i].b, 2, 2, cases[i].least), cases[i].alike);
    }
}

/* What steps attended to in layer 1, KV head 0: lists are [n], of one sequence. */
struct seen {
    uint32_t n_lists;
    uint32_t n[32], ids[32][512];
};

static void see(void *ctx, uint32_t sequence, uint32_t layer, uint32_t kv_head, const uint32_t *ids,
                uint32_t n)
{
    struct seen *seen = ctx;

    (void)sequence;
    if (layer == 1 && kv_head == 0) {
        seen->n[seen->n_lists] = n;
        memcpy(seen->ids[seen->n_lists++], ids, n * sizeof(*ids));
    }
}

static void open_rig(struct rig *rig, const struct qy_retrieval_settings *settings,
                     struct seen *seen, const char *device)
{
    const struct rig_options o = {.policy = "exact",
                                  .budget = "16",
                                  .f16 = 1,
                                  .device = device,
                                  .plan = QY_PLAN_PULL,
                                  .retrieval = settings};

    rig_prepare(rig, &o);
    rig->params.on_selection = see;
    rig->params.selection_ctx = seen;
    assert_int_equal(qy_cache_open(&rig->params, &rig->cache, NULL), QY_OK);
}

static void decode(struct rig *rig, struct qy_sequence *seq, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct rig_feed feed = {.seq = seq, .stream = 1, .n = 1};

        assert_int_equal(rig_step(rig, &feed, 1), QY_OK);
    }
}

/* Is list b what list a was, with all tokens that came since? */
static int grew(const struct seen *seen, uint32_t a, uint32_t b)
{
    const uint32_t n = seen->n[a];

    for (uint32_t i = 0; i < seen->n[b]; i++) {
        const uint32_t want = i < n ? seen->ids[a][i] : seen->ids[a][n - 1] + 1 + i - n;

        if (seen->ids[b][i] != want) {
            return 0;
        }
    }
    return seen->n[b] == n + (b - a);
}

/* Lists grow by the new token for two steps, then there is a new one; a cut begins anew. The same on a
 * discrete device. */
static void reuse_every_third_step_chooses(void **state)
{
    static const char *const devices[2] = {"host", "host-discrete:64M"};
    struct qy_retrieval_settings settings;
    static struct seen seen;
    (void)state;

    for (int i = 0; i < 4; i++) {
        const struct qy_allocator mem = qy_allocator_system();
        struct rig rig;

        assert_int_equal(qyi_settings_initial(&mem, &settings, NULL), QY_OK);
        settings.reuse = i < 2 ? QY_REUSE_EVERY : QY_REUSE_COSINE;
        settings.reuse_cosine = i == 2 ? -1.0 : 1.0; /* all queries are alike, and none are */
        settings.reuse_every = 3;
        seen.n_lists = 0;
        open_rig(&rig, &settings, &seen, devices[i % 2]);
        struct qy_sequence *seq = rig_sequence(&rig);
        rig_prefill(&rig, seq, 1, 200, 64, NULL);
        decode(&rig, seq, 7);
        assert_int_equal(seen.n_lists, 7);
        for (uint32_t s = 0; s < 7; s++) {
            if (s % 3 == 0 || i == 3) {
                assert_int_equal(seen.n[s], 16 + 4 + 8);
            } else {
                assert_true(grew(&seen, s - s % 3, s));
            }
        }
        assert_int_equal(qy_sequence_truncate(seq, 206), QY_OK);
        decode(&rig, seq, 1); /* the choice of the seventh step is gone */
        assert_int_equal(seen.n[7], 16 + 4 + 8);
        rig_close(&rig);
    }
}

/* Layer 1 attends to what layer 0 chose, where layer 0 came first. */
static void reuse_of_a_layer_takes_its_list(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_retrieval_settings settings;
    static struct seen seen[1];
    static float qkv[RIG_STRIDE], out[RIG_OUT];
    struct rig rig;
    (void)state;

    assert_int_equal(qyi_settings_initial(&mem, &settings, NULL), QY_OK);
    strcpy(settings.reuse_layers, "1:0");
    open_rig(&rig, &settings, seen, NULL);
    struct qy_sequence *seq = rig_sequence(&rig);
    rig_prefill(&rig, seq, 1, 200, 64, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        const int32_t id = 7;
        const struct qy_step_slice slice = {.seq = seq, .n_tokens = 1, .ids = &id};
        const struct qy_qkv args = {
            .q = qkv, .k = qkv + RIG_K_AT, .v = qkv + RIG_V_AT, .stride = RIG_STRIDE, .out = out};

        assert_int_equal(qy_step_begin(rig.cache, &slice, 1, NULL), QY_OK);
        for (uint32_t l = 0; l < RIG_LAYERS; l++) {
            const uint32_t place = i % 2 == 0 ? l : 1 - l; /* either layer first */

            rig_qkv(1, place, 200 + i, qkv);
            assert_int_equal(qy_step_attend(rig.cache, place, &args), QY_OK);
        }
        assert_int_equal(qy_step_end(rig.cache), QY_OK);
        const struct qyi_last_list *first = qyi_last_list(&rig.cache->last, 0, 0, 0);
        assert_int_equal(first->n, 201 + i);
        assert_int_equal(first->n_ids, 16);
        assert_int_equal(seen->n[i], 16 + 4 + 8);
        const int same = memcmp(seen->ids[i] + 4, first->ids, 16 * sizeof(uint32_t)) == 0;
        assert_int_equal(same, i % 2 == 0);
    }
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reuse_parse_takes_pairs_of_layers),
        cmocka_unit_test(reuse_alike_asks_every_head),
        cmocka_unit_test(reuse_every_third_step_chooses),
        cmocka_unit_test(reuse_of_a_layer_takes_its_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
