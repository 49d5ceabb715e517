/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry eval aggregate: answers that are spread over the whole text, where attending to the top few
 * tokens is known to fail. Three tasks in the manner of RULER (arXiv:2404.06654, appendix B):
 *
 *   common     words of a numbered list: ten occur often, all others seldom; which ten?
 *   frequent   coded words with Zipf frequencies (alpha 2); which three are the most frequent?
 *   variables  chains of assignments hidden in a text; which variables have this value?
 *
 * differs: RULER lets the model speak and looks for the words in any order. Here the answer is given
 * (teacher-forced) and its tokens are counted: common and variables in the order of their first
 * appearance, frequent by falling frequency. Numbers and commas between the words, which any policy
 * would get right, are left out, and so is RULER's example in front of the task.
 */
#include <stdlib.h>
#include <string.h>

#include "serve/eval/eval.h"

enum {
    COMMON = 10,       /* words to find                       */
    COMMON_TIMES = 30, /* how often each occurs, where there is room */
    CODED = 40,        /* coded words                         */
    CHAINS = 2,
    HOPS = 4
};

/* Writes `text`'s context of n items: the caller's own shape. */
typedef enum qy_status write_items(const struct qyi_eval_recipe *recipe, uint64_t seed, size_t n,
                                   struct qyi_eval_ids *context, char *answer, size_t answer_bytes,
                                   struct qy_error *err);

/* As many items as ctx tokens hold, by bisection. The context has the prefix already. */
static enum qy_status fit(const struct qyi_eval_recipe *recipe, uint64_t seed, size_t least,
                          write_items *write, struct qyi_eval_ids *context, char *answer,
                          size_t answer_bytes, struct qy_error *err)
{
    const size_t prefix = context->n;
    size_t low = least, high = (size_t)recipe->ctx + 1, n = least; /* low fits, high does not */
    for (;;) {
        context->n = prefix;
        const enum qy_status st = write(recipe, seed, n, context, answer, answer_bytes, err);
        const int fits = context->n <= recipe->ctx;
        if (st != QY_OK || (fits && low + 1 >= high)) {
            return st;
        }
        if (!fits && n == least) {
            break;
        }
        *(fits ? &low : &high) = n;
        n = low + (high - low) / 2;
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "option '--ctx': %llu tokens are too few for this task; raise it",
                        (unsigned long long)recipe->ctx);
}

/* A list of n numbered words. */
static enum qy_status write_common(const struct qyi_eval_recipe *recipe, uint64_t seed, size_t n,
                                   struct qyi_eval_ids *context, char *answer, size_t answer_bytes,
                                   struct qy_error *err)
{
    struct qyi_eval_random random = {seed};
    uint32_t words[QYI_EVAL_WORDS];
    int seen[COMMON] = {0};
    uint32_t *list = calloc(n, sizeof *list);
    if (list == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
    }
    for (uint32_t i = 0; i < QYI_EVAL_WORDS; i++) {
        words[i] = i;
    }
    qyi_eval_shuffle(&random, words, QYI_EVAL_WORDS);
    /* chosen: short lists keep the common words at 60 % of the list, as RULER's 30 against 3 */
    const size_t times = COMMON * COMMON_TIMES * 10 <= n * 6 ? COMMON_TIMES : n * 6 / 10 / COMMON;
    for (uint32_t i = 0; i < n; i++) {
        list[i] = i < COMMON * times
                      ? i % COMMON
                      : COMMON + (uint32_t)(i - COMMON * times) % (QYI_EVAL_WORDS - COMMON);
    }
    qyi_eval_shuffle(&random, list, n);
    enum qy_status st = qyi_eval_ids_add_text(
        context, &recipe->encoder,
        "Below is a numbered list of words. In these words, some appear more often than others. "
        "Memorize the ones that appear most often.\n",
        err);
    size_t used = 0;
    answer[0] = '\0';
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        char item[48];
        const char *word = qyi_eval_word(words[list[i]]);
        snprintf(item, sizeof item, "%zu. %s ", i + 1, word);
        st = qyi_eval_ids_add_text(context, &recipe->encoder, item, err);
        if (list[i] < COMMON && !seen[list[i]] && used < answer_bytes) {
            seen[list[i]] = 1;
            used += (size_t)snprintf(answer + used, answer_bytes - used, "%s%s",
                                     used > 0 ? " " : "", word);
        }
    }
    free(list);
    return st;
}

