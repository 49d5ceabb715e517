/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of jobs, and of the network between their processes and memory servers. */
#include "serve/serve.h"

#define AT(member) offsetof(struct qyi_net_settings, member)

const struct qy_setting qyi_net_setting_rows[] = {
    {.name = "job.workers",
     .type = QY_SETTING_INT,
     .initial = "1",
     .min = 1,
     .max = 64,
     .unit = "ranks",
     .help = "ranks of a job that compute, the first ones; the others keep their blocks. Several "
             "answer the "
             "prompts of generate --prompts",
     .offset = AT(workers)},
    {.name = "net.listen",
     .type = QY_SETTING_TEXT,
     .initial = "",
     .help = "host:port where a memory server listens; port 0: any that is free; empty: a memory "
             "rank of a job chooses",
     .offset = AT(listen)},
    {.name = "net.device",
     .type = QY_SETTING_TEXT,
     .initial = "",
     .help = "network device to use and to listen on, as eth0; empty: any",
     .offset = AT(device)},
    {.name = "net.bytes",
     .type = QY_SETTING_SIZE,
     .initial = "0",
     .min = 0,
     .max = 1e18,
     .unit = "bytes",
     .help = "memory that quarry memory, or a memory rank of a job, gives to the blocks of others",
     .offset = AT(bytes)},
    {.name = "net.memory",
     .type = QY_SETTING_TEXT,
     .initial = "",
     .help =
         "memory servers that keep full blocks of the KV cache: host:port,host:port; empty: none",
     .offset = AT(memory)},
    {.name = "net.replicas",
     .type = QY_SETTING_INT,
     .initial = "1",
     .min = 1,
     .max = 4,
     .unit = "copies",
     .help = "memory servers that each block lies on",
     .offset = AT(replicas)},
    {.name = "net.key_file",
     .type = QY_SETTING_TEXT,
     .initial = "",
     .help = "file with the key that both ends of a connection must know; quarry memory --new-key "
             "writes one",
     .offset = AT(key_file)},
    {.name = "net.timeout_ms",
     .type = QY_SETTING_INT,
     .initial = "1000",
     .min = 10,
     .max = 600000,
     .unit = "milliseconds",
     .help = "what is not answered in this time counts as lost",
     .offset = AT(timeout_ms)},
    {.name = "net.silent_ms",
     .type = QY_SETTING_INT,
     .initial = "300000", /* chosen: longer than a program does something else between two steps */
     .min = 1000,
     .max = 86400000,
     .unit = "milliseconds",
     .help =
         "a memory server frees the blocks of a worker that has said nothing for so long, though "
         "its connection stands",
     .offset = AT(silent_ms)},
    {.name = "net.spin_us",
     .type = QY_SETTING_INT,
     .initial = "50",
     .min = 0,
     .max = 1000000,
     .unit = "microseconds",
     .help = "how long a process that waits for messages spins before it sleeps; 0 sleeps at once",
     .offset = AT(spin_us)},
    {.name = "net.drain_ms",
     .type = QY_SETTING_INT,
     .initial =
         "30000", /* chosen: some ten blocks a second of a slow worker; below what stops services */
     .min = 0,
     .max = 3600000,
     .unit = "milliseconds",
     .help =
         "how long a memory server that is told to end lets workers take their blocks elsewhere",
     .offset = AT(drain_ms)},
};
const size_t qyi_net_setting_count = sizeof qyi_net_setting_rows / sizeof qyi_net_setting_rows[0];
