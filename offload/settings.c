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
        .help = "host memory for KV; auto takes what the request needs; with memory servers: what "
                "must be here, and the blocks of two steps",
        .offset = offsetof(struct qy_cache_settings, host_bytes),
    },
    {
        .name = "cache.disk_bytes",
        .type = QY_SETTING_SIZE,
        .initial = "0",
        .min = 0,
        .max = 1e18,
        .unit = "bytes",
        .help =
            "largest size of a file for KV that cache.host_bytes has no room for, with a discrete "
            "device; 0: none",
        .offset = offsetof(struct qy_cache_settings, disk_bytes),
    },
    {
        .name = "cache.disk_path",
        .type = QY_SETTING_TEXT,
        .initial = "/var/tmp",
        .help =
            "folder of that file, on a fast disk; the file has no name there and is gone when the "
            "program ends",
        .offset = offsetof(struct qy_cache_settings, disk_path),
    },
    {
        .name = "cache.disk_engine",
        .type = QY_SETTING_CHOICE,
        .initial = "auto",
        .choices = "auto|uring|threads",
        .unit = "",
        .help =
            "how the file is read and written: uring by io_uring, threads by a few threads, auto "
            "by io_uring where the system allows it",
        .offset = offsetof(struct qy_cache_settings, disk_engine),
    },
    {
        .name = "cache.device_bytes",
        .type = QY_SETTING_SIZE,
        .allow_auto = 1,
        .initial = "auto",
        .min = 0,
        .max = 1e18,
        .unit = "bytes",
        .help =
            "device memory of a discrete device for rows, index and staging; auto: all that its "
            "spec gives",
        .offset = offsetof(struct qy_cache_settings, device_bytes),
    },
    {
        .name = "cache.index_bytes",
        .type = QY_SETTING_SIZE,
        .allow_auto = 1,
        .initial = "auto",
        .min = 0,
        .max = 1e18,
        .unit = "bytes",
        .help = "the most that a policy's index may take, with a discrete device's map of its "
                "rows, for "
                "all tokens that may come; auto: what is needed. More is refused at the start",
        .offset = offsetof(struct qy_cache_settings, index_bytes),
    },
    {
        .name = "cache.eviction",
        .type = QY_SETTING_CHOICE,
        .initial = "lfu",
        .choices = "lru|lfu|clock",
        .unit = "",
        .help = "which row leaves device memory first: least recently used, least often, or by a "
                "clock",
        .offset = offsetof(struct qy_cache_settings, eviction),
    },
    {
        .name = "cache.home_codec",
        .type = QY_SETTING_TEXT,
        .initial = "f16",
        .help =
            "form of full blocks' rows at the home of a discrete device, decoded where they "
            "are read: f16, 8bit, 4bit, k<bits>v<bits> of 16, 8 and 4, kivi or kvtuner; and for "
            "some layers, as in 8bit+0-1:f16+20:k8v4",
        .offset = offsetof(struct qy_cache_settings, home_codec),
    },
    {
        .name = "cache.home_group",
        .type = QY_SETTING_CHOICE,
        .initial = "32",
        .choices = "32|64",
        .unit = "elements",
        .help = "elements of a coded row that share a scale (f16) and a least value (f16)",
        .offset = offsetof(struct qy_cache_settings, home_group),
    },
    {
        .name = "plan.mode",
        .type = QY_SETTING_CHOICE,
        .initial = "pull",
        .choices = "auto|pull|push",
        .help =
            "rows that a discrete device lacks: pull copies them there, push sends the query to "
            "their home and merges the partial that comes back, auto chooses by measured costs. "
            "So with the queries of a chunk of prefill, where earlier blocks are on memory servers",
        .offset = offsetof(struct qy_cache_settings, plan_mode),
    },
    {
        .name = "step.overlap",
        .type = QY_SETTING_BOOL,
        .initial = "on",
        .help = "move rows while other work computes; off: wait for them at once, for measurements",
        .offset = offsetof(struct qy_cache_settings, overlap),
    },
    {
        .name = "step.micro_batches",
        .type = QY_SETTING_INT,
        .allow_auto = 1,
        .initial = "auto",
        .min = 1,
        .max = QY_MICRO_BATCHES,
        .help = "parts of a batch that take turns: rows of one are on their way while another "
                "computes; auto: 1 on a device that shares memory, else whichever "
                "number steps fastest",
        .offset = offsetof(struct qy_cache_settings, micro_batches),
    },
    {
        .name = "step.prefetch",
        .type = QY_SETTING_CHOICE,
        .initial = "off",
        .choices = "off|previous|speculate",
        .help =
            "rows pulled to a discrete device while the layer before computes: previous, what "
            "the last step chose and is gone; speculate, what the policy chooses for a guess of "
            "the next layer's queries. Costs bandwidth where it is wrong, never the answer",
        .offset = offsetof(struct qy_cache_settings, prefetch),
    },
    {
        .name = "step.prefetch_rows",
        .type = QY_SETTING_INT,
        .initial = "0",
        .min = 0,
        .max = 1 << 30,
        .unit = "rows",
        .help = "the most that step.prefetch pulls for one sequence and KV head of a layer; 0: all",
        .offset = offsetof(struct qy_cache_settings, prefetch_rows),
    },
    {
        .name = "cache.copy_timeout_ms",
        .type = QY_SETTING_INT,
        .initial = "10000",
        .min = 1,
        .max = 86400000,
        .unit = "ms",
        .help =
            "a copy between home and a discrete device that takes longer has failed; reads from "
            "memory servers may take at least 4 + net.replicas times net.timeout_ms",
        .offset = offsetof(struct qy_cache_settings, copy_timeout_ms),
    },
    {
        .name = "cache.verify_steps",
        .type = QY_SETTING_INT,
        .initial = "0",
        .min = 0,
        .max = 1 << 30,
        .unit = "steps",
        .help =
            "verify each full block's checksums once in so many steps, a few blocks a step; what "
            "was changed is computed again from its token ids; 0: never",
        .offset = offsetof(struct qy_cache_settings, verify_steps),
    },
};

const size_t qy_cache_setting_count =
    sizeof(qy_cache_setting_rows) / sizeof(qy_cache_setting_rows[0]);
