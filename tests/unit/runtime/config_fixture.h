/* SPDX-License-Identifier: Apache-2.0 */
/* One module's settings with every type, and an open config over them. */
#ifndef QY_TESTS_RUNTIME_CONFIG_FIXTURE_H
#define QY_TESTS_RUNTIME_CONFIG_FIXTURE_H

#include "runtime/runtime.h"

struct fixture_values {
    int64_t block_tokens;
    uint64_t host_bytes;
    double budget;
    int enable;
    int mode;
    char path[QY_SETTING_TEXT_BYTES];
};

enum { FIXTURE_ROWS = 6 };
extern const struct qy_setting fixture_rows[FIXTURE_ROWS];

/* A config over fixture_rows, then the runtime's own. values and runtime are kept until close. */
struct qy_config *fixture_open(struct fixture_values *values, struct qy_runtime_settings *runtime);

/* Source text of the row called name. */
const char *fixture_source(const struct qy_config *config, const char *name,
                           struct qy_config_row *row);

#endif
