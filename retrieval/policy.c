/* SPDX-License-Identifier: Apache-2.0 */
/* The list of built-in policies: by place, by name, and with an error text that helps. */
#include "retrieval/policies.h"

#include <stdio.h>
#include <string.h>

static const struct qy_policy_ops *const builtin[] = {
    &qyi_policy_dense,
    &qyi_policy_window,
    &qyi_policy_exact,
};
enum { N_BUILTIN = sizeof(builtin) / sizeof(builtin[0]) };

const struct qy_policy_ops *qy_policy_at(size_t i)
{
    return i < N_BUILTIN ? builtin[i] : NULL;
}

const struct qy_policy_ops *qy_policy_find(const char *name)
{
    for (size_t i = 0; i < N_BUILTIN; i++) {
        if (strcmp(builtin[i]->name, name) == 0) {
            return builtin[i];
        }
    }
    return NULL;
}

static enum qy_status unknown(const char *name, struct qy_error *err)
{
    const char *names[N_BUILTIN];
    char list[200] = "";
    size_t used = 0;

    for (size_t i = 0; i < N_BUILTIN; i++) {
        names[i] = builtin[i]->name;
        const int n =
            snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", names[i]);
        if (n < 0 || (size_t)n >= sizeof(list) - used) {
            break;
        }
        used += (size_t)n;
    }
    const char *near = qy_nearest(name, names, N_BUILTIN);
    if (near) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%.60s': no such policy; have: %s; did you mean '%s'?", name,
                            list, near);
    }
    return qy_error_set(err, QY_ERR_CONFIG, "policy '%.60s': no such policy; have: %s", name, list);
}

enum qy_status qy_policy_choose(const char *name, const struct qy_policy_ops **ops,
                                struct qy_error *err)
{
    const struct qy_policy_ops *found = qy_policy_find(name);

    if (!found) {
        return unknown(name, err);
    }
    *ops = found;
    return QY_OK;
}
