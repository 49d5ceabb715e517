/* SPDX-License-Identifier: Apache-2.0 */
/* See policy_cases.h. */
#include "tests/conformance/policy_cases.h"

#include <string.h>

static const char *const with_argument[] = {"faiss:Flat", "faiss:PQ8x4"};
enum { N_WITH_ARGUMENT = sizeof(with_argument) / sizeof(with_argument[0]), MOST = 64 };

/* The policies of this build: names that open. */
static size_t names(const char **list)
{
    size_t n = 0;

    for (size_t i = 0; qy_policy_at(i) != NULL && n < MOST; i++) {
        if (strcmp(qy_policy_at(i)->name, "faiss") != 0) {
            list[n++] = qy_policy_at(i)->name;
        }
    }
    for (size_t i = 0; i < N_WITH_ARGUMENT && qy_policy_find("faiss") != NULL; i++) {
        struct prig rig;
        const struct prig_options try = {
            .policy = with_argument[i], .budget = "0.1", .d = 64, .group = 1, .block_tokens = 16};

        if (prig_open(&rig, &try)) {
            prig_close(&rig);
            list[n++] = with_argument[i];
        } else {
            print_message("%s: left out, this build has no FAISS\n", with_argument[i]);
        }
    }
    return n;
}

/* Plain kernels take minutes under a sanitizer, under which each has tests of its own: all sets run without. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { EVERY_KERNEL_SET = 0 };
#else
enum { EVERY_KERNEL_SET = 1 };
#endif

static void set_estimate(struct qy_retrieval_settings *settings)
{
    settings->estimate = 32;
}

static void run_sets(void (*check)(const struct policy_case *c), struct policy_case *c, int all)
{
    struct qy_cpu cpu;

    qy_cpu_detect(&cpu);
    for (int level = all ? QY_CPU_PLAIN : (int)cpu.best; level <= (int)cpu.best; level++) {
        c->level = (enum qy_cpu_level)level;
        check(c);
    }
}

void policy_cases_run(void (*check)(const struct policy_case *c))
{
    /* each value of each property appears; kernel sets have tests of their own */
    static const struct policy_case shapes[] = {
        {.d = 64, .group = 3, .block_tokens = 16, .threads = 2, .budget = "0.1"},
        {.d = 128, .group = 4, .block_tokens = 128, .threads = 1, .budget = "24"},
        {.d = 64, .group = 1, .block_tokens = 128, .threads = 2, .budget = "p0.9:0.2"},
    };
    const char *list[MOST];
    const size_t n = names(list);

    for (size_t p = 0; p < n; p++) {
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            struct policy_case c = shapes[s];

            c.policy = list[p];
            /* without an index there is little that the other shapes could change */
            if (s == 0 || policy_case_selects(&c)) {
                run_sets(check, &c, EVERY_KERNEL_SET && s == 0);
            }
            if (strcmp(c.policy, "a2ats+") == 0) {
                c.set = set_estimate;
                run_sets(check, &c, 0); /* kernel sets have tests of their own */
            }
        }
    }
}

struct prig_options policy_case_options(const struct policy_case *c)
{
    return (struct prig_options){.policy = c->policy,
                                 .budget = c->budget,
                                 .d = c->d,
                                 .group = c->group,
                                 .block_tokens = c->block_tokens,
                                 .threads = c->threads,
                                 .set = c->set,
                                 .level = c->level};
}

int policy_case_selects(const struct policy_case *c)
{
    const struct qy_policy_ops *ops = NULL;

    assert_int_equal(qy_policy_choose(c->policy, &ops, NULL), QY_OK);
    return !ops->caps.dense && !ops->caps.select_nothing;
}

int policy_case_shareable(const struct policy_case *c)
{
    const struct qy_policy_ops *ops = NULL;

    assert_int_equal(qy_policy_choose(c->policy, &ops, NULL), QY_OK);
    return ops->caps.index_shareable || !policy_case_selects(c);
}
