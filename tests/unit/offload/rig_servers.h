/* SPDX-License-Identifier: Apache-2.0 */
/* Memory servers on a fabric, for caches of rig.h. */
#ifndef QY_TESTS_OFFLOAD_RIG_SERVERS_H
#define QY_TESTS_OFFLOAD_RIG_SERVERS_H

#include "tests/unit/offload/rig_disk.h"

#include "net/net.h"

enum { RIG_SERVERS = 3, RIG_SERVERS_TIMEOUT = 1000000 };

struct rig_servers {
    struct qy_runtime rt;
    struct qy_fabric *fabric;
    struct qy_memory *memories[RIG_SERVERS];
    struct qy_node *nodes[RIG_SERVERS];
    struct qy_node *node; /* the worker's */
    struct qy_peer *peers[RIG_SERVERS];
    struct qy_cache_servers servers; /* for the cache */
};
/* n servers "s0", ... of so many bytes each. */
void rig_servers_open(struct rig_servers *s, uint32_t n, uint32_t copies, uint64_t bytes);
void rig_servers_close(struct rig_servers *s);
/* The process of server i dies; another begins at its address. */
void rig_servers_kill(struct rig_servers *s, uint32_t i);
void rig_servers_start(struct rig_servers *s, uint32_t i, uint64_t bytes);
/* Time for what is under way: the fabric's stands still while nobody waits. */
void rig_servers_pass(struct rig_servers *s);
/* The options of a cache with the least device and host memory, whose blocks go to servers. */
struct rig_options rig_on_servers(const struct rig_options *options, const struct rig_servers *s);

#endif
