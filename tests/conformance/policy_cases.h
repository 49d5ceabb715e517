/* SPDX-License-Identifier: Apache-2.0 */
/* Every policy, in every shape that the conformance tests of policies look at. */
#ifndef QY_TESTS_CONFORMANCE_POLICY_CASES_H
#define QY_TESTS_CONFORMANCE_POLICY_CASES_H

#include "tests/conformance/policy_rig.h"

struct policy_case {
    const char *policy, *budget;
    uint32_t d, group, block_tokens, threads;
    enum qy_cpu_level level;
    void (*set)(struct qy_retrieval_settings *settings); /* may be NULL */
};

/* Calls check for each; a policy that this build lacks is named once and left out. */
void policy_cases_run(void (*check)(const struct policy_case *c));
struct prig_options policy_case_options(const struct policy_case *c);

/* Does its select look at the query? */
int policy_case_selects(const struct policy_case *c);
/* Is its index a pure function of keys and codebook, the same however the keys came? */
int policy_case_shareable(const struct policy_case *c);

#endif
