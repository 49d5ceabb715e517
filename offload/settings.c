/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of this module. */
#include "offload/offload.h"

const struct qy_setting qy_cache_setting_rows[] = {
    {
        .name = "cache.block_tokens",
        .type = QY_SETTING_INT,
        .initial = "128",
        .min = 8,
        .max = 4096,
        .unit = "tokens",
        .help = "tokens of one block, the unit of allocation and sharing; a power of two",
        .offset = offsetof(struct qy_cache_settings, block_tokens),
    },
    {
        .name = "cache.sinks",
        .type = QY_SETTING_INT,
        .initial = "8",
        .min = 0,
        .max = 1 << 20,
        .unit = "tokens",
        .help = "first tokens of a sequence, always attended",
        .offset = offsetof(struct qy_cache_settings, sinks),
    },
    {
        .name = "cache.window",
        .type = QY_SETTING_INT,
        .initial = "64",
        .min = 1,
        .max = 1 << 20,
        .unit = "tokens",
        .help = "last tokens of a sequence, the new one included, always attended",
        .offset = offsetof(struct qy_cache_settings, window),
    },
    {
        .name = "cache.row_type",
        .type = QY_SETTING_CHOICE,
        .initial = "f16",
        .choices = "f16|f32",
        .unit = "",
        .help = "number format of the rows of K and V; f32 is twice as large and for tests",
        .offset = offsetof(struct qy_cache_settings, row_type),
    },
    {
        .name = "cache.host_bytes",
        .type = QY_SETTING_SIZE,
        .allow_auto = 1,
        .initial = "auto",
        .min = 0,
        .max = 1e18,
        .unit = "bytes",
        .help = "host memory for KV; auto takes what the request needs",
        .offset = offsetof(struct qy_cache_settings, host_bytes),
    },
    {
        .name = "cache.device_bytes",
        .type = QY_SETTING_SIZE,
        .allow_auto = 1,
        .initial = "auto",
        .min = 0,
        .max = 1e18,
        .unit = "bytes",
        .help = "device memory for rows, index and staging; auto takes what the request needs",
        .offset = offsetof(struct qy_cache_settings, device_bytes),
    },
    {
        .name = "cache.eviction",
        .type = QY_SETTING_CHOICE,
        .initial = "lru",
        .choices = "lru|lfu|clock",
        .unit = "",
        .help = "which row leaves device memory first: least recently used, least often, or by a "
                "clock",
        .offset = offsetof(struct qy_cache_settings, eviction),
    },
};

const size_t qy_cache_setting_count =
    sizeof(qy_cache_setting_rows) / sizeof(qy_cache_setting_rows[0]);
