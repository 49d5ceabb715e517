/* SPDX-License-Identifier: Apache-2.0 */
/* The list of policies, and the settings of this module. */
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <string.h>

static void policies_are_found_by_place_and_by_name(void **state)
{
    size_t n = 0;
    (void)state;

    for (const struct qy_policy_ops *ops; (ops = qy_policy_at(n)) != NULL; n++) {
        assert_int_equal(ops->abi_size, sizeof(struct qy_policy_ops));
        assert_ptr_equal(qy_policy_find(ops->name), ops);
        assert_true(strlen(ops->summary) > 0);
        assert_true(ops->select || ops->caps.dense || ops->caps.select_nothing);
    }
    assert_true(n >= 3);
    assert_null(qy_policy_at(n + 100));
    assert_true(qy_policy_find("dense")->caps.dense);
    assert_true(qy_policy_find("window")->caps.select_nothing);
    assert_true(qy_policy_find("exact")->caps.reads_all_keys);
}

static void policy_unknown_name_lists_names_and_the_nearest(void **state)
{
    const struct qy_policy_ops *ops = NULL;
    struct qy_error err = {0};
    (void)state;

    assert_int_equal(qy_policy_choose("exakt", &ops, &err), QY_ERR_CONFIG);
    assert_null(ops);
    assert_non_null(strstr(err.text, "policy 'exakt'"));
    assert_non_null(strstr(err.text, "dense, window, exact"));
    assert_non_null(strstr(err.text, "did you mean 'exact'"));
    assert_int_equal(qy_policy_choose("", &ops, &err), QY_ERR_CONFIG);
    assert_int_equal(qy_policy_choose("nothing-like-it", &ops, NULL), QY_ERR_CONFIG);
    assert_null(ops);
}

static void policy_known_name_is_chosen(void **state)
{
    const struct qy_policy_ops *ops = NULL;
    (void)state;

    assert_int_equal(qy_policy_choose("window", &ops, NULL), QY_OK);
    assert_string_equal(ops->name, "window");
}

static void policy_argument_is_what_follows_the_colon(void **state)
{
    const struct qy_policy_ops *ops = NULL;
    struct qy_error err = {0};
    (void)state;

    assert_string_equal(qy_policy_argument("faiss:IVF64,Flat"), "IVF64,Flat");
    assert_string_equal(qy_policy_argument("faiss:a:b"), "a:b");
    assert_string_equal(qy_policy_argument("exact"), "");
    assert_string_equal(qy_policy_argument("exact:"), "");
    assert_ptr_equal(qy_policy_find("exact:anything"), qy_policy_find("exact"));
    assert_null(qy_policy_find("exac:t"));
    assert_null(qy_policy_find(":exact"));

    assert_int_equal(qy_policy_choose("dense:all", &ops, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "'dense' takes no argument"));
    assert_null(ops);
}

static void settings_defaults_name_a_policy_and_leave_the_budget_to_it(void **state)
{
    struct qy_retrieval_settings settings;
    const struct qy_setting_table table = {qy_retrieval_setting_rows, qy_retrieval_setting_count,
                                           &settings};
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_policy_ops *ops = NULL;
    struct qy_config *config = NULL;
    (void)state;

    assert_int_equal(qy_config_open(&mem, &table, 1, &config, NULL), QY_OK);
    assert_int_equal(qy_policy_choose(settings.policy, &ops, NULL), QY_OK);
    assert_string_equal(settings.budget, "auto");
    assert_int_equal(settings.preset, QY_PRESET_FAITHFUL);
    assert_string_equal(settings.codebook, "auto");
    assert_int_equal(settings.auto_calibrate, 1);
    assert_float_equal(settings.audit_rate, 0.0, 0.0);
    assert_int_equal(settings.dense_layers, -1);
    assert_int_equal(settings.min_tokens, -1);
    assert_int_equal(settings.first_stage, QY_STAGE1_PQ4);
    assert_int_equal(settings.rerank, QY_RERANK_AUTO);
    assert_int_equal(settings.pooling, QY_POOLED_AUTO);
    assert_float_equal(settings.overfetch, 0.0, 0.0);
    assert_int_equal(settings.estimate, 0);
    assert_int_equal(settings.wrope_window, 64);
    assert_int_equal(settings.wrope_distance, 2048);
    assert_int_equal(settings.quest_page, 16);
    assert_int_equal(settings.pq_m, 2);
    assert_int_equal(settings.pq_bits, 6);
    assert_int_equal(settings.cluster_tokens, 16);
    assert_int_equal(settings.cluster_segment, 8192);
    assert_int_equal(settings.cluster_iterations, 10);
    assert_float_equal(settings.cluster_estimated, 0.232, 1e-12);
    qy_config_close(config);
}

/* The order of the names is that of the enums. */
static void settings_choices_are_the_enums(void **state)
{
    static const struct {
        const char *name, *value;
        size_t offset;
        int want;
    } cases[] = {
        {"retrieval.preset", "fast", offsetof(struct qy_retrieval_settings, preset),
         QY_PRESET_FAST},
        {"retrieval.first_stage", "bands", offsetof(struct qy_retrieval_settings, first_stage),
         QY_STAGE1_BANDS},
        {"retrieval.first_stage", "wrope", offsetof(struct qy_retrieval_settings, first_stage),
         QY_STAGE1_WROPE},
        {"retrieval.first_stage", "keys", offsetof(struct qy_retrieval_settings, first_stage),
         QY_STAGE1_KEYS},
        {"retrieval.first_stage", "exact", offsetof(struct qy_retrieval_settings, first_stage),
         QY_STAGE1_EXACT},
        {"retrieval.rerank", "off", offsetof(struct qy_retrieval_settings, rerank), QY_RERANK_OFF},
        {"retrieval.rerank", "keys", offsetof(struct qy_retrieval_settings, rerank),
         QY_RERANK_KEYS4},
        {"retrieval.rerank", "exact", offsetof(struct qy_retrieval_settings, rerank),
         QY_RERANK_EXACT},
        {"retrieval.pooling", "sum", offsetof(struct qy_retrieval_settings, pooling),
         QY_POOLED_SUM},
        {"retrieval.pooling", "max", offsetof(struct qy_retrieval_settings, pooling),
         QY_POOLED_MAX},
        {"retrieval.pooling", "union", offsetof(struct qy_retrieval_settings, pooling),
         QY_POOLED_UNION},
    };
    struct qy_retrieval_settings settings;
    const struct qy_setting_table table = {qy_retrieval_setting_rows, qy_retrieval_setting_count,
                                           &settings};
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_config *config = NULL;
    (void)state;

    assert_int_equal(qy_config_open(&mem, &table, 1, &config, NULL), QY_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int got;

        assert_int_equal(qy_config_set_value(config, cases[i].name, cases[i].value, "test", NULL),
                         QY_OK);
        memcpy(&got, (const char *)&settings + cases[i].offset, sizeof(got));
        assert_int_equal(got, cases[i].want);
    }
    qy_config_close(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_are_found_by_place_and_by_name),
        cmocka_unit_test(policy_unknown_name_lists_names_and_the_nearest),
        cmocka_unit_test(policy_known_name_is_chosen),
        cmocka_unit_test(policy_argument_is_what_follows_the_colon),
        cmocka_unit_test(settings_defaults_name_a_policy_and_leave_the_budget_to_it),
        cmocka_unit_test(settings_choices_are_the_enums),
    };
    return cmocka_run_group_tests_name("retrieval.policy", tests, NULL, NULL);
}
