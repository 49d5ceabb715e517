/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the built-in policies, one file each. policy.c lists them. Settings that a policy
 * was not given are the defaults. */
#ifndef QYI_RETRIEVAL_POLICIES_H
#define QYI_RETRIEVAL_POLICIES_H

#include "retrieval/retrieval.h"

extern const struct qy_policy_ops qyi_policy_dense;
extern const struct qy_policy_ops qyi_policy_window;
extern const struct qy_policy_ops qyi_policy_exact;
extern const struct qy_policy_ops qyi_policy_a2ats;
extern const struct qy_policy_ops qyi_policy_a2ats_plus;
extern const struct qy_policy_ops qyi_policy_quest;
extern const struct qy_policy_ops qyi_policy_pq;
extern const struct qy_policy_ops qyi_policy_clusters;
extern const struct qy_policy_ops qyi_policy_faiss;

/* What settings.c's rows say. */
extern const struct qy_retrieval_settings qyi_retrieval_defaults;

static inline const struct qy_retrieval_settings *
qyi_policy_settings(const struct qy_policy_params *params)
{
    return params->settings ? params->settings : &qyi_retrieval_defaults;
}

#endif
