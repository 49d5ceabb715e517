/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/runtime/config_fixture.h"

#include "tests/support/test.h"

#include <string.h>

const struct qy_setting fixture_rows[FIXTURE_ROWS] = {
    {.name = "cache.block_tokens",
     .type = QY_SETTING_INT,
     .initial = "128",
     .min = 1,
     .max = 4096,
     .unit = "tokens",
     .help = "Tokens of one block.",
     .offset = offsetof(struct fixture_values, block_tokens)},
    {.name = "cache.host_bytes",
     .type = QY_SETTING_SIZE,
     .allow_auto = 1,
     .initial = "auto",
     .min = 1 << 20,
     .max = 0x1p40,
     .unit = "bytes",
     .help = "Room in host memory.",
     .offset = offsetof(struct fixture_values, host_bytes)},
    {.name = "cache.budget",
     .type = QY_SETTING_REAL,
     .initial = "0.25",
     .min = 0,
     .max = 1,
     .unit = "",
     .help = "Share of the tokens.",
     .offset = offsetof(struct fixture_values, budget)},
    {.name = "serve.enable",
     .type = QY_SETTING_BOOL,
     .initial = "off",
     .unit = "",
     .help = "Serves.",
     .offset = offsetof(struct fixture_values, enable)},
    {.name = "serve.mode",
     .type = QY_SETTING_CHOICE,
     .initial = "fast",
     .choices = "slow|fast|faster",
     .unit = "",
     .help = "How.",
     .offset = offsetof(struct fixture_values, mode)},
    {.name = "serve.path",
     .type = QY_SETTING_TEXT,
     .initial = "",
     .unit = "",
     .help = "Where.",
     .offset = offsetof(struct fixture_values, path)},
};

struct qy_config *fixture_open(struct fixture_values *values, struct qy_runtime_settings *runtime)
{
    struct qy_allocator mem = qy_allocator_system();
    struct qy_setting_table tables[2] = {
        {.rows = fixture_rows, .n_rows = FIXTURE_ROWS, .values = values},
        {.rows = qy_runtime_setting_rows, .n_rows = qy_runtime_setting_count, .values = runtime},
    };
    struct qy_config *config = NULL;
    struct qy_error err;

    memset(values, 0xff, sizeof(*values));
    memset(runtime, 0xff, sizeof(*runtime));
    assert_int_equal(qy_config_open(&mem, tables, 2, &config, &err), QY_OK);
    return config;
}

const char *fixture_source(const struct qy_config *config, const char *name,
                           struct qy_config_row *row)
{
    for (size_t i = 0; qy_config_row_at(config, i, row); i++) {
        if (strcmp(row->setting->name, name) == 0) {
            return row->source;
        }
    }
    fail_msg("no row '%s'", name);
    return NULL;
}
