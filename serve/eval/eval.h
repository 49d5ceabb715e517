/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kinds of quarry eval share. A command runs one or several policies (struct qyi_eval_run)
 * over the same tokens. Each run opens the engine anew, reads the context densely, copies it, and
 * feeds the tokens that follow to both copies in one batch: one attends to everything, the other as
 * the policy says. What differs between the kinds is which tokens, and what is counted.
 */
#ifndef QY_SERVE_EVAL_H
#define QY_SERVE_EVAL_H

#include "serve/serve.h"

/* ---- runs: which policies ---------------------------------------------------------------------- */

enum { QYI_EVAL_MAX_RUNS = 64, QYI_EVAL_MAX_SETS = 12 };

/* One policy with its budget and settings. */
struct qyi_eval_run {
    char label[QY_SETTING_TEXT_BYTES]; /* as it was asked for */
    char policy[QY_SETTING_TEXT_BYTES], budget[64];
    char sets[QYI_EVAL_MAX_SETS][96]; /* "section.name=value" */
    size_t n_sets;
};

struct qyi_eval_runs {
    struct qyi_eval_run run[QYI_EVAL_MAX_RUNS];
    size_t n;
};

/* --policies and --budgets as runs; without them the one that the settings name. NAME[@BUDGET]
 * [/setting=value ...], separated by commas; in the argument of a policy ("faiss:IVF64,Flat") a
 * comma separates only where a policy's name follows. A setting without a section is retrieval's. */
QY_MUST enum qy_status qyi_eval_runs_parse(const char *policies, const char *budgets,
                                           const struct qy_retrieval_settings *settings,
                                           struct qyi_eval_runs *runs, struct qy_error *err);

/* ---- tasks: contexts with questions, drawn from a seed ------------------------------------------- */

/* SplitMix64 (Steele, Lea and Flood 2014). */
struct qyi_eval_random {
    uint64_t state;
};
uint64_t qyi_eval_draw(struct qyi_eval_random *random, uint64_t below); /* 0 .. below - 1 */
void qyi_eval_shuffle(struct qyi_eval_random *random, uint32_t *items, size_t n);

struct qyi_eval_ids {
    int32_t *ids;
    size_t n, room;
};
QY_MUST enum qy_status qyi_eval_ids_add(struct qyi_eval_ids *ids, const int32_t *more, size_t n,
                                        struct qy_error *err);

/* Text to ids (no BOS, no control tokens): the tokenizer, or a test's own. ids freed with free_ids. */
struct qyi_eval_encoder {
    void *arg;
    enum qy_status (*encode)(void *arg, const char *text, size_t bytes, int32_t **ids, size_t *n,
                             struct qy_error *err);
    void (*free_ids)(void *arg, int32_t *ids);
};
QY_MUST enum qy_status qyi_eval_ids_add_text(struct qyi_eval_ids *ids,
                                             const struct qyi_eval_encoder *encoder,
                                             const char *text, struct qy_error *err);

enum { QYI_EVAL_NO_GROUP = -1, QYI_EVAL_MAX_GROUPS = 72 };

/* ids[first ..] of the text's questions: n_ask tokens that ask, then n_answer that answer. All are
 * fed (teacher-forced); those of the answer are counted. */
struct qyi_eval_question {
    size_t first;
    uint32_t n_ask, n_answer;
    int group, group2; /* where it is counted beside the total */
};

struct qyi_eval_text {
    struct qyi_eval_ids context, asked;
    struct qyi_eval_question *questions;
    size_t n_questions, room;
    int grows; /* questions and answers stay in the context; else each is asked of the context */
};

struct qyi_eval_task {
    char groups[QYI_EVAL_MAX_GROUPS][24];
    size_t n_groups;
    struct qyi_eval_text *texts;
    size_t n_texts;
    size_t max_tokens; /* of a context with all that is asked of it */
};

/* What tasks are made of. */
struct qyi_eval_recipe {
    struct qyi_eval_encoder encoder;
    const int32_t *prefix; /* [n_prefix] in front of each context: BOS, where the model has one */
    size_t n_prefix;
    const int32_t *hay; /* [n_hay] the file's tokens; NULL when there is no file */
    size_t n_hay;
    uint64_t ctx, count, seed; /* tokens of a context, cases (0: the task's own number) */
    const char *task;          /* which of the kind's tasks; NULL: all */
};

QY_MUST enum qy_status qyi_eval_make_needle(const struct qyi_eval_recipe *recipe,
                                            struct qyi_eval_task *task, struct qy_error *err);
QY_MUST enum qy_status qyi_eval_make_aggregate(const struct qyi_eval_recipe *recipe,
                                               struct qyi_eval_task *task, struct qy_error *err);
QY_MUST enum qy_status qyi_eval_make_turns(const struct qyi_eval_recipe *recipe,
                                           struct qyi_eval_task *task, struct qy_error *err);
void qyi_eval_task_close(struct qyi_eval_task *task);

