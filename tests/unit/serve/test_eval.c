/* SPDX-License-Identifier: Apache-2.0 */
/* The tasks of quarry eval: made from a seed, of the size asked for, with the answers in the text.
 * The tokenizer here makes every byte a token, so that a context can be read as text. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum { CTX = 6000, HAY = 40000 };

static enum qy_status encode(void *arg, const char *text, size_t bytes, int32_t **ids, size_t *n,
                             struct qy_error *err)
{
    (void)arg;
    (void)err;
    *ids = malloc((bytes + 1) * sizeof **ids);
    assert_non_null(*ids);
    for (size_t i = 0; i < bytes; i++) {
        (*ids)[i] = (unsigned char)text[i];
    }
    *n = bytes;
    return QY_OK;
}

static void free_ids(void *arg, int32_t *ids)
{
    (void)arg;
    free(ids);
}

/* Sentences of ten letters; each place of the text can be told by its letters. */
static const int32_t *hay(void)
{
    static int32_t ids[HAY];
    for (size_t i = 0; i < HAY; i++) {
        ids[i] = i % 10 == 9 ? '.' : 'a' + (int32_t)(i / 10 % 26);
    }
    return ids;
}

static const int32_t bos[] = {'^'};

static struct qyi_eval_recipe recipe_of(uint64_t seed)
{
    return (struct qyi_eval_recipe){.encoder = {.encode = encode, .free_ids = free_ids},
                                    .prefix = bos,
                                    .n_prefix = 1,
                                    .hay = hay(),
                                    .n_hay = HAY,
                                    .ctx = CTX,
                                    .seed = seed};
}

static char *text_of(const int32_t *ids, size_t n)
{
    char *text = malloc(n + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)ids[i];
    }
    text[n] = '\0';
    return text;
}

static size_t count(const char *text, const char *word)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++) {
        n++;
    }
    return n;
}

/* What a question says, and its answer. */
static char *ask_of(const struct qyi_eval_text *text, const struct qyi_eval_question *q)
{
    return text_of(text->asked.ids + q->first, q->n_ask);
}

static char *answer_of(const struct qyi_eval_text *text, const struct qyi_eval_question *q)
{
    return text_of(text->asked.ids + q->first + q->n_ask, q->n_answer);
}

typedef enum qy_status make_task(const struct qyi_eval_recipe *, struct qyi_eval_task *,
                                 struct qy_error *);
static make_task *const makers[] = {qyi_eval_make_needle, qyi_eval_make_aggregate,
                                    qyi_eval_make_turns};

static void a_seed_repeats_and_another_differs(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof makers / sizeof makers[0]; m++) {
        struct qyi_eval_task a = {0}, b = {0}, c = {0};
        struct qy_error err;
        const struct qyi_eval_recipe one = recipe_of(1), two = recipe_of(2);
        assert_int_equal(makers[m](&one, &a, &err), QY_OK);
        assert_int_equal(makers[m](&one, &b, &err), QY_OK);
        assert_int_equal(makers[m](&two, &c, &err), QY_OK);
        assert_int_equal(a.n_texts, b.n_texts);
        int differ = 0;
        for (size_t t = 0; t < a.n_texts; t++) {
            const struct qyi_eval_text *x = &a.texts[t], *y = &b.texts[t], *z = &c.texts[t];
            assert_int_equal(x->context.n, y->context.n);
            assert_memory_equal(x->context.ids, y->context.ids, x->context.n * sizeof(int32_t));
            assert_int_equal(x->asked.n, y->asked.n);
            assert_memory_equal(x->asked.ids, y->asked.ids, x->asked.n * sizeof(int32_t));
            differ |= x->asked.n != z->asked.n ||
                      memcmp(x->asked.ids, z->asked.ids, x->asked.n * sizeof(int32_t)) != 0;
        }
        assert_true(differ);
        qyi_eval_task_close(&a);
        qyi_eval_task_close(&b);
        qyi_eval_task_close(&c);
    }
}

