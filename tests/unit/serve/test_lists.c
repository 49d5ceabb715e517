/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of prompts, and answers that are written in their order whoever gives them. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/list/answer_list.h"
#include "serve/list/prompt_list.h"

/* ---- prompts --------------------------------------------------------------------------------------- */

static enum qy_status read_text(const char *text, size_t bytes, struct qyi_prompt_list *list,
                                struct qy_error *err)
{
    char path[] = "/tmp/qy_prompts_XXXXXX";
    const int fd = mkstemp(path);
    FILE *file = fdopen(fd, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
    const enum qy_status st = qyi_prompt_list_read(path, list, err);
    remove(path);
    return st;
}

static void lines_are_text_strings_or_objects(void **state)
{
    static const char text[] =
        "plain, with \"quotes\" and {braces}\r\n"
        "\n"
        "\"two\\nlines\"\n"
        "  \n"
        "{\"id\": 7, \"prompt\": \"\\u00e9\"}\n"
        "the last has no end";
    static const char *const want[] = {"plain, with \"quotes\" and {braces}", "two\nlines", "  ",
                                       "\xc3\xa9", "the last has no end"};
    struct qyi_prompt_list list;
    (void)state;
    assert_int_equal(read_text(text, sizeof text - 1, &list, NULL), QY_OK);
    assert_int_equal(list.n, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(list.texts[i], want[i]);
    }
    qyi_prompt_list_free(&list);
}

static void lines_that_are_none_of_these_are_refused(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"a\n\"open\n", "line 2 begins with \" and is neither"},
        {"\"a\" b\n", "line 1 begins with \""},
        {"{\"text\": \"a\"}\n", "line 1 begins with {"},
        {"{\"prompt\": 3}\n", "line 1 begins with {"},
        {"\n\n", "no prompt in it"},
        {"", "no prompt in it"},
    };
    struct qyi_prompt_list list;
    struct qy_error err;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_text(cases[i].text, strlen(cases[i].text), &list, &err),
                         QY_ERR_CONFIG);
        if (strstr(err.text, cases[i].why) == NULL) {
            fail_msg("'%s': %s", cases[i].text, err.text);
        }
    }
    assert_int_equal(read_text("a\0b", 3, &list, &err), QY_ERR_CONFIG);
    assert_int_equal(qyi_prompt_list_read("/nothere", &list, &err), QY_ERR_NOT_FOUND);
}

/* ---- answers --------------------------------------------------------------------------------------- */

struct bed {
    struct qyi_answer_list list;
    FILE *out;
    char *text; /* written until now, after a look */
    size_t bytes;
};

static void open_bed(struct bed *b, uint32_t n_workers, size_t n, int json)
{
    memset(b, 0, sizeof *b);
    b->out = open_memstream(&b->text, &b->bytes);
    assert_non_null(b->out);
    assert_int_equal(qyi_answer_list_open(&b->list, n_workers, b->out, NULL), QY_OK);
    if (n > 0) {
        assert_int_equal(qyi_answer_list_expect(&b->list, n, json, NULL), QY_OK);
    }
}

static void close_bed(struct bed *b)
{
    qyi_answer_list_close(&b->list);
    fclose(b->out);
    free(b->text);
}

static const char *look(struct bed *b)
{
    qyi_answer_list_write(&b->list);
    fflush(b->out);
    return b->text;
}

static enum qy_status put(struct bed *b, uint32_t worker, size_t prompt, const char *text)
{
    return qyi_answer_list_put(&b->list, worker, prompt, text, strlen(text), 0, strlen(text));
}

static void answers_are_written_in_the_order_of_the_list(void **state)
{
    struct bed b;
    (void)state;
    open_bed(&b, 3, 5, 0);
    assert_int_equal(put(&b, 1, 4, "e"), QY_OK);
    assert_int_equal(put(&b, 1, 1, "b"), QY_OK);
    assert_string_equal(look(&b), "");
    assert_int_equal(put(&b, 0, 0, "a"), QY_OK);
    assert_string_equal(look(&b), "ab");
    assert_int_equal(put(&b, 0, 3, ""), QY_OK); /* an answer of no byte is one */
    assert_int_equal(put(&b, 2, 2, "c"), QY_OK);
    assert_string_equal(look(&b), "abce");
    for (uint32_t i = 0; i < 3; i++) {
        qyi_answer_list_end(&b.list, i, 0, "");
    }
    assert_int_equal(qyi_answer_list_missing(&b.list, 1, NULL), QY_OK);
    assert_int_equal(qyi_answer_list_code(&b.list), 0);
    close_bed(&b);
}

static void pieces_come_in_order_and_some_twice(void **state)
{
    struct bed b;
    (void)state;
    open_bed(&b, 1, 1, 0);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "ab", 2, 0, 5), QY_OK);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "ab", 2, 0, 5), QY_OK);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "cd", 2, 2, 5), QY_OK);
    assert_string_equal(look(&b), "");
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "e", 1, 4, 5), QY_OK);
    assert_string_equal(look(&b), "abcde");
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "e", 1, 4, 5), QY_OK);
    assert_string_equal(look(&b), "abcde");
    close_bed(&b);
}

