/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a cache: the settings, the refusals, the memory it says it takes. */
#include "tests/unit/offload/rig.h"

#include <string.h>

static void settings_defaults_are_accepted(void **state)
{
    struct qy_cache_settings settings;
    const struct qy_setting_table table = {qy_cache_setting_rows, qy_cache_setting_count,
                                           &settings};
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_config *config = NULL;
    struct rig rig;
    (void)state;

    assert_int_equal(qy_config_open(&mem, &table, 1, &config, NULL), QY_OK);
    assert_int_equal(settings.block_tokens, 128);
    assert_int_equal(settings.sinks, 8);
    assert_int_equal(settings.window, 64);
    assert_int_equal(settings.row_type, QY_ROW_F16);
    assert_int_equal(settings.host_bytes, 0);
    assert_int_equal(qy_config_set(config, "cache.row_type=f32", "--set", NULL), QY_OK);
    assert_int_equal(settings.row_type, QY_ROW_F32);
    rig_prepare(&rig, &(struct rig_options){0});
    rig.params.settings = settings;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, NULL), QY_OK);
    qy_config_close(config);
    rig_close(&rig);
}

static void open_refusal_names_the_setting(void **state)
{
    static const struct qy_policy_ops old = {.abi_size = 8, .name = "old", .caps = {.dense = 1}};
    static const struct qy_policy_ops empty = {.abi_size = sizeof(empty), .name = "empty"};
    struct qy_cache_params bad[10];
    static const char *const texts[10] = {
        "cache.block_tokens", "cache.window", "cache.sinks",   "sequences",          "KV heads",
        "rotation",           "rebuild it",   "has no select", "no budget is given", "rebuild it"};
    struct rig rig;
    (void)state;

    rig_prepare(&rig, &(struct rig_options){.policy = "exact"});
    for (int i = 0; i < 10; i++) {
        bad[i] = rig.params;
    }
    bad[0].settings.block_tokens = 100;
    bad[1].settings.window = 0;
    bad[2].settings.sinks = -1;
    bad[3].max_sequences = 0;
    bad[4].shape.n_kv_heads = 4;
    bad[5].rope.dim = RIG_D + 2;
    bad[6].policy = &old;
    bad[7].policy = &empty;
    bad[8].budget = (struct qy_budget){0};
    bad[9].policy = NULL;
    for (int i = 0; i < 10; i++) {
        struct qy_cache *cache = NULL;
        struct qy_error err = {0};
        const enum qy_status st = qy_cache_open(&bad[i], &cache, &err);

        assert_true(st == QY_ERR_CONFIG || st == QY_ERR_INVALID);
        assert_null(cache);
        assert_non_null(strstr(err.text, texts[i]));
    }
    rig_close(&rig);
}

static void open_refuses_more_than_there_is_before_work_starts(void **state)
{
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    rig_prepare(&rig, &(struct rig_options){.max_tokens = 1 << 30, .max_sequences = 4});
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_NOMEM);
    assert_non_null(strstr(err.text, "cache.host_bytes: the request needs"));
    assert_non_null(strstr(err.text, "GiB of memory is usable"));
    assert_non_null(strstr(err.text, "--ctx"));

    rig.params.max_tokens = 1024; /* 64 blocks of 33 KiB */
    rig.params.settings.host_bytes = 1 << 20;
    assert_int_equal(qy_cache_open(&rig.params, &rig.cache, &err), QY_ERR_NOMEM);
    assert_non_null(strstr(err.text, "cache.host_bytes '1.0 MiB': one sequence of 1024 tokens"));
    rig_close(&rig);
}

static void open_honours_host_bytes_exactly(void **state)
{
    struct qy_cache_stats stats;
    struct rig rig;
    (void)state;

    rig_open(&rig, &(struct rig_options){.max_tokens = 256, .max_sequences = 4});
    const uint64_t block = qy_cache_bytes_for(rig.cache, 1);
    assert_int_equal(qy_cache_bytes_for(rig.cache, 0), 0);
    assert_int_equal(qy_cache_bytes_for(rig.cache, 17), 2 * block);
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.blocks_total, 64);
    assert_int_equal(stats.reserved_bytes, 64 * block);
    rig_close(&rig);

    rig_open(&rig, &(struct rig_options){
                       .max_tokens = 256, .max_sequences = 4, .host_bytes = 21 * block - 1});
    qy_cache_stats(rig.cache, &stats);
    assert_int_equal(stats.blocks_total, 20);
    assert_true(stats.reserved_bytes <= 21 * block - 1);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_defaults_are_accepted),
        cmocka_unit_test(open_refusal_names_the_setting),
        cmocka_unit_test(open_refuses_more_than_there_is_before_work_starts),
        cmocka_unit_test(open_honours_host_bytes_exactly),
    };
    return cmocka_run_group_tests_name("offload.cache", tests, NULL, NULL);
}