/* Six letters that stand for a word. */
static void coded_word(struct qyi_eval_random *random, char *out)
{
    for (int i = 0; i < 6; i++) {
        out[i] = (char)('a' + (char)qyi_eval_draw(random, 26));
    }
    out[6] = '\0';
}

/* n coded words; the most frequent is "...." and does not count, as in RULER. */
static enum qy_status write_frequent(const struct qyi_eval_recipe *recipe, uint64_t seed, size_t n,
                                     struct qyi_eval_ids *context, char *answer,
                                     size_t answer_bytes, struct qy_error *err)
{
    struct qyi_eval_random random = {seed};
    char words[CODED][8];
    double norm = 0;
    uint32_t *list = calloc(n, sizeof *list);
    if (list == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "eval: out of memory for the task");
    }
    for (int k = 0; k < CODED; k++) {
        coded_word(&random, words[k]);
        norm += 1.0 / ((k + 1.0) * (k + 1.0));
    }
    snprintf(words[0], sizeof words[0], "....");
    size_t at = 0;
    for (uint32_t k = CODED; k-- > 1;) { /* the rest goes to the first */
        const size_t times = (size_t)((double)n / norm / ((k + 1.0) * (k + 1.0)));
        for (size_t i = 0; i < times; i++) {
            list[at++] = k;
        }
    }
    qyi_eval_shuffle(&random, list, n);
    enum qy_status st = qyi_eval_ids_add_text(
        context, &recipe->encoder,
        "Read the following coded text and track the frequency of each coded word. Find the three "
        "most frequently appeared coded words.\n",
        err);
    for (size_t i = 0; st == QY_OK && i < n; i++) {
        char item[16];
        snprintf(item, sizeof item, "%s ", words[list[i]]);
        st = qyi_eval_ids_add_text(context, &recipe->encoder, item, err);
    }
    snprintf(answer, answer_bytes, "%s %s %s", words[1], words[2], words[3]);
    free(list);
    return st;
}

struct chain {
    unsigned value;
    char names[HOPS + 1][8];
};

/* Chains of assignments spread over the file's text, or over sentences that say nothing. */
static enum qy_status write_variables(const struct qyi_eval_recipe *recipe,
                                      struct qyi_eval_random *random, struct qyi_eval_text *text,
                                      struct chain *chains, struct qy_error *err)
{
    char lines[CHAINS * (HOPS + 1)][48];
    const char *statements[CHAINS * (HOPS + 1)];
    struct qyi_eval_recipe own = *recipe;
    struct qyi_eval_ids noise = {0};
    enum qy_status st = QY_OK;
    for (int c = 0; c < CHAINS; c++) {
        chains[c].value = 10000 + (unsigned)qyi_eval_draw(random, 90000);
        for (int i = 0; i <= HOPS; i++) {
            char *name = chains[c].names[i];
            const int line = i * CHAINS + c; /* chains alternate; each is in order */
            coded_word(random, name);
            name[5] = '\0';
            for (char *p = name; *p != '\0'; p++) {
                *p = (char)(*p - 'a' + 'A');
            }
            i == 0
                ? snprintf(lines[line], sizeof lines[0], "\nVAR %s = %u\n", name, chains[c].value)
                : snprintf(lines[line], sizeof lines[0], "\nVAR %s = VAR %s\n", name,
                           chains[c].names[i - 1]);
            statements[line] = lines[line];
        }
    }
    if (own.hay == NULL) {
        while (st == QY_OK && noise.n < recipe->ctx) {
            st = qyi_eval_ids_add_text(&noise, &recipe->encoder,
                                       "The grass is green. The sky is blue. The sun is yellow. "
                                       "Here we go. There and back again.\n",
                                       err);
        }
        own.hay = noise.ids;
        own.n_hay = noise.n;
    }
    if (st == QY_OK) {
        st = qyi_eval_ids_add_text(&text->context, &recipe->encoder,
                                   "Memorize and track the chain(s) of variable assignment hidden "
                                   "in the following text.\n",
                                   err);
    }
    if (st == QY_OK) {
        st = qyi_eval_spread(&own, random, text, 0, statements, CHAINS * (HOPS + 1), err);
    }
    free(noise.ids);
    return st;
}

