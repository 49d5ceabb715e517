/* SPDX-License-Identifier: Apache-2.0 */
/* See rig_servers.h. */
#include "tests/unit/offload/rig_servers.h"
#include "tests/unit/offload/tier_rig.h"

#include <string.h>

enum { DEPTH = 8, CALL = 4 << 10, ANSWER = 64 << 10 }; /* a slab's rows take two questions */

static const char *const addresses[RIG_SERVERS] = {"s0", "s1", "s2"};

void rig_servers_start(struct rig_servers *s, uint32_t i, uint64_t bytes)
{
    const struct qy_memory_params memory = {.rt = &s->rt,
                                            .bytes = bytes,
                                            .grace_ns = (uint64_t)1000 * RIG_SERVERS_TIMEOUT,
                                            .call_bytes = CALL,
                                            .answer_bytes = ANSWER,
                                            .max_sessions = 2};
    struct qy_node_params node = {.rt = &s->rt,
                                  .fabric = s->fabric,
                                  .listen = addresses[i],
                                  .timeout_ns = RIG_SERVERS_TIMEOUT,
                                  .max_peers = 4,
                                  .depth = DEPTH,
                                  .call_bytes = CALL,
                                  .answer_bytes = ANSWER,
                                  .n_answers = 2};

    assert_int_equal(qy_memory_open(&memory, &s->memories[i], NULL), QY_OK);
    node.service = qy_memory_service(s->memories[i]);
    assert_int_equal(qy_node_open(&node, &s->nodes[i], NULL), QY_OK);
}

static void stop(struct rig_servers *s, uint32_t i)
{
    qy_node_close(s->nodes[i]);
    qy_memory_close(s->memories[i]);
    s->nodes[i] = NULL;
    s->memories[i] = NULL;
}

void rig_servers_kill(struct rig_servers *s, uint32_t i)
{
    assert_int_equal(qy_fabric_happens(s->fabric, addresses[i], QY_FABRIC_KILL), QY_OK);
    stop(s, i);
}

void rig_servers_open(struct rig_servers *s, uint32_t n, uint32_t copies, uint64_t bytes)
{
    struct qy_fabric_params fabric = {.seed = 1, .latency_ns = 1000};

    memset(s, 0, sizeof(*s));
    s->rt.mem = qy_allocator_system();
    qy_cpu_detect(&s->rt.cpu);
    fabric.mem = &s->rt.mem;
    assert_int_equal(qy_fabric_open(&fabric, &s->fabric, NULL), QY_OK);
    for (uint32_t i = 0; i < n; i++) {
        rig_servers_start(s, i, bytes);
    }
    struct qy_node_params node = {.rt = &s->rt,
                                  .fabric = s->fabric,
                                  .device = "worker",
                                  .session = {1},
                                  .timeout_ns = RIG_SERVERS_TIMEOUT,
                                  .max_peers = RIG_SERVERS,
                                  .depth = DEPTH};
    assert_int_equal(qy_node_open(&node, &s->node, NULL), QY_OK);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(qy_peer_open(s->node, addresses[i], addresses[i], &s->peers[i], NULL),
                         QY_OK);
    }
    s->servers = (struct qy_cache_servers){.node = s->node,
                                           .peers = s->peers,
                                           .n = n,
                                           .copies = copies,
                                           .depth = DEPTH,
                                           .call_bytes = CALL,
                                           .answer_bytes = ANSWER,
                                           .timeout_ns = RIG_SERVERS_TIMEOUT};
}

void rig_servers_close(struct rig_servers *s)
{
    qy_node_close(s->node);
    for (uint32_t i = 0; i < RIG_SERVERS; i++) {
        stop(s, i);
    }
    qy_fabric_close(s->fabric);
}

void rig_servers_pass(struct rig_servers *s)
{
    const uint64_t end = qy_node_now(s->node) + RIG_SERVERS_TIMEOUT / 4;

    while (qy_node_now(s->node) < end) {
        if (qy_node_progress(s->node) == 0) {
            qy_node_wait(s->node, end);
        }
    }
}

struct rig_options rig_on_servers(const struct rig_options *options, const struct rig_servers *s)
{
    struct rig_options o = rig_on_disk(options);

    o.disk_bytes = 0;
    o.servers = &s->servers;
    if (o.plan != QY_PLAN_PULL) { /* partials of chunks take room, too */
        struct rig_options pushes = o;

        pushes.plan = QY_PLAN_PUSH; /* of which auto needs as much */
        o.device_bytes = tier_least_bytes(&pushes);
    }
    return o;
}