static void contexts_have_the_size_asked_for_and_the_prefix(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof makers / sizeof makers[0]; m++) {
        struct qyi_eval_task task = {0};
        struct qy_error err;
        const struct qyi_eval_recipe recipe = recipe_of(7);
        assert_int_equal(makers[m](&recipe, &task, &err), QY_OK);
        size_t most = 0;
        for (size_t t = 0; t < task.n_texts; t++) {
            const struct qyi_eval_text *text = &task.texts[t];
            assert_true(text->context.n <= CTX && text->context.n > CTX * 98 / 100);
            assert_int_equal(text->context.ids[0], '^');
            assert_true(text->n_questions > 0);
            const struct qyi_eval_question *last = &text->questions[text->n_questions - 1];
            assert_int_equal(last->first + last->n_ask + last->n_answer, text->asked.n);
            most = text->context.n > most ? text->context.n : most;
        }
        assert_true(task.max_tokens > most && task.max_tokens < CTX + CTX / 2);
        qyi_eval_task_close(&task);
    }
}

static void needles_are_in_the_text_once_and_spread(void **state)
{
    (void)state;
    struct qyi_eval_task task = {0};
    struct qy_error err;
    struct qyi_eval_recipe recipe = recipe_of(3);
    recipe.task = "needle";
    recipe.count = 12; /* two texts: ten and two */
    assert_int_equal(qyi_eval_make_needle(&recipe, &task, &err), QY_OK);
    assert_int_equal(task.n_texts, 2);
    assert_int_equal(task.texts[0].n_questions, 10);
    assert_int_equal(task.texts[1].n_questions, 2);
    for (size_t t = 0; t < task.n_texts; t++) {
        const struct qyi_eval_text *text = &task.texts[t];
        char *context = text_of(text->context.ids, text->context.n);
        size_t before = 0;
        for (size_t i = 0; i < text->n_questions; i++) {
            char *ask = ask_of(text, &text->questions[i]);
            char *answer = answer_of(text, &text->questions[i]);
            char fact[200];
            assert_int_equal(strlen(answer), 5);
            snprintf(fact, sizeof fact, "%s%s.", ask + strspn(ask, "\n"), answer);
            assert_int_equal(count(context, fact), 1);
            const size_t at = (size_t)(strstr(context, fact) - context);
            assert_true(at > before && at < CTX * 97 / 100);
            assert_int_equal(context[at - 2], '.'); /* behind a sentence and a line's end */
            before = at;
            free(ask);
            free(answer);
        }
        assert_true(before > CTX * 4 / 10);
        free(context);
    }
    /* the second text is another part of the file */
    assert_memory_not_equal(task.texts[0].context.ids, task.texts[1].context.ids,
                            100 * sizeof(int32_t));
    qyi_eval_task_close(&task);
}

static void copied_keys_have_one_value(void **state)
{
    (void)state;
    struct qyi_eval_task task = {0};
    struct qy_error err;
    struct qyi_eval_recipe recipe = recipe_of(4);
    recipe.task = "copy";
    recipe.hay = NULL;
    recipe.n_hay = 0;
    assert_int_equal(qyi_eval_make_needle(&recipe, &task, &err), QY_OK);
    const struct qyi_eval_text *text = &task.texts[0];
    char *context = text_of(text->context.ids, text->context.n);
    assert_int_equal(text->n_questions, 16);
    for (size_t i = 0; i < text->n_questions; i++) {
        char *ask = ask_of(text, &text->questions[i]);
        char *answer = answer_of(text, &text->questions[i]);
        char line[64];
        snprintf(line, sizeof line, "\n%s%s\n", ask, answer);
        assert_int_equal(strlen(line), 20);
        assert_int_equal(count(context, line), 1);
        assert_int_equal(count(context, ask), 1);
        free(ask);
        free(answer);
    }
    free(context);
    qyi_eval_task_close(&task);
}

