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

static void settings_defaults_name_a_policy_and_a_budget(void **state)
{
    struct qy_retrieval_settings settings;
    const struct qy_setting_table table = {qy_retrieval_setting_rows, qy_retrieval_setting_count,
                                           &settings};
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_policy_ops *ops = NULL;
    struct qy_budget budget;
    struct qy_config *config = NULL;
    (void)state;

    assert_int_equal(qy_config_open(&mem, &table, 1, &config, NULL), QY_OK);
    assert_int_equal(qy_policy_choose(settings.policy, &ops, NULL), QY_OK);
    assert_int_equal(qy_budget_parse(settings.budget, &budget, NULL), QY_OK);
    qy_config_close(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_are_found_by_place_and_by_name),
        cmocka_unit_test(policy_unknown_name_lists_names_and_the_nearest),
        cmocka_unit_test(policy_known_name_is_chosen),
        cmocka_unit_test(settings_defaults_name_a_policy_and_a_budget),
    };
    return cmocka_run_group_tests_name("retrieval.policy", tests, NULL, NULL);
}
