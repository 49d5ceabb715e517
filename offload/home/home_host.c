/* SPDX-License-Identifier: Apache-2.0 */
/* The host home: a pool of blocks in this process's memory, and the blocks' ids. It knows no sequence. */
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

/* Names beyond those of the pool's places. Returns non-zero when there is no memory. */
static int open_ids(struct qyi_home *home, uint32_t n_blocks)
{
    home->generations = qy_alloc_zero(&home->mem, home->n_ids * sizeof(*home->generations));
    if (home->n_ids > n_blocks) {
        home->frames = qy_alloc_zero(&home->mem, home->n_ids * sizeof(*home->frames));
        home->free_ids = qy_alloc_zero(&home->mem, home->n_ids * sizeof(*home->free_ids));
    }
    for (uint32_t i = 0; home->frames && home->free_ids && i < home->n_ids; i++) {
        home->frames[i] = QYI_NO_FRAME;
        home->free_ids[home->n_free_ids++] = home->n_ids - 1 - i;
    }
    return !home->generations || (home->n_ids > n_blocks && (!home->frames || !home->free_ids));
}

static void free_ids(struct qyi_home *home)
{
    qy_free(&home->mem, home->free_ids);
    qy_free(&home->mem, home->frames);
    qy_free(&home->mem, home->generations);
}

enum qy_status qyi_home_open(const struct qy_runtime *rt, const struct qyi_layout *layout,
                             uint32_t n_blocks, uint32_t n_ids, struct qyi_home *home,
                             struct qy_error *err)
{
    const struct qy_pool_params params = {.block_bytes = layout->block_bytes,
                                          .n_blocks = n_blocks,
                                          .node = home_node(rt),
                                          .topology = rt->topology};
    enum qy_status st = QY_OK;

    *home = (struct qyi_home){.layout = *layout, .mem = rt->mem, .n_ids = n_ids};
    if (open_ids(home, n_blocks)) {
        st = qy_error_set(err, QY_ERR_NOMEM, "cache: out of memory for the list of %u blocks",
                          n_ids);
    }
    if (st == QY_OK) {
        st = qy_pool_open(&rt->mem, &params, &home->pool, err);
    }
    if (st != QY_OK) {
        free_ids(home);
        *home = (struct qyi_home){0};
    }
    return st;
}

void qyi_home_close(struct qyi_home *home)
{
    if (home->pool) {
        qy_pool_close(home->pool);
        free_ids(home);
        *home = (struct qyi_home){0};
    }
}

uint32_t qyi_home_free_ids(const struct qyi_home *home)
{
    return home->frames ? home->n_free_ids : qy_pool_free_count(home->pool);
}

enum qy_status qyi_home_get(struct qyi_home *home, uint32_t n, uint32_t *ids, uint8_t **addresses)
{
    if (n > qy_pool_free_count(home->pool) || n > qyi_home_free_ids(home)) {
        return QY_AGAIN;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t frame;
        const enum qy_status st = qy_pool_get(home->pool, &frame);

        if (st != QY_OK) { /* the count above was wrong: leave nothing taken */
            while (i > 0) {
                home->generations[ids[--i]]--;
                qyi_home_put(home, ids[i], 1);
            }
            return st;
        }
        ids[i] = frame;
        if (home->frames) {
            ids[i] = home->free_ids[--home->n_free_ids];
            home->frames[ids[i]] = frame;
        }
        addresses[i] = qy_pool_at(home->pool, frame);
    }
    return QY_OK;
}

void qyi_home_put(struct qyi_home *home, uint32_t id, int clean)
{
    home->generations[id]++;
    if (!home->frames) {
        qy_pool_put(home->pool, id, !clean);
        return;
    }
    if (home->frames[id] != QYI_NO_FRAME) {
        qy_pool_put(home->pool, home->frames[id], !clean);
    }
    home->frames[id] = QYI_NO_FRAME;
    home->free_ids[home->n_free_ids++] = id;
}

enum qy_status qyi_home_take_frame(struct qyi_home *home, uint32_t id, uint8_t **address)
{
    uint32_t frame;
    const enum qy_status st = qy_pool_get(home->pool, &frame);

    if (st == QY_OK) {
        home->frames[id] = frame;
        *address = qy_pool_at(home->pool, frame);
    }
    return st;
}

void qyi_home_give_frame(struct qyi_home *home, uint32_t id)
{
    qy_pool_put(home->pool, home->frames[id], 1);
    home->frames[id] = QYI_NO_FRAME;
}
