/* SPDX-License-Identifier: Apache-2.0 */
/* quarry eval: what tasks are built from. Random numbers, growing lists of ids, questions, and
 * statements spread over a text. */
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

uint64_t qyi_eval_draw(struct qyi_eval_random *random, uint64_t below)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return below > 0 ? z % below : 0;
}

void qyi_eval_shuffle(struct qyi_eval_random *random, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        const size_t j = (size_t)qyi_eval_draw(random, i);
        const uint32_t kept = items[i - 1];
        items[i - 1] = items[j];
        items[j] = kept;
    }
}

/* Makes room for n more items of `size` bytes. */
static enum qy_status grow(void **items, size_t *room, size_t used, size_t n, size_t size,
                           struct qy_error *err)
{
    if (used + n <= *room) {
        return QY_OK;
    }
    const size_t more = used + n + *room / 2 + 64;
    void *moved = realloc(*items, more * size);
    if (moved == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
    }
    *items = moved;
    *room = more;
    return QY_OK;
}

enum qy_status qyi_eval_ids_add(struct qyi_eval_ids *ids, const int32_t *more, size_t n,
                                struct qy_error *err)
{
    void *items = ids->ids;
    const enum qy_status st = grow(&items, &ids->room, ids->n, n, sizeof *ids->ids, err);
    ids->ids = items;
    if (st == QY_OK && n > 0) {
        memcpy(ids->ids + ids->n, more, n * sizeof *more);
        ids->n += n;
    }
    return st;
}

enum qy_status qyi_eval_ids_add_text(struct qyi_eval_ids *ids,
                                     const struct qyi_eval_encoder *encoder, const char *text,
                                     struct qy_error *err)
{
    int32_t *more = NULL;
    size_t n = 0;
    enum qy_status st = encoder->encode(encoder->arg, text, strlen(text), &more, &n, err);
    if (st == QY_OK) {
        st = qyi_eval_ids_add(ids, more, n, err);
    }
    encoder->free_ids(encoder->arg, more);
    return st;
}

enum qy_status qyi_eval_task_text(const struct qyi_eval_recipe *recipe, struct qyi_eval_task *task,
                                  struct qyi_eval_text **text, struct qy_error *err)
{
    void *moved = realloc(task->texts, (task->n_texts + 1) * sizeof *task->texts);
    if (moved == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
    }
    task->texts = moved;
    *text = &task->texts[task->n_texts++];
    memset(*text, 0, sizeof **text);
    return qyi_eval_ids_add(&(*text)->context, recipe->prefix, recipe->n_prefix, err);
}

int qyi_eval_task_group(struct qyi_eval_task *task, const char *name)
{
    for (size_t i = 0; i < task->n_groups; i++) {
        if (strcmp(task->groups[i], name) == 0) {
            return (int)i;
        }
    }
    if (task->n_groups == QYI_EVAL_MAX_GROUPS) {
        return QYI_EVAL_NO_GROUP;
    }
    snprintf(task->groups[task->n_groups], sizeof task->groups[0], "%s", name);
    return (int)task->n_groups++;
}

enum qy_status qyi_eval_text_ask(const struct qyi_eval_recipe *recipe, struct qyi_eval_text *text,
                                 const char *ask, const char *answer, int group, int group2,
                                 struct qy_error *err)
{
    struct qyi_eval_ids alone = {0}, joint = {0};
    char both[4096];
    snprintf(both, sizeof both, "%s%s", ask, answer);
    enum qy_status st = qyi_eval_ids_add_text(&alone, &recipe->encoder, ask, err);
    if (st == QY_OK) {
        st = qyi_eval_ids_add_text(&joint, &recipe->encoder, both, err);
    }
    size_t same = 0;
    while (same < alone.n && same < joint.n && alone.ids[same] == joint.ids[same]) {
        same++;
    }
    if (st == QY_OK && (same == 0 || same == joint.n)) {
        st = qy_error_set(err, QY_ERR_UNSUPPORTED,
                          "eval: the model's tokenizer does not tell '%.60s' from its answer", ask);
    }
    void *questions = text->questions;
    if (st == QY_OK) {
        st = grow(&questions, &text->room, text->n_questions, 1, sizeof *text->questions, err);
        text->questions = questions;
    }
    if (st == QY_OK) {
        text->questions[text->n_questions++] =
            (struct qyi_eval_question){.first = text->asked.n,
                                       .n_ask = (uint32_t)same,
                                       .n_answer = (uint32_t)(joint.n - same),
                                       .group = group,
                                       .group2 = group2};
        st = qyi_eval_ids_add(&text->asked, joint.ids, joint.n, err);
    }
    free(alone.ids);
    free(joint.ids);
    return st;
}