/* A new text of the task, with the prefix in its context. */
QY_MUST enum qy_status qyi_eval_task_text(const struct qyi_eval_recipe *recipe,
                                          struct qyi_eval_task *task, struct qyi_eval_text **text,
                                          struct qy_error *err);
int qyi_eval_task_group(struct qyi_eval_task *task, const char *name); /* found or added */
/* Adds a question. ask and answer are encoded as one text: the answer's tokens are those that differ
 * from the tokens of ask alone. */
QY_MUST enum qy_status qyi_eval_text_ask(const struct qyi_eval_recipe *recipe,
                                         struct qyi_eval_text *text, const char *ask,
                                         const char *answer, int group, int group2,
                                         struct qy_error *err);
/* The last step: max_tokens. */
void qyi_eval_task_finish(struct qyi_eval_task *task);

/* A five-digit code that belongs to a name. */
struct qyi_eval_fact {
    const char *name;
    unsigned code;
};
/* n facts with different names. QY_ERR_CONFIG: more than there are names. */
QY_MUST enum qy_status qyi_eval_draw_facts(struct qyi_eval_random *random,
                                           struct qyi_eval_fact *facts, size_t n,
                                           struct qy_error *err);
/* Statements in order, spread over the text: the context becomes ctx tokens long, file's tokens
 * from `from` on with the statements in between, after the ends of sentences. */
QY_MUST enum qy_status qyi_eval_spread(const struct qyi_eval_recipe *recipe,
                                       struct qyi_eval_random *random, struct qyi_eval_text *text,
                                       size_t from, const char *const *statements, size_t n,
                                       struct qy_error *err);
/* Word i of a list of common English nouns, modulo its length. */
const char *qyi_eval_word(size_t i);
enum { QYI_EVAL_WORDS = 144, QYI_EVAL_NAMES = 64 };

/* ---- running --------------------------------------------------------------------------------------- */

/* Token accuracy of answers. */
struct qyi_eval_score {
    uint64_t cases, tokens, right, dense_right, whole, dense_whole;
    double log_prob, dense_log_prob; /* sums over tokens */
};

/* What one run gave. */
struct qyi_eval_result {
    const struct qyi_eval_run *run;
    struct qy_cache_stats stats;
    struct qy_audit_sums audit;
    cJSON *json;        /* object of this run; owned */
    double dense_check; /* sum of dense log-probabilities: the same in every run */
    /* ppl */
    uint64_t n, same_top;
    double nll, dense_nll, kl_sum;
    double *kl; /* [n], owned */
    /* tasks */
    struct qyi_eval_score total, group[QYI_EVAL_MAX_GROUPS];
};

struct qyi_eval {
    struct qyi_app *app;
    struct qyi_engine engine; /* of the run that is going on */
    struct qyi_eval_runs runs;
    struct qyi_eval_task task;
    int32_t *ids; /* the file's */
    size_t n_ids;
    FILE *dump;
    struct qy_sequence *dense, *policy;
    double yardstick; /* KL of the first run */
    int label_width;
};

/* One kind of evaluation. */
struct qyi_eval_kind {
    const char *name;
    /* Options and text; engine's file and tokenizer are open. Once. */
    enum qy_status (*prepare)(struct qyi_eval *eval, struct qy_error *err);
    /* Sizes of the engine. */
    void (*size)(const struct qyi_eval *eval, struct qyi_engine_params *params);
    enum qy_status (*run)(struct qyi_eval *eval, struct qyi_eval_result *result,
                          struct qy_error *err);
    void (*json)(const struct qyi_eval *eval, struct qyi_eval_result *result);
    void (*head)(const struct qyi_eval *eval); /* of the table */
    void (*row)(struct qyi_eval *eval, const struct qyi_eval_result *result);
    int audit; /* every selection is audited */
};
extern const struct qyi_eval_kind qyi_eval_ppl, qyi_eval_recall, qyi_eval_needle,
    qyi_eval_aggregate, qyi_eval_turns;

/* Reads ids densely into both sequences, and resets the counters. An interrupt ends it early: *done
 * tells how many were read. */
QY_MUST enum qy_status qyi_eval_read(struct qyi_eval *eval, const int32_t *ids, size_t n,
                                     size_t *done, struct qy_error *err);
/* One token to both, in one batch: engine.logits has the dense row, then the policy's. */
QY_MUST enum qy_status qyi_eval_feed(struct qyi_eval *eval, const int32_t *id,
                                     struct qy_error *err);
int32_t qyi_eval_top(const float *logits, uint32_t n);
/* Tokens of --file; QY_ERR_CONFIG when fewer than `need` from --start on. bos: as a model reads it. */
QY_MUST enum qy_status qyi_eval_read_file(struct qyi_eval *eval, int bos, uint64_t need,
                                          struct qy_error *err);
/* "--ctx" and, unless file_optional, -f are given. */
QY_MUST enum qy_status qyi_eval_need(const struct qyi_eval *eval, int file_optional,
                                     struct qy_error *err);

#endif
