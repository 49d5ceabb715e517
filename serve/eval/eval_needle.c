/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry eval needle: facts that stand somewhere in a long text, asked one by one. Task needle:
 * five-digit codes of people, in sentences spread over the file's text. Task copy: lines of random
 * hexadecimal keys and values; nothing but the line itself tells the value.
 *
 * The question is processed by the policy too. The answer is given whatever the model would have
 * said (teacher-forced), so that a wrong digit does not spoil those behind it: small models get few
 * whole answers right even with dense attention, but most of the tokens.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum { NEEDLES = 10, KEYS = 16 }; /* cases by default, and the most in one text */

/* One text with n needles, all of them asked. */
static enum qy_status needle_text(const struct qyi_eval_recipe *recipe,
                                  struct qyi_eval_random *random, struct qyi_eval_task *task,
                                  size_t from, size_t n, struct qy_error *err)
{
    struct qyi_eval_text *text = NULL;
    struct qyi_eval_fact facts[NEEDLES];
    char sentences[NEEDLES][96];
    const char *statements[NEEDLES];
    const int group = qyi_eval_task_group(task, "needle");
    enum qy_status st = qyi_eval_task_text(recipe, task, &text, err);
    if (st == QY_OK) {
        st = qyi_eval_draw_facts(random, facts, n, err);
    }
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        snprintf(sentences[i], sizeof sentences[i], "\nThe secret code of %s is %u.\n",
                 facts[i].name, facts[i].code);
        statements[i] = sentences[i];
    }
    if (st == QY_OK) {
        st = qyi_eval_spread(recipe, random, text, from, statements, n, err);
    }
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        char ask[96], answer[16];
        snprintf(ask, sizeof ask, "\n\nThe secret code of %s is ", facts[i].name);
        snprintf(answer, sizeof answer, "%u", facts[i].code);
        st = qyi_eval_text_ask(recipe, text, ask, answer, group, QYI_EVAL_NO_GROUP, err);
    }
    return st;
}

/* Lines of random keys and values up to ctx tokens; keys and values of line i in pairs[i]. */
static enum qy_status copy_lines(const struct qyi_eval_recipe *recipe,
                                 struct qyi_eval_random *random, struct qyi_eval_ids *context,
                                 uint32_t (**pairs)[2], size_t *n, struct qy_error *err)
{
    enum qy_status st =
        qyi_eval_ids_add_text(context, &recipe->encoder, "Keys and their values:\n", err);
    struct qyi_eval_ids line = {0};
    *pairs = NULL;
    *n = 0;
    while (st == QY_OK) {
        const uint32_t key = (uint32_t)qyi_eval_draw(random, UINT32_MAX);
        const uint32_t value = (uint32_t)qyi_eval_draw(random, UINT32_MAX);
        char text[32];
        snprintf(text, sizeof text, "%08" PRIx32 ": %08" PRIx32 "\n", key, value);
        line.n = 0;
        st = qyi_eval_ids_add_text(&line, &recipe->encoder, text, err);
        if (st != QY_OK || context->n + line.n > recipe->ctx) {
            break;
        }
        void *moved = realloc(*pairs, (*n + 1) * sizeof **pairs);
        if (moved == NULL) {
            st = qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
            break;
        }
        *pairs = moved;
        (*pairs)[*n][0] = key;
        (*pairs)[(*n)++][1] = value;
        st = qyi_eval_ids_add(context, line.ids, line.n, err);
    }
    free(line.ids);
    return st;
}

static enum qy_status copy_text(const struct qyi_eval_recipe *recipe,
                                struct qyi_eval_random *random, struct qyi_eval_task *task,
                                size_t n, struct qy_error *err)
{
    struct qyi_eval_text *text = NULL;
    uint32_t(*pairs)[2] = NULL, *order = NULL;
    size_t lines = 0;
    const int group = qyi_eval_task_group(task, "copy");
    enum qy_status st = qyi_eval_task_text(recipe, task, &text, err);
    if (st == QY_OK) {
        st = copy_lines(recipe, random, &text->context, &pairs, &lines, err);
    }
    if (st == QY_OK && lines < n) {
        st = qy_error_set(err, QY_ERR_CONFIG,
                          "option '--ctx': %llu tokens hold %zu lines of keys, %zu are asked for; "
                          "raise --ctx or lower --count",
                          (unsigned long long)recipe->ctx, lines, n);
    }
    if (st == QY_OK && (order = calloc(lines, sizeof *order)) == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
    }
    for (uint32_t i = 0; st == QY_OK && i < lines; i++) {
        order[i] = i;
    }
    if (st == QY_OK) {
        qyi_eval_shuffle(random, order, lines);
    }
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        char ask[32], answer[16];
        snprintf(ask, sizeof ask, "%08" PRIx32 ": ", pairs[order[i]][0]);
        snprintf(answer, sizeof answer, "%08" PRIx32, pairs[order[i]][1]);
        st = qyi_eval_text_ask(recipe, text, ask, answer, group, QYI_EVAL_NO_GROUP, err);
    }
    free(order);
    free(pairs);
    return st;
}

enum qy_status qyi_eval_make_needle(const struct qyi_eval_recipe *recipe,
                                    struct qyi_eval_task *task, struct qy_error *err)
{
    const char *which = recipe->task != NULL ? recipe->task : "both";
    const int both = strcmp(which, "both") == 0;
    const int needle = both || strcmp(which, "needle") == 0;
    const int copy = both || strcmp(which, "copy") == 0;
    if (!needle && !copy) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--task': '%s' refused; eval needle accepts needle, copy, both",
                            which);
    }
    struct qyi_eval_random random = {recipe->seed};
    enum qy_status st = QY_OK;
    uint64_t left = needle ? (recipe->count > 0 ? recipe->count : NEEDLES) : 0;
    const uint64_t texts = (left + NEEDLES - 1) / NEEDLES;
    /* texts start at equal distances in the file, as far as it reaches */
    const size_t spare = recipe->n_hay > recipe->ctx ? recipe->n_hay - (size_t)recipe->ctx : 0;
    for (uint64_t i = 0; st == QY_OK && i < texts; i++) {
        const size_t n = left < NEEDLES ? (size_t)left : NEEDLES;
        st = needle_text(recipe, &random, task, (size_t)(spare / texts * i), n, err);
        left -= n;
    }
    left = copy ? (recipe->count > 0 ? recipe->count : KEYS) : 0;
    while (st == QY_OK && left > 0) {
        const size_t n = left < KEYS ? (size_t)left : KEYS;
        st = copy_text(recipe, &random, task, n, err);
        left -= n;
    }
    qyi_eval_task_finish(task);
    return st;
}
