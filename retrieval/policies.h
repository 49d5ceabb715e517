/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the built-in policies, one file each. policy.c lists them. */
#ifndef QYI_RETRIEVAL_POLICIES_H
#define QYI_RETRIEVAL_POLICIES_H

#include "retrieval/retrieval.h"

extern const struct qy_policy_ops qyi_policy_dense;
extern const struct qy_policy_ops qyi_policy_window;
extern const struct qy_policy_ops qyi_policy_exact;

#endif
