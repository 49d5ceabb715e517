/* SPDX-License-Identifier: Apache-2.0 */
/* See servers_rig.h. */
#include "tests/unit/offload/servers_rig.h"

#include <stdlib.h>
#include <string.h>

const char *servers_address(uint32_t i)
{
    static const char *const addresses[SERVERS] = {"s0", "s1", "s2"};

    return addresses[i];
}

void servers_open_one(struct servers_bed *bed, uint32_t i, uint32_t n_blocks)
{
    struct qy_node_params params = {.rt = &bed->rigs[i].rt,
                                    .fabric = bed->fabric,
                                    .listen = servers_address(i),
                                    .timeout_ns = TIMEOUT,
                                    .max_peers = 4,
                                    .depth = 8,
                                    .call_bytes = MR_CALL,
                                    .answer_bytes = MR_ANSWER,
                                    .n_answers = 2};

    memory_rig_open(&bed->rigs[i], &(struct memory_options){.n_blocks = n_blocks,
                                                            .grace_ns = (uint64_t)1000 * TIMEOUT});
    params.service = qy_memory_service(bed->rigs[i].memory);
    memset(params.key, 5, sizeof(params.key));
    assert_int_equal(qy_node_open(&params, &bed->nodes[i], NULL), QY_OK);
}

void servers_close_one(struct servers_bed *bed, uint32_t i)
{
    qy_node_close(bed->nodes[i]);
    memory_rig_close(&bed->rigs[i]);
}

static enum qy_status open_store(struct servers_bed *bed, uint32_t copies, struct qy_error *err)
{
    const struct qyi_servers_params params = {.rt = &bed->rigs[0].rt,
                                              .node = bed->node,
                                              .peers = bed->peers,
                                              .n = SERVERS,
                                              .copies = copies,
                                              .depth = 8,
                                              .call_bytes = 4096,
                                              .answer_bytes = 16384,
                                              .layout = &bed->worker.layout,
                                              .group = MR_GROUP,
                                              .scale = memory_scale,
                                              .max_sequences = MR_SEQUENCES,
                                              .max_blocks = MR_BLOCKS,
                                              .timeout_ns = 10 * TIMEOUT};
    const enum qy_status st = qyi_servers_open(&params, &bed->store, err);

    if (st == QY_OK) {
        assert_int_equal(qyi_servers_reserve(bed->store, SLOTS, err), QY_OK);
    }
    return st;
}