static void what_is_not_the_workers_or_does_not_fit_is_refused(void **state)
{
    struct bed b;
    (void)state;
    open_bed(&b, 2, 0, 0);
    assert_int_equal(put(&b, 0, 0, "x"), QY_ERR_NOT_FOUND); /* the list is not known yet */
    assert_int_equal(qyi_answer_list_expect(&b.list, 4, 0, NULL), QY_OK);
    assert_int_equal(put(&b, 0, 1, "x"), QY_ERR_INVALID);
    assert_int_equal(put(&b, 0, 4, "x"), QY_ERR_INVALID);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "xy", 2, 0, 1), QY_ERR_INVALID);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "x", 1, SIZE_MAX, 4), QY_ERR_INVALID);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "x", 1, 1, 4), QY_ERR_INVALID); /* a gap */
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, NULL, 0, 0, 4), QY_ERR_INVALID);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "x", 1, 0, SIZE_MAX), QY_ERR_INVALID);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "x", 1, 0, 4), QY_OK);
    assert_int_equal(qyi_answer_list_put(&b.list, 0, 0, "x", 1, 1, 5), QY_ERR_INVALID);
    assert_string_equal(look(&b), "");
    close_bed(&b);
}

static void prompts_of_a_worker_that_ended_are_left_out_and_named(void **state)
{
    struct bed b;
    struct qy_error err;
    (void)state;
    open_bed(&b, 3, 8, 0);
    assert_int_equal(put(&b, 0, 0, "a"), QY_OK);
    assert_int_equal(put(&b, 2, 2, "c"), QY_OK);
    qyi_answer_list_end(&b.list, 1, 1, "gone");
    qyi_answer_list_end(&b.list, 1, 0, "the first word counts");
    assert_string_equal(look(&b), "ac");
    assert_int_equal(put(&b, 1, 4, "late"), QY_ERR_NOT_FOUND);
    assert_int_equal(put(&b, 0, 3, "d"), QY_OK);
    assert_int_equal(put(&b, 0, 6, "g"), QY_OK);
    qyi_answer_list_end(&b.list, 0, 0, "");
    qyi_answer_list_end(&b.list, 2, 130, "interrupted");
    assert_string_equal(look(&b), "acdg");
    assert_int_equal(qyi_answer_list_missing(&b.list, 1, &err), QY_ERR_PEER);
    assert_string_equal(err.text,
                        "4 of 8 prompts have no answer: 2, 5, 8 (rank 1: gone); 6 (rank "
                        "2: interrupted)");
    assert_int_equal(qyi_answer_list_missing(&b.list, 1, &err), QY_OK); /* said once */
    assert_int_equal(qyi_answer_list_code(&b.list), 130);
    close_bed(&b);
}

static void reason_of_several_workers_is_said_once(void **state)
{
    struct bed b;
    struct qy_error err;
    (void)state;
    open_bed(&b, 3, 4, 0);
    for (uint32_t i = 0; i < 3; i++) {
        qyi_answer_list_end(&b.list, i, 2, "too long");
    }
    assert_int_equal(qyi_answer_list_missing(&b.list, 1, &err), QY_ERR_PEER);
    assert_string_equal(err.text,
                        "4 of 4 prompts have no answer: 1, 4 (rank 0: too long); 2 (rank "
                        "1: the same); 3 (rank 2: the same)");
    close_bed(&b);
}

static void many_missing_prompts_are_counted(void **state)
{
    struct bed b;
    struct qy_error err;
    (void)state;
    open_bed(&b, 1, 1000, 1);
    qyi_answer_list_end(&b.list, 0, 1, "");
    assert_non_null(strstr(look(&b), "{\"prompt\":1000,\"rank\":0,\"error\":\"its own message"));
    assert_int_equal(qyi_answer_list_missing(&b.list, 0, &err), QY_ERR_PEER);
    assert_string_equal(err.text,
                        "1000 of 1000 prompts have no answer: 1, 2, 3, 4, 5, 6, 7, 8, 9, "
                        "10, 11, 12 and 988 more (its own message says why)");
    close_bed(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_text_strings_or_objects),
        cmocka_unit_test(lines_that_are_none_of_these_are_refused),
        cmocka_unit_test(answers_are_written_in_the_order_of_the_list),
        cmocka_unit_test(pieces_come_in_order_and_some_twice),
        cmocka_unit_test(what_is_not_the_workers_or_does_not_fit_is_refused),
        cmocka_unit_test(prompts_of_a_worker_that_ended_are_left_out_and_named),
        cmocka_unit_test(reason_of_several_workers_is_said_once),
        cmocka_unit_test(many_missing_prompts_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