static enum qy_status variables_text(const struct qyi_eval_recipe *recipe, uint64_t seed,
                                     struct qyi_eval_task *task, struct qyi_eval_text *text,
                                     struct qy_error *err)
{
    struct qyi_eval_random random = {seed};
    struct chain chains[CHAINS];
    const int group = qyi_eval_task_group(task, "variables");
    enum qy_status st = write_variables(recipe, &random, text, chains, err);
    for (int c = 0; st == QY_OK && c < CHAINS; c++) {
        char ask[320], answer[96];
        snprintf(
            ask, sizeof ask,
            "\nQuestion: Find all variables that are assigned the value %u in the text above.\n"
            "Answer: According to the chain(s) of variable assignment in the text above, %d "
            "variables are assigned the value %u, they are: ",
            chains[c].value, HOPS + 1, chains[c].value);
        snprintf(answer, sizeof answer, "%s %s %s %s %s", chains[c].names[0], chains[c].names[1],
                 chains[c].names[2], chains[c].names[3], chains[c].names[4]);
        st = qyi_eval_text_ask(recipe, text, ask, answer, group, QYI_EVAL_NO_GROUP, err);
    }
    return st;
}

static enum qy_status listed_text(const struct qyi_eval_recipe *recipe, uint64_t seed, int common,
                                  struct qyi_eval_task *task, struct qyi_eval_text *text,
                                  struct qy_error *err)
{
    char answer[512];
    const int group = qyi_eval_task_group(task, common ? "common" : "frequent");
    const char *ask = common
                          ? "\nQuestion: What are the 10 most common words in the above list?\n"
                            "Answer: The top 10 words that appear most often in the list are: "
                          : "\nQuestion: Please ignore the dots '....'. What are the three most "
                            "frequently appeared words in the above coded text?\nAnswer: According "
                            "to the coded text above, the three most frequently appeared words "
                            "are: ";
    enum qy_status st =
        fit(recipe, seed, common ? 4 * COMMON : 4 * CODED, common ? write_common : write_frequent,
            &text->context, answer, sizeof answer, err);
    if (st == QY_OK) {
        st = qyi_eval_text_ask(recipe, text, ask, answer, group, QYI_EVAL_NO_GROUP, err);
    }
    return st;
}

enum qy_status qyi_eval_make_aggregate(const struct qyi_eval_recipe *recipe,
                                       struct qyi_eval_task *task, struct qy_error *err)
{
    static const char *const names[] = {"common", "frequent", "variables"};
    const char *which = recipe->task != NULL ? recipe->task : "all";
    const uint64_t count = recipe->count > 0 ? recipe->count : 2;
    struct qyi_eval_random random = {recipe->seed};
    enum qy_status st = QY_OK;
    size_t n_tasks = 0;
    for (int t = 0; t < 3; t++) {
        if (strcmp(which, "all") != 0 && strcmp(which, names[t]) != 0) {
            continue;
        }
        n_tasks++;
        for (uint64_t i = 0; st == QY_OK && i < count; i++) {
            struct qyi_eval_text *text = NULL;
            const uint64_t seed = qyi_eval_draw(&random, UINT64_MAX);
            st = qyi_eval_task_text(recipe, task, &text, err);
            if (st == QY_OK) {
                st = t == 2 ? variables_text(recipe, seed, task, text, err)
                            : listed_text(recipe, seed, t == 0, task, text, err);
            }
        }
    }
    if (n_tasks == 0) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--task': '%s' refused; eval aggregate accepts common, "
                            "frequent, variables, all",
                            which);
    }
    qyi_eval_task_finish(task);
    return st;
}
