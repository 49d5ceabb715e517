/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry eval turns: a conversation over one context. All facts stand in the context before any
 * question is known, so an index cannot lean on the question. Each turn brings more of the text and
 * a new fact, asks for one of the context, and from the third turn on for the fact told two turns
 * before: what is appended must be found as well as what was read. Nothing is taken back.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum { TURNS = 8, MAX_TURNS = 32, TURN_TOKENS = 64 };

/* The tokens of a turn that are neither question nor answer: more text, and a new fact. */
static enum qy_status tell(const struct qyi_eval_recipe *recipe, struct qyi_eval_text *text,
                           size_t hay, const struct qyi_eval_fact *fact, struct qy_error *err)
{
    char sentence[96];
    snprintf(sentence, sizeof sentence, "\nThe secret code of %s is %u.\n", fact->name, fact->code);
    enum qy_status st = qyi_eval_ids_add(&text->asked, recipe->hay + hay, TURN_TOKENS, err);
    if (st == QY_OK) {
        st = qyi_eval_ids_add_text(&text->asked, &recipe->encoder, sentence, err);
    }
    return st;
}

/* Asks for a fact; what was told since `first` is read before it. */
static enum qy_status ask(const struct qyi_eval_recipe *recipe, struct qyi_eval_text *text,
                          size_t first, const struct qyi_eval_fact *fact, int turn, int kind,
                          struct qy_error *err)
{
    char question[96], answer[16];
    snprintf(question, sizeof question, "\nThe secret code of %s is ", fact->name);
    snprintf(answer, sizeof answer, "%u", fact->code);
    const enum qy_status st = qyi_eval_text_ask(recipe, text, question, answer, turn, kind, err);
    if (st == QY_OK) {
        struct qyi_eval_question *q = &text->questions[text->n_questions - 1];
        q->n_ask += (uint32_t)(q->first - first);
        q->first = first;
    }
    return st;
}

static enum qy_status converse(const struct qyi_eval_recipe *recipe, struct qyi_eval_random *random,
                               struct qyi_eval_task *task, struct qyi_eval_text *text,
                               const struct qyi_eval_fact *facts, uint32_t turns,
                               struct qy_error *err)
{
    const struct qyi_eval_fact *told = facts + turns;
    const int context = qyi_eval_task_group(task, "context");
    const int from_turns = turns > 2 ? qyi_eval_task_group(task, "told") : QYI_EVAL_NO_GROUP;
    uint32_t order[MAX_TURNS];
    for (uint32_t i = 0; i < turns; i++) {
        order[i] = i;
    }
    qyi_eval_shuffle(random, order, turns);
    enum qy_status st = QY_OK;
    for (uint32_t i = 0; st == QY_OK && i < turns; i++) {
        char name[24];
        snprintf(name, sizeof name, "turn %u", i + 1);
        const int turn = qyi_eval_task_group(task, name);
        size_t first = text->asked.n;
        st = tell(recipe, text, (size_t)recipe->ctx + (size_t)i * TURN_TOKENS, &told[i], err);
        if (st == QY_OK && i >= 2) {
            st = ask(recipe, text, first, &told[i - 2], turn, from_turns, err);
            first = text->asked.n;
        }
        if (st == QY_OK) {
            st = ask(recipe, text, first, &facts[order[i]], turn, context, err);
        }
    }
    return st;
}

enum qy_status qyi_eval_make_turns(const struct qyi_eval_recipe *recipe, struct qyi_eval_task *task,
                                   struct qy_error *err)
{
    const uint64_t turns = recipe->count > 0 ? recipe->count : TURNS;
    if (turns > MAX_TURNS) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--count': %llu turns refused; 1 to %d are accepted",
                            (unsigned long long)turns, MAX_TURNS);
    }
    const uint64_t need = recipe->ctx + turns * TURN_TOKENS;
    if (need > recipe->n_hay) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "file: has %zu tokens from --start on, --ctx and %llu turns need %llu; "
                            "give a longer text or smaller numbers",
                            recipe->n_hay, (unsigned long long)turns, (unsigned long long)need);
    }
    struct qyi_eval_random random = {recipe->seed};
    struct qyi_eval_fact facts[2 * MAX_TURNS];
    char sentences[MAX_TURNS][96];
    const char *statements[MAX_TURNS];
    struct qyi_eval_text *text = NULL;
    enum qy_status st = qyi_eval_task_text(recipe, task, &text, err);
    if (st == QY_OK) {
        text->grows = 1;
        st = qyi_eval_draw_facts(&random, facts, 2 * (size_t)turns, err);
    }
    for (size_t i = 0; st == QY_OK && i < turns; i++) {
        snprintf(sentences[i], sizeof sentences[i], "\nThe secret code of %s is %u.\n",
                 facts[i].name, facts[i].code);
        statements[i] = sentences[i];
    }
    if (st == QY_OK) {
        st = qyi_eval_spread(recipe, &random, text, 0, statements, (size_t)turns, err);
    }
    if (st == QY_OK) {
        st = converse(recipe, &random, task, text, facts, (uint32_t)turns, err);
    }
    qyi_eval_task_finish(task);
    return st;
}
