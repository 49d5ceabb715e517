/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks of a job compare before they work, and where a memory rank listens. Ranks of a real job are
 * tests/dist/job.py's. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

#include "serve/job/job.h"

enum { N = 4 };

struct one {
    struct qyi_args args;
    struct qyi_app app;
    struct qyi_job_rank rank;
};

/* A rank that was started with these words after "quarry generate -p x". */
static void describe(struct one *one, const char *const *more)
{
    const char *argv[16] = {"quarry", "generate", "-p", "x"};
    int n = 4;
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        argv[n++] = more[i];
    }
    struct qy_error err = {0};
    enum qy_status st = qyi_args_parse(n, (char **)(uintptr_t)argv, &one->args, &err);
    st = st == QY_OK ? qyi_app_settings(&one->args, &one->app, &err) : st;
    qyi_job_describe(&one->args, &one->app, st == QY_OK ? NULL : &err, &one->rank);
    qyi_job_describe_host(&one->rank);
}

static void describe_all(struct qyi_job_rank *ranks)
{
    struct one one;
    describe(&one, NULL);
    qyi_app_close(&one.app);
    for (int i = 0; i < N; i++) {
        ranks[i] = one.rank;
    }
}

static void ranks_of_one_program_agree(void **state)
{
    (void)state;
    struct qyi_job_rank ranks[N];
    int differ = 1;
    describe_all(ranks);
    assert_int_equal(qyi_job_compare(ranks, N, &differ, NULL), QY_OK);
    assert_int_equal(differ, 0);
    assert_int_not_equal(ranks[0].build, 0);
    assert_int_not_equal(ranks[0].host, 0);
    assert_string_equal(ranks[0].command, "generate");
}

static void other_programs_and_commands_are_refused_by_rank(void **state)
{
    (void)state;
    struct qyi_job_rank ranks[N];
    struct qy_error err;
    int differ;
    describe_all(ranks);
    snprintf(ranks[3].command, sizeof ranks[3].command, "bench decode");
    assert_int_equal(qyi_job_compare(ranks, N, &differ, &err), QY_ERR_CONFIG);
    assert_non_null(
        strstr(err.text, "rank 3 was started for 'quarry bench decode', rank 0 for 'quarry gen"));
    /* What another program says beside its version is not believed. */
    ranks[2].build++;
    ranks[2].failed = QY_ERR_NOMEM;
    assert_int_equal(qyi_job_compare(ranks, N, &differ, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "rank 2 runs another program than rank 0"));
}

static void failures_are_said_once_with_their_ranks(void **state)
{
    (void)state;
    struct qyi_job_failure f[N];
    struct qy_error err;
    memset(f, 0, sizeof f);
    assert_int_equal(qyi_job_failures(f, N, &err), QY_OK);
    f[2].failed = QY_ERR_UNSUPPORTED;
    strcpy(f[2].why, "no network");
    assert_int_equal(qyi_job_failures(f, N, &err), QY_ERR_UNSUPPORTED);
    assert_string_equal(err.text, "rank 2: no network");
    f[1].failed = QY_ERR_CONFIG;
    strcpy(f[1].why, "net.bytes '0'");
    assert_int_equal(qyi_job_failures(f, N, &err), QY_ERR_CONFIG);
    assert_string_equal(err.text, "rank 1 and 1 more of 4: net.bytes '0'");
    for (int i = 0; i < N; i++) {
        f[i] = f[1];
    }
    assert_int_equal(qyi_job_failures(f, N, &err), QY_ERR_CONFIG);
    assert_string_equal(err.text, "net.bytes '0'");
}

static void settings_that_cannot_be_are_a_failure(void **state)
{
    (void)state;
    static const char *const bad[] = {"--set", "cache.windo=3", NULL};
    struct qyi_job_rank ranks[N];
    struct one one;
    struct qy_error err;
    int differ;
    describe_all(ranks);
    describe(&one, bad);
    ranks[1] = one.rank;
    assert_int_equal(qyi_job_compare(ranks, N, &differ, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "rank 1: "));
    assert_non_null(strstr(err.text, "cache.windo"));
}