/* Splits at spaces; returns the number of words. */
static size_t split(char *text, char *words[], size_t room)
{
    size_t n = 0;
    for (char *at = strtok(text, " "); at != NULL && n < room; at = strtok(NULL, " ")) {
        words[n++] = at;
    }
    return n;
}

static void common_words_are_the_most_common(void **state)
{
    (void)state;
    struct qyi_eval_task task = {0};
    struct qy_error err;
    struct qyi_eval_recipe recipe = recipe_of(5);
    recipe.task = "common";
    recipe.count = 1;
    assert_int_equal(qyi_eval_make_aggregate(&recipe, &task, &err), QY_OK);
    const struct qyi_eval_text *text = &task.texts[0];
    char *context = text_of(text->context.ids, text->context.n);
    char *answer = answer_of(text, &text->questions[0]), *words[16];
    assert_int_equal(split(answer, words, 16), 10);
    size_t least = SIZE_MAX, most_else = 0, before = 0;
    for (size_t i = 0; i < QYI_EVAL_WORDS; i++) {
        char item[64];
        snprintf(item, sizeof item, ". %s ", qyi_eval_word(i));
        const size_t n = count(context, item);
        int asked = 0;
        for (size_t w = 0; w < 10; w++) {
            asked |= strcmp(words[w], qyi_eval_word(i)) == 0;
        }
        least = asked && n < least ? n : least;
        most_else = !asked && n > most_else ? n : most_else;
    }
    assert_true(least > 2 * most_else);
    for (size_t w = 0; w < 10; w++) { /* in the order of their first appearance */
        char item[64];
        snprintf(item, sizeof item, ". %s ", words[w]);
        const size_t at = (size_t)(strstr(context, item) - context);
        assert_true(at > before);
        before = at;
    }
    free(answer);
    free(context);
    qyi_eval_task_close(&task);
}

static void frequent_words_fall(void **state)
{
    (void)state;
    struct qyi_eval_task task = {0};
    struct qy_error err;
    struct qyi_eval_recipe recipe = recipe_of(6);
    recipe.task = "frequent";
    recipe.count = 1;
    assert_int_equal(qyi_eval_make_aggregate(&recipe, &task, &err), QY_OK);
    const struct qyi_eval_text *text = &task.texts[0];
    char *context = text_of(text->context.ids, text->context.n);
    char *answer = answer_of(text, &text->questions[0]), *words[4];
    assert_int_equal(split(answer, words, 4), 3);
    size_t n[3];
    for (int i = 0; i < 3; i++) {
        n[i] = count(context, words[i]);
    }
    assert_true(n[0] > n[1] && n[1] > n[2] && n[2] > 1);
    assert_true(count(context, "....") > n[0]);
    free(answer);
    free(context);
    qyi_eval_task_close(&task);
}

static void variables_are_chained_to_the_value(void **state)
{
    (void)state;
    for (int with_file = 0; with_file < 2; with_file++) {
        struct qyi_eval_task task = {0};
        struct qy_error err;
        struct qyi_eval_recipe recipe = recipe_of(8);
        recipe.task = "variables";
        recipe.count = 1;
        if (!with_file) {
            recipe.hay = NULL;
            recipe.n_hay = 0;
        }
        assert_int_equal(qyi_eval_make_aggregate(&recipe, &task, &err), QY_OK);
        const struct qyi_eval_text *text = &task.texts[0];
        char *context = text_of(text->context.ids, text->context.n);
        assert_int_equal(text->n_questions, 2);
        for (size_t q = 0; q < 2; q++) {
            char *ask = ask_of(text, &text->questions[q]);
            char *answer = answer_of(text, &text->questions[q]), *words[8];
            unsigned value = 0;
            assert_int_equal(sscanf(strstr(ask, "the value"), "the value %u", &value), 1);
            assert_int_equal(split(answer, words, 8), 5);
            const char *at = context;
            for (int i = 0; i < 5; i++) { /* each line once, one behind the other */
                char line[64];
                i == 0 ? snprintf(line, sizeof line, "\nVAR %s = %u\n", words[0], value)
                       : snprintf(line, sizeof line, "\nVAR %s = VAR %s\n", words[i], words[i - 1]);
                assert_int_equal(count(context, line), 1);
                assert_true(strstr(context, line) >= at);
                at = strstr(context, line);
            }
            free(ask);
            free(answer);
        }
        free(context);
        qyi_eval_task_close(&task);
    }
}

