/* SPDX-License-Identifier: Apache-2.0 */
/* The option table: every row can be parsed, and what is not in it is refused. */
#include "tests/support/test.h"

#include <string.h>

#include "serve/serve.h"

static enum qy_status parse(struct qyi_args *args, struct qy_error *err, int n, const char **words)
{
    char *argv[16];
    argv[0] = (char *)(uintptr_t) "quarry";
    for (int i = 0; i < n; i++) {
        argv[i + 1] = (char *)(uintptr_t)words[i];
    }
    err->text[0] = '\0';
    return qyi_args_parse(n + 1, argv, args, err);
}
#define PARSE(args, err, ...)                                                                      \
    parse(args, err, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),                \
          (const char *[]){__VA_ARGS__})

static void options_with_defaults_are_left_alone(void **state)
{
    (void)state;
    struct qyi_args args;
    struct qy_error err;
    assert_int_equal(PARSE(&args, &err, "generate"), QY_OK);
    assert_int_equal(args.command, QYI_GENERATE);
    assert_int_equal(args.n, 128);
    assert_null(args.file);
    assert_int_equal(args.n_sets, 0);
}

static void options_of_each_kind_are_stored(void **state)
{
    (void)state;
    struct qyi_args args;
    struct qy_error err;
    assert_int_equal(PARSE(&args, &err, "generate", "-f", "-", "--predict=9", "--chat", "--budget",
                           "0.1", "--set", "cache.window=3"),
                     QY_OK);
    assert_string_equal(args.file, "-");
    assert_int_equal(args.n, 9);
    assert_int_equal(args.chat, 1);
    assert_int_equal(args.n_sets, 2);
    assert_string_equal(args.sets[0], "retrieval.budget=0.1");
    assert_string_equal(args.flags[0], "--budget");
    assert_string_equal(args.sets[1], "cache.window=3");
}

static void options_in_every_row_are_accepted_by_their_commands_only(void **state)
{
    (void)state;
    struct qyi_args args;
    struct qy_error err;
    size_t n = 0;
    for (; qyi_option_at(n) != NULL; n++) {
        const struct qyi_option *o = qyi_option_at(n);
        for (size_t c = 0; qyi_command_at(c) != NULL; c++) {
            const struct qyi_command_info *info = qyi_command_at(c);
            const char *topic = info->command == QYI_EVAL    ? "ppl"
                                : info->command == QYI_BENCH ? "decode"
                                                             : NULL;
            const char *words[4];
            int used = 0;
            words[used++] = info->name;
            if (topic != NULL) {
                words[used++] = topic;
            }
            words[used++] = o->alias;
            if (o->value != NULL) {
                words[used++] = strcmp(o->alias, "--set") == 0 ? "a.b=1" : "1";
            }
            const enum qy_status st = parse(&args, &err, used, words);
            const int takes = (o->commands & (unsigned)info->command) != 0;
            assert_int_equal(st == QY_OK, takes);
        }
        assert_non_null(o->alias);
        assert_true(strlen(o->help) > 3);
    }
    assert_true(n > 20);
}

static void options_that_are_wrong_say_what_is_accepted(void **state)
{
    (void)state;
    struct qyi_args args;
    struct qy_error err;
    assert_int_equal(PARSE(&args, &err, "tokenise"), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "did you mean 'tokenize'"));
    assert_int_equal(PARSE(&args, &err, "eval"), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "ppl"));
    assert_int_equal(PARSE(&args, &err, "generate", "--polcy", "x"), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "did you mean '--policy'"));
    assert_int_equal(PARSE(&args, &err, "generate", "-n", "99999999999"), QY_ERR_CONFIG);
    assert_int_equal(PARSE(&args, &err, "bench", "decode", "again"), QY_ERR_CONFIG);
}

static void options_without_end_do_not_overflow(void **state)
{
    (void)state;
    enum { N = QYI_MAX_SETS + 2 };
    static char *argv[2 * N + 2];
    struct qyi_args args;
    struct qy_error err = {0};
    argv[0] = argv[1] = (char *)(uintptr_t) "config";
    for (int i = 0; i < N; i++) {
        argv[2 + 2 * i] = (char *)(uintptr_t) "--set";
        argv[3 + 2 * i] = (char *)(uintptr_t) "cache.window=1";
    }
    assert_int_equal(qyi_args_parse(2 * N + 2, argv, &args, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "more than"));
    char longer[1000];
    memset(longer, 'x', sizeof longer - 1);
    longer[0] = '=';
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(PARSE(&args, &err, "config", "--set", longer), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "longer than"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_with_defaults_are_left_alone),
        cmocka_unit_test(options_of_each_kind_are_stored),
        cmocka_unit_test(options_in_every_row_are_accepted_by_their_commands_only),
        cmocka_unit_test(options_that_are_wrong_say_what_is_accepted),
        cmocka_unit_test(options_without_end_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