void servers_bed_open(struct servers_bed *bed, uint32_t n_blocks, uint32_t copies,
                      const struct qy_fabric_params *fabric)
{
    static const struct memory_form form = {.type = QY_ROW_F16};
    struct qy_fabric_params params = *fabric;
    static struct qy_allocator mem;
    struct qy_node_params node = {.fabric = NULL,
                                  .device = "worker",
                                  .timeout_ns = TIMEOUT,
                                  .max_peers = SERVERS,
                                  .depth = 8};

    memset(bed, 0, sizeof(*bed));
    mem = qy_allocator_system();
    params.mem = &mem;
    assert_int_equal(qy_fabric_open(&params, &bed->fabric, NULL), QY_OK);
    for (uint32_t i = 0; i < SERVERS; i++) {
        servers_open_one(bed, i, n_blocks);
    }
    node.rt = &bed->rigs[0].rt;
    node.fabric = bed->fabric;
    memset(node.key, 5, sizeof(node.key));
    memset(node.session, 9, sizeof(node.session));
    assert_int_equal(qy_node_open(&node, &bed->node, NULL), QY_OK);
    for (uint32_t i = 0; i < SERVERS; i++) {
        assert_int_equal(
            qy_peer_open(bed->node, servers_address(i), servers_address(i), &bed->peers[i], NULL),
            QY_OK);
    }
    memory_worker_init(&bed->worker, &bed->rigs[0], 9, &form, NULL, NULL);
    bed->space = malloc(bed->worker.layout.block_bytes);
    struct qy_error err = {0};
    const enum qy_status st = open_store(bed, copies, &err);
    if (st != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void servers_bed_close(struct servers_bed *bed)
{
    qyi_store_close(bed->store);
    qy_node_close(bed->node);
    memory_worker_free(&bed->worker);
    free(bed->space);
    for (uint32_t i = 0; i < SERVERS; i++) {
        servers_close_one(bed, i);
    }
    qy_fabric_close(bed->fabric);
}

const uint8_t *servers_block(const struct servers_bed *bed, uint32_t slot)
{
    return bed->worker.blocks[slot / MR_BLOCKS][slot % MR_BLOCKS];
}

struct qyi_store_request servers_write(struct servers_bed *bed, uint32_t slot)
{
    const uint32_t sequence = slot / MR_BLOCKS;
    const uint32_t block = slot % MR_BLOCKS;

    memory_make(&bed->worker, sequence, block);
    return (struct qyi_store_request){
        .op = QYI_STORE_WRITE,
        .slot = slot,
        .data = bed->worker.blocks[sequence][block],
        .bytes = bed->worker.layout.block_bytes,
        .name = {.serial = bed->worker.serials[sequence],
                 .generation = bed->worker.generations[sequence][block],
                 .sequence = sequence,
                 .block = block}};
}

enum qy_status servers_run(struct servers_bed *bed, struct qyi_store_request *requests, uint32_t n,
                           int *error)
{
    struct qyi_store_batch batch = {.requests = requests, .n = n};

    assert_int_equal(qyi_store_submit(bed->store, &batch), QY_OK);
    const enum qy_status st = qyi_store_wait(bed->store, &batch, (uint64_t)100 * TIMEOUT);
    *error = batch.failed ? requests[batch.first_bad].error : 0;
    return st;
}

void servers_fill(struct servers_bed *bed, uint32_t n)
{
    struct qyi_store_request requests[SLOTS];
    int error;

    for (uint32_t i = 0; i < n; i++) {
        requests[i] = servers_write(bed, i);
    }
    assert_int_equal(servers_run(bed, requests, n, &error), QY_OK);
}

int servers_read(struct servers_bed *bed, uint32_t slot)
{
    const size_t bytes = bed->worker.layout.block_bytes;
    struct qyi_store_request request = {
        .op = QYI_STORE_READ, .slot = slot, .data = bed->space, .bytes = bytes};
    int error;

    memset(bed->space, 0xee, bytes);
    if (servers_run(bed, &request, 1, &error) == QY_OK) {
        assert_memory_equal(bed->space, servers_block(bed, slot), bytes);
    }
    return error;
}

void servers_read_ranges(struct servers_bed *bed, uint32_t n_slots)
{
    enum { RANGES = 300, BYTES = 256 };
    static struct qyi_store_request requests[RANGES];
    uint8_t *to = malloc((size_t)RANGES * BYTES);
    int error;

    for (uint32_t i = 0; i < RANGES; i++) {
        const uint64_t at =
            memory_random(&bed->worker) % (bed->worker.layout.block_bytes / BYTES) * BYTES;

        requests[i] = (struct qyi_store_request){.op = QYI_STORE_READ,
                                                 .slot = i % n_slots,
                                                 .at = at,
                                                 .data = to + (size_t)i * BYTES,
                                                 .bytes = BYTES};
    }
    assert_int_equal(servers_run(bed, requests, RANGES, &error), QY_OK);
    for (uint32_t i = 0; i < RANGES; i++) {
        const uint32_t slot = i % n_slots;

        assert_memory_equal(to + (size_t)i * BYTES, servers_block(bed, slot) + requests[i].at,
                            BYTES);
    }
    free(to);
}

struct qyi_store_request servers_rows(uint32_t slot, uint32_t layer, uint32_t head,
                                      const uint32_t *ids, uint32_t n, uint8_t *to)
{
    return (struct qyi_store_request){.op = QYI_STORE_ROWS,
                                      .slot = slot,
                                      .data = to,
                                      .bytes = (size_t)n * SERVERS_ROW,
                                      .list = {.ids = ids, .n = n, .layer = layer, .head = head}};
}

void servers_expect_rows(const struct servers_bed *bed, const struct qyi_store_request *r)
{
    const uint8_t *slab = servers_block(bed, r->slot) +
                          qyi_layout_home_at(&bed->worker.layout, r->list.layer, r->list.head);

    for (uint32_t i = 0; i < r->list.n; i++) {
        assert_memory_equal((const uint8_t *)r->data + (size_t)i * SERVERS_ROW,
                            slab + (size_t)(r->list.ids[i] % MR_TOKENS) * SERVERS_ROW, SERVERS_ROW);
    }
}

void servers_read_rows(struct servers_bed *bed, uint32_t n_slots)
{
    enum { LISTS = 200, MOST = 12 };
    static struct qyi_store_request requests[LISTS];
    static uint32_t ids[LISTS][MOST];
    uint8_t *to = malloc((size_t)LISTS * MOST * SERVERS_ROW);
    uint8_t *at = to;
    int error;

    assert_non_null(to);
    for (uint32_t i = 0; i < LISTS; i++) {
        const uint32_t slot = i * n_slots / LISTS; /* lists that follow each other go together */
        const uint32_t n = 1 + (uint32_t)(memory_random(&bed->worker) % MOST);

        for (uint32_t k = 0; k < n; k++) {
            ids[i][k] =
                slot % MR_BLOCKS * MR_TOKENS + (uint32_t)(memory_random(&bed->worker) % MR_TOKENS);
        }
        requests[i] =
            servers_rows(slot, i * 3 / LISTS % MR_LAYERS, i / 5 % MR_KV_HEADS, ids[i], n, at);
        at += requests[i].bytes;
    }
    assert_int_equal(servers_run(bed, requests, LISTS, &error), QY_OK);
    for (uint32_t i = 0; i < LISTS; i++) {
        servers_expect_rows(bed, &requests[i]);
    }
    free(to);
}

uint64_t servers_held(const struct servers_bed *bed, uint32_t i)
{
    struct qy_memory_stats stats;

    qy_memory_stats(bed->rigs[i].memory, &stats);
    return stats.blocks_total - stats.blocks_free;
}

void servers_pass(struct servers_bed *bed, uint64_t ns)
{
    const uint64_t end = qy_node_now(bed->node) + ns;

    while (qy_node_now(bed->node) < end) {
        qyi_store_poll(bed->store);
        qy_node_wait(bed->node, end);
        for (uint32_t i = 0; i < SERVERS; i++) {
            if (bed->nodes[i] != NULL) {
                (void)qy_memory_tend(bed->rigs[i].memory, qy_node_now(bed->node));
            }
        }
    }
}