static void turns_ask_what_was_said_before(void **state)
{
    (void)state;
    struct qyi_eval_task task = {0};
    struct qy_error err;
    struct qyi_eval_recipe recipe = recipe_of(9);
    recipe.count = 5;
    assert_int_equal(qyi_eval_make_turns(&recipe, &task, &err), QY_OK);
    const struct qyi_eval_text *text = &task.texts[0];
    assert_true(text->grows);
    assert_int_equal(text->n_questions, 5 + 3);
    char *context = text_of(text->context.ids, text->context.n);
    char *asked = text_of(text->asked.ids, text->asked.n);
    size_t at = 0, of_context = 0, told = 0;
    for (size_t i = 0; i < text->n_questions; i++) {
        const struct qyi_eval_question *q = &text->questions[i];
        char *ask = ask_of(text, q), *answer = answer_of(text, q), fact[200];
        assert_int_equal(q->first, at); /* nothing is left out between questions */
        at += q->n_ask + q->n_answer;
        const char *line = strrchr(ask, '\n') + 1;
        snprintf(fact, sizeof fact, "%s%s.", line, answer);
        const size_t here = count(context, fact);
        of_context += here;
        if (here == 0) {
            const char *said = strstr(asked, fact);
            assert_non_null(said);
            assert_true((size_t)(said - asked) + 100 < q->first + q->n_ask);
            told++;
        }
        free(ask);
        free(answer);
    }
    assert_int_equal(of_context, 5);
    assert_int_equal(told, 3);
    free(context);
    free(asked);
    qyi_eval_task_close(&task);
}

static void what_cannot_be_made_is_refused(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof makers / sizeof makers[0]; m++) {
        struct qyi_eval_task task = {0};
        struct qy_error err;
        struct qyi_eval_recipe recipe = recipe_of(1);
        recipe.ctx = 40; /* too few for the statements */
        assert_int_equal(makers[m](&recipe, &task, &err), QY_ERR_CONFIG);
        assert_non_null(strstr(err.text, "--ctx"));
        qyi_eval_task_close(&task);
        recipe = recipe_of(1);
        recipe.n_hay = 100; /* a short file */
        recipe.task = m == 1 ? "variables" : NULL;
        assert_int_equal(makers[m](&recipe, &task, &err), QY_ERR_CONFIG);
        qyi_eval_task_close(&task);
    }
    struct qyi_eval_task task = {0};
    struct qy_error err;
    struct qyi_eval_recipe recipe = recipe_of(1);
    recipe.task = "nothing";
    assert_int_equal(qyi_eval_make_needle(&recipe, &task, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "needle, copy, both"));
    qyi_eval_task_close(&task);
    assert_int_equal(qyi_eval_make_aggregate(&recipe, &task, &err), QY_ERR_CONFIG);
    qyi_eval_task_close(&task);
    recipe.task = NULL;
    recipe.count = 1000;
    assert_int_equal(qyi_eval_make_turns(&recipe, &task, &err), QY_ERR_CONFIG);
    qyi_eval_task_close(&task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_repeats_and_another_differs),
        cmocka_unit_test(contexts_have_the_size_asked_for_and_the_prefix),
        cmocka_unit_test(needles_are_in_the_text_once_and_spread),
        cmocka_unit_test(copied_keys_have_one_value),
        cmocka_unit_test(common_words_are_the_most_common),
        cmocka_unit_test(frequent_words_fall),
        cmocka_unit_test(variables_are_chained_to_the_value),
        cmocka_unit_test(turns_ask_what_was_said_before),
        cmocka_unit_test(what_cannot_be_made_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
