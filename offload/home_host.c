/* SPDX-License-Identifier: Apache-2.0 */
/* The host home: a pool of blocks in this process's memory. It knows no sequence. */
#include "offload/block.h"

enum { MAX_THREADS = 256 };

/* The node that all threads of the team share; -1 when they span several (then pages go where
 * they are first touched) or nothing is known. */
static int home_node(const struct qy_runtime *rt)
{
    struct qy_place places[MAX_THREADS];
    const uint32_t n = qy_team_size(rt->team);

    if (!rt->topology || n == 0 || n > MAX_THREADS) {
        return -1;
    }
    qy_topology_place(rt->topology, n, QY_BIND_NUMA, places);
    for (uint32_t i = 1; i < n; i++) {
        if (places[i].node != places[0].node) {
            return -1;
        }
    }
    return places[0].node;
}

enum qy_status qyi_home_open(const struct qy_runtime *rt, const struct qyi_layout *layout,
                             uint32_t n_blocks, struct qyi_home *home, struct qy_error *err)
{
    const struct qy_pool_params params = {.block_bytes = layout->block_bytes,
                                          .n_blocks = n_blocks,
                                          .node = home_node(rt),
                                          .topology = rt->topology};

    *home = (struct qyi_home){.layout = *layout, .mem = rt->mem};
    home->generations = qy_alloc_zero(&rt->mem, n_blocks * sizeof(*home->generations));
    if (!home->generations) {
        return qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory for the list of %u blocks",
                            n_blocks);
    }
    const enum qy_status st = qy_pool_open(&rt->mem, &params, &home->pool, err);
    if (st != QY_OK) {
        qy_free(&rt->mem, home->generations);
        *home = (struct qyi_home){0};
    }
    return st;
}

void qyi_home_close(struct qyi_home *home)
{
    if (home->pool) {
        qy_pool_close(home->pool);
        qy_free(&home->mem, home->generations);
        *home = (struct qyi_home){0};
    }
}

enum qy_status qyi_home_get(struct qyi_home *home, uint32_t n, uint32_t *ids, uint8_t **addresses)
{
    if (n > qy_pool_free_count(home->pool)) {
        return QY_AGAIN;
    }
    for (uint32_t i = 0; i < n; i++) {
        const enum qy_status st = qy_pool_get(home->pool, &ids[i]);

        if (st != QY_OK) { /* the count above was wrong: leave nothing taken */
            while (i > 0) {
                qy_pool_put(home->pool, ids[--i], 0);
            }
            return st;
        }
        addresses[i] = qy_pool_at(home->pool, ids[i]);
    }
    return QY_OK;
}

void qyi_home_put(struct qyi_home *home, uint32_t id, int clean)
{
    home->generations[id]++;
    qy_pool_put(home->pool, id, !clean);
}
