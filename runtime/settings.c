/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of the runtime itself. Rows only: the config reads and checks them. */
#include "runtime/runtime.h"

const struct qy_setting qy_runtime_setting_rows[] = {
    {.name = "runtime.threads",
     .type = QY_SETTING_INT,
     .initial = "0",
     .min = 0,
     .max = 256,
     .unit = "threads",
     .help = "threads of the team that runs the kernels; 0 takes one per core that this process "
             "may use",
     .offset = offsetof(struct qy_runtime_settings, threads)},
    {.name = "runtime.bind",
     .type = QY_SETTING_CHOICE,
     .initial = "core",
     .choices = "core|numa|none", /* in the order of enum qy_bind */
     .unit = "",
     .help = "what each thread is bound to: a core of its own, a NUMA node, or nothing",
     .offset = offsetof(struct qy_runtime_settings, bind)},
    {.name = "runtime.spin_us",
     .type = QY_SETTING_INT,
     .initial = "50",
     .min = 0,
     .max = 1000000,
     .unit = "microseconds",
     .help = "how long a thread without work spins before it sleeps; 0 sleeps at once",
     .offset = offsetof(struct qy_runtime_settings, spin_us)},
    {.name = "runtime.cpu",
     .type = QY_SETTING_CHOICE,
     .initial = "auto",
     .choices = "auto|avx512|avx2|plain",
     .unit = "",
     .env = "QY_CPU",
     .help = "kernel set; auto takes the best that this machine has",
     .offset = offsetof(struct qy_runtime_settings, cpu)},
    {.name = "runtime.log",
     .type = QY_SETTING_TEXT,
     .initial = "warn",
     .unit = "",
     .env = "QY_LOG",
     .help = "log level (error, warn, info, debug, trace), and module=level after commas",
     .offset = offsetof(struct qy_runtime_settings, log)},
};

const size_t qy_runtime_setting_count =
    sizeof(qy_runtime_setting_rows) / sizeof(qy_runtime_setting_rows[0]);
