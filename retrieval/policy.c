/* SPDX-License-Identifier: Apache-2.0 */
/* The list of built-in policies: by place, by name, and with an error text that helps. */
#include "retrieval/policies.h"

#include <stdio.h>
#include <string.h>

static const struct qy_policy_ops *const builtin[] = {
    &qyi_policy_dense, &qyi_policy_window,     &qyi_policy_exact,
    &qyi_policy_a2ats, &qyi_policy_a2ats_plus, &qyi_policy_quest,
    &qyi_policy_pq,    &qyi_policy_clusters,   &qyi_policy_faiss,
};
enum { N_BUILTIN = sizeof(builtin) / sizeof(builtin[0]) };

const struct qy_policy_ops *qy_policy_at(size_t i)
{
    return i < N_BUILTIN ? builtin[i] : NULL;
}

/* Characters before the colon, or all. */
static size_t name_bytes(const char *name)
{
    return strcspn(name, ":");
}

const char *qy_policy_argument(const char *name)
{
    const size_t n = name_bytes(name);

    return name[n] == ':' ? name + n + 1 : name + n;
}

const struct qy_policy_ops *qy_policy_find(const char *name)
{
    const size_t n = name_bytes(name);

    for (size_t i = 0; i < N_BUILTIN; i++) {
        if (strlen(builtin[i]->name) == n && memcmp(builtin[i]->name, name, n) == 0) {
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
    if (!found->open && name[name_bytes(name)] == ':') {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "policy '%.60s': '%s' takes no argument; leave out what follows it",
                            name, found->name);
    }
    *ops = found;
    return QY_OK;
}
