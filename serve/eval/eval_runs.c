/* SPDX-License-Identifier: Apache-2.0 */
/* quarry eval: which policies run, read from --policies and --budgets. */
#include <string.h>

#include "serve/eval/eval.h"

/* Does a built-in policy's name start here? */
static int starts_policy(const char *text)
{
    const size_t n = strcspn(text, ",@/:");
    for (size_t i = 0; qy_policy_at(i) != NULL; i++) {
        const char *name = qy_policy_at(i)->name;
        const size_t bytes = strcspn(name, ":");
        if (bytes == n && memcmp(name, text, n) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Bytes of the first item of a list: up to a comma; of a policy with an argument, which may hold
 * commas, up to one that a policy's name follows. */
static size_t item_bytes(const char *list)
{
    const int argument = list[strcspn(list, ":@/,")] == ':';
    size_t n = strcspn(list, ",");
    while (argument && list[n] == ',' && !starts_policy(list + n + 1)) {
        n += 1 + strcspn(list + n + 1, ",");
    }
    return n;
}

/* Bytes up to the next "/setting=": a value may be a path. */
static size_t setting_bytes(const char *text)
{
    size_t n = strcspn(text, "/");
    while (text[n] == '/') {
        const size_t name = strspn(text + n + 1, "abcdefghijklmnopqrstuvwxyz0123456789_.");
        if (name > 0 && text[n + 1 + name] == '=') {
            break;
        }
        n += 1 + strcspn(text + n + 1, "/");
    }
    return n;
}

static enum qy_status add_setting(struct qyi_eval_run *run, const char *text, size_t n,
                                  struct qy_error *err)
{
    if (run->n_sets == QYI_EVAL_MAX_SETS || n + sizeof "retrieval." > sizeof run->sets[0] ||
        memchr(text, '=', n) == NULL) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--policies': '%.*s' refused after a '/'; setting=value is "
                            "accepted, at most %d of them",
                            (int)n, text, QYI_EVAL_MAX_SETS);
    }
    const char *equals = memchr(text, '=', n);
    const int section = memchr(text, '.', (size_t)(equals - text)) != NULL;
    snprintf(run->sets[run->n_sets++], sizeof run->sets[0], "%s%.*s", section ? "" : "retrieval.",
             (int)n, text);
    return QY_OK;
}

/* NAME[@BUDGET][/setting=value ...] */
static enum qy_status parse_item(const char *item, size_t n, struct qyi_eval_run *run,
                                 struct qy_error *err)
{
    memset(run, 0, sizeof *run);
    if (n == 0 || n >= sizeof run->label) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "option '--policies': '%.*s' is no list of policies", n == 0 ? 0 : 60,
                            item);
    }
    snprintf(run->label, sizeof run->label, "%.*s", (int)n, item);
    const char *at = run->label;
    const size_t name = strcspn(at, "@/");
    snprintf(run->policy, sizeof run->policy, "%.*s", (int)name, at);
    at += name;
    if (*at == '@') {
        const size_t budget = strcspn(++at, "/");
        snprintf(run->budget, sizeof run->budget, "%.*s", (int)budget, at);
        at += budget;
    }
    enum qy_status st = QY_OK;
    while (st == QY_OK && *at == '/') {
        const size_t setting = setting_bytes(++at);
        st = add_setting(run, at, setting, err);
        at += setting;
    }
    const struct qy_policy_ops *ops;
    struct qy_budget budget;
    if (st == QY_OK) {
        st = qy_policy_choose(run->policy, &ops, err);
    }
    if (st == QY_OK && run->budget[0] != '\0' && strcmp(run->budget, "auto") != 0) {
        st = qy_budget_parse(run->budget, &budget, err);
    }
    return st;
}

static enum qy_status add_run(struct qyi_eval_runs *runs, const struct qyi_eval_run *run,
                              struct qy_error *err)
{
    if (runs->n == QYI_EVAL_MAX_RUNS) {
        return qy_error_set(err, QY_ERR_CONFIG, "eval: more than %d runs in one call; split them",
                            QYI_EVAL_MAX_RUNS);
    }
    runs->run[runs->n++] = *run;
    return QY_OK;
}

/* run once for each budget of the list. */
static enum qy_status add_budgets(struct qyi_eval_runs *runs, const struct qyi_eval_run *run,
                                  const char *budgets, struct qy_error *err)
{
    for (const char *at = budgets; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        struct qyi_eval_run one = *run;
        struct qy_budget parsed;
        snprintf(one.budget, sizeof one.budget, "%.*s", (int)strcspn(at, ","), at);
        enum qy_status st = qy_budget_parse(one.budget, &parsed, err);
        if (st == QY_OK) {
            const size_t name = strcspn(run->label, "/");
            snprintf(one.label, sizeof one.label, "%.*s@%s%s", (int)name, run->label, one.budget,
                     run->label + name);
            st = add_run(runs, &one, err);
        }
        if (st != QY_OK) {
            return st;
        }
    }
    return QY_OK;
}

static int has_budget(const struct qyi_eval_run *run)
{
    const struct qy_policy_ops *ops = NULL;
    struct qy_error err;
    return qy_policy_choose(run->policy, &ops, &err) == QY_OK && !ops->caps.dense &&
           !ops->caps.select_nothing;
}

enum qy_status qyi_eval_runs_parse(const char *policies, const char *budgets,
                                   const struct qy_retrieval_settings *settings,
                                   struct qyi_eval_runs *runs, struct qy_error *err)
{
    const char *at = policies != NULL ? policies : settings->policy;
    runs->n = 0;
    for (;;) {
        struct qyi_eval_run run;
        const size_t n = policies != NULL ? item_bytes(at) : strlen(at);
        enum qy_status st = parse_item(at, n, &run, err);
        if (st == QY_OK && run.budget[0] != '\0') {
            st = add_run(runs, &run, err);
        } else if (st == QY_OK && budgets != NULL && has_budget(&run)) {
            st = add_budgets(runs, &run, budgets, err);
        } else if (st == QY_OK) {
            snprintf(run.budget, sizeof run.budget, "%s", settings->budget);
            if (has_budget(&run) && strcmp(run.budget, "auto") != 0) {
                const size_t name = strlen(run.policy);
                char rest[QY_SETTING_TEXT_BYTES];
                snprintf(rest, sizeof rest, "%s", run.label + name);
                snprintf(run.label, sizeof run.label, "%s@%s%s", run.policy, run.budget, rest);
            }
            st = add_run(runs, &run, err);
        }
        if (st != QY_OK || at[n] == '\0') {
            return st;
        }
        at += n + 1;
    }
}