/* What rank 0 and a rank with these words come to; texts of settings are compared where they must be. */
static enum qy_status settings_of(const char *const *more, struct qy_error *err)
{
    struct one first, other;
    struct qyi_job_rank ranks[N];
    int differ;
    describe(&first, NULL);
    describe(&other, more);
    for (int i = 0; i < N; i++) {
        ranks[i] = i < 2 ? first.rank : other.rank;
    }
    enum qy_status st = qyi_job_compare(ranks, N, &differ, err);
    if (st == QY_OK && differ) {
        const size_t bytes = qyi_job_values_bytes(&first.app);
        char *all = malloc(bytes * N);
        assert_non_null(all);
        for (int i = 0; i < N; i++) {
            qyi_job_values(i < 2 ? &first.app : &other.app, all + (size_t)i * bytes);
        }
        st = qyi_job_different(&first.app, all, N, err);
        free(all);
    }
    qyi_app_close(&first.app);
    qyi_app_close(&other.app);
    return st;
}

static void settings_that_differ_are_named_with_values_and_ranks(void **state)
{
    (void)state;
    static const char *const own[] = {"--set", "runtime.threads=7", "--set", "net.bytes=1G",
                                      "--set", "model.file=/x",     NULL};
    static const char *const shared[] = {"--set", "net.bytes=1G",      "--set", "cache.window=96",
                                         "--set", "net.timeout_ms=77", NULL};
    struct qy_error err = {0};
    assert_int_equal(settings_of(own, &err), QY_OK);
    assert_int_equal(settings_of(shared, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(
        err.text,
        "cache.window: '64' on rank 0, '96' on rank 2 (2 ranks differ), and 1 more settings;"));
}

static void workers_that_differ_are_named_with_what_differs(void **state)
{
    (void)state;
    struct qyi_job_rank ranks[N];
    struct qy_error err = {0};
    memset(ranks, 0, sizeof ranks);
    for (int i = 0; i < N; i++) {
        for (int what = 0; what < QYI_SAME_COUNT; what++) {
            ranks[i].same[what] = 77;
        }
    }
    ranks[3].same[QYI_SAME_MODEL] = 78; /* a memory rank's, of three workers */
    assert_int_equal(qyi_job_same_work(ranks, 3, &err), QY_OK);
    ranks[2].same[QYI_SAME_PROMPTS] = 78;
    assert_int_equal(qyi_job_same_work(ranks, 3, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "the list of prompts (--prompts) of rank 2 differs"));
    ranks[1].same[QYI_SAME_MODEL] = 79;
    assert_int_equal(qyi_job_same_work(ranks, N, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "the model file of ranks 1, 3 differs"));
}

static void memory_rank_listens_where_others_reach_it(void **state)
{
    (void)state;
    static const struct {
        const char *listen, *device, *at;
    } cases[] = {
        {"", "", "127.0.0.1:0"},
        {":7700", "", "127.0.0.1:7700"},
        {"0.0.0.0:7700", "", "127.0.0.1:7700"},
        {"", "eth7", ":0"},
        {":7700", "eth7", ":7700"},
        {"10.0.0.2:7700", "", "10.0.0.2:7700"},
        {"nonsense", "", "nonsense"}, /* the server says what is wrong with it */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct qyi_net_settings net;
        char at[QY_SETTING_TEXT_BYTES];
        memset(&net, 0, sizeof net);
        snprintf(net.listen, sizeof net.listen, "%s", cases[i].listen);
        snprintf(net.device, sizeof net.device, "%s", cases[i].device);
        assert_int_equal(qyi_job_listen_at(&net, 1, at, sizeof at, NULL), QY_OK);
        assert_string_equal(at, cases[i].at);
    }
}

static void process_of_no_launcher_is_no_job(void **state)
{
    (void)state;
    static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                            "SLURM_PROCID"};
    struct qyi_args args = {.command = QYI_GENERATE};
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        unsetenv(variables[i]);
    }
    assert_int_equal(qyi_job_wanted(&args), 0);
    setenv("OMPI_COMM_WORLD_RANK", "0", 1);
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    assert_int_equal(qyi_job_wanted(&args), 0);
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(qyi_job_wanted(&args), 1);
    args.command = QYI_DOCTOR;
    assert_int_equal(qyi_job_wanted(&args), 0);
    args.command = QYI_BENCH;
    args.topic = "kernels";
    assert_int_equal(qyi_job_wanted(&args), 0);
    args.topic = "decode";
    assert_int_equal(qyi_job_wanted(&args), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_one_program_agree),
        cmocka_unit_test(other_programs_and_commands_are_refused_by_rank),
        cmocka_unit_test(failures_are_said_once_with_their_ranks),
        cmocka_unit_test(settings_that_cannot_be_are_a_failure),
        cmocka_unit_test(settings_that_differ_are_named_with_values_and_ranks),
        cmocka_unit_test(workers_that_differ_are_named_with_what_differs),
        cmocka_unit_test(memory_rank_listens_where_others_reach_it),
        cmocka_unit_test(process_of_no_launcher_is_no_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
