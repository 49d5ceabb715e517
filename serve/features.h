/* SPDX-License-Identifier: Apache-2.0 */
/* What the build found; features.c is written by CMake from features.c.in. */
#ifndef QY_SERVE_FEATURES_H
#define QY_SERVE_FEATURES_H

#include <stddef.h>

struct qyi_feature {
    const char *name;
    int found;
    const char *version;
    const char *mend; /* how to get it */
};
extern const struct qyi_feature qyi_features[];
extern const size_t qyi_feature_count;

#endif
