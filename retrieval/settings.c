/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of this module. The texts are read by qy_policy_choose and qy_budget_parse. */
#include "retrieval/retrieval.h"

const struct qy_setting qy_retrieval_setting_rows[] = {
    {
        .name = "retrieval.policy",
        .type = QY_SETTING_TEXT,
        .initial = "dense",
        .unit = "",
        .help = "how tokens are chosen: dense (all), window (sinks and window only), "
                "exact (scores every key)",
        .offset = offsetof(struct qy_retrieval_settings, policy),
    },
    {
        .name = "retrieval.budget",
        .type = QY_SETTING_TEXT,
        .initial = "0.05",
        .unit = "",
        .help = "tokens chosen per KV head: 0.05 (share of the context), 2048 (tokens), or "
                "p0.95:0.10 (attention mass under a cap)",
        .offset = offsetof(struct qy_retrieval_settings, budget),
    },
};

const size_t qy_retrieval_setting_count =
    sizeof(qy_retrieval_setting_rows) / sizeof(qy_retrieval_setting_rows[0]);