void qyi_eval_task_finish(struct qyi_eval_task *task)
{
    task->max_tokens = 0;
    for (size_t t = 0; t < task->n_texts; t++) {
        const struct qyi_eval_text *text = &task->texts[t];
        size_t most = text->grows ? text->asked.n : 0;
        for (size_t i = 0; i < text->n_questions; i++) {
            const size_t n = (size_t)text->questions[i].n_ask + text->questions[i].n_answer;
            most = n > most ? n : most;
        }
        if (text->context.n + most > task->max_tokens) {
            task->max_tokens = text->context.n + most;
        }
    }
}

void qyi_eval_task_close(struct qyi_eval_task *task)
{
    for (size_t t = 0; t < task->n_texts; t++) {
        free(task->texts[t].context.ids);
        free(task->texts[t].asked.ids);
        free(task->texts[t].questions);
    }
    free(task->texts);
    memset(task, 0, sizeof *task);
}

/* The place behind the next end of a sentence, at most 128 tokens on; else `at`. */
static size_t sentence_end(const struct qyi_eval_recipe *recipe, size_t at, size_t end,
                           int32_t period)
{
    for (size_t i = at; i < end && i < at + 128; i++) {
        if (recipe->hay[i] == period) {
            return i + 1;
        }
    }
    return at;
}

enum qy_status qyi_eval_spread(const struct qyi_eval_recipe *recipe, struct qyi_eval_random *random,
                               struct qyi_eval_text *text, size_t from,
                               const char *const *statements, size_t n, struct qy_error *err)
{
    struct qyi_eval_ids all = {0}, period = {0};
    size_t *ends = calloc(n + 1, sizeof *ends); /* of each statement's ids in all */
    enum qy_status st =
        ends != NULL ? QY_OK : qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        st = qyi_eval_ids_add_text(&all, &recipe->encoder, statements[i], err);
        ends[i + 1] = all.n;
    }
    if (st == QY_OK) {
        st = qyi_eval_ids_add_text(&period, &recipe->encoder, ".", err);
    }
    const size_t fixed = text->context.n + all.n;
    if (st == QY_OK && recipe->ctx < fixed + 8 * (n + 1)) {
        st = qy_error_set(
            err, QY_ERR_CONFIG,
            "option '--ctx': %llu tokens are too few for %zu statements of %zu tokens; "
            "raise --ctx to %zu or lower --count",
            (unsigned long long)recipe->ctx, n, all.n, fixed + 8 * (n + 1));
    }
    const size_t room = st == QY_OK ? (size_t)recipe->ctx - fixed : 0, end = from + room;
    if (st == QY_OK && end > recipe->n_hay) {
        st = qy_error_set(
            err, QY_ERR_CONFIG,
            "file: has %zu tokens from --start on, --ctx %llu needs %zu; give a longer "
            "text or a smaller --ctx",
            recipe->n_hay, (unsigned long long)recipe->ctx, end);
    }
    size_t at = from;
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        /* chosen: statement i lies in share i of n of the first 95 %, at a random place of it */
        const size_t share = room * 95 / 100 / n;
        size_t place = from + share * i + (size_t)qyi_eval_draw(random, share > 0 ? share : 1);
        place = sentence_end(recipe, place < at ? at : place, end,
                             period.n > 0 ? period.ids[period.n - 1] : -1);
        st = qyi_eval_ids_add(&text->context, recipe->hay + at, place - at, err);
        if (st == QY_OK) {
            st = qyi_eval_ids_add(&text->context, all.ids + ends[i], ends[i + 1] - ends[i], err);
        }
        at = place;
    }
    if (st == QY_OK) {
        st = qyi_eval_ids_add(&text->context, recipe->hay + at, end - at, err);
    }
    free(ends);
    free(all.ids);
    free(period.ids);
    return st;
}
