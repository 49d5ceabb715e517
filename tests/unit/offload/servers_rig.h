/* SPDX-License-Identifier: Apache-2.0 */
/* A store on three memory servers over a fabric, and a worker that makes its blocks. */
#ifndef QY_TESTS_OFFLOAD_SERVERS_RIG_H
#define QY_TESTS_OFFLOAD_SERVERS_RIG_H

#include "tests/unit/offload/memory_rig.h"

#include "offload/servers/servers.h"

enum { SERVERS = 3, TIMEOUT = 1000000, SLOTS = 32, SERVERS_ROW = 4 * MR_D };

struct servers_bed {
    struct qy_fabric *fabric;
    struct memory_rig rigs[SERVERS];
    struct qy_node *nodes[SERVERS];
    struct qy_node *node; /* the worker's */
    struct qy_peer *peers[SERVERS];
    struct memory_worker worker; /* makes blocks; asks nothing itself */
    struct qyi_store *store;
    uint8_t *space; /* [block_bytes] */
};

/* Servers "s0" .. of n_blocks each. */
void servers_bed_open(struct servers_bed *bed, uint32_t n_blocks, uint32_t copies,
                      const struct qy_fabric_params *fabric);
void servers_bed_close(struct servers_bed *bed);
/* "s0", ... */
const char *servers_address(uint32_t i);
/* After its death; another one at the same address. */
void servers_close_one(struct servers_bed *bed, uint32_t i);
void servers_open_one(struct servers_bed *bed, uint32_t i, uint32_t n_blocks);

/* Slot i holds block i % MR_BLOCKS of sequence i / MR_BLOCKS: as it was made last. */
const uint8_t *servers_block(const struct servers_bed *bed, uint32_t slot);
/* Makes a block for the slot. */
struct qyi_store_request servers_write(struct servers_bed *bed, uint32_t slot);
enum qy_status servers_run(struct servers_bed *bed, struct qyi_store_request *requests, uint32_t n,
                           int *error);
/* New blocks in slots 0 .. n - 1; all must be taken. */
void servers_fill(struct servers_bed *bed, uint32_t n);
/* Reads the whole block, and compares it; 0, or the error. */
int servers_read(struct servers_bed *bed, uint32_t slot);
/* Many short ranges of slots 0 .. n - 1 in one batch, compared. */
void servers_read_ranges(struct servers_bed *bed, uint32_t n_slots);
/* A request for n rows of a slot's block, and are they what they should be? ids: tokens of the sequence. */
struct qyi_store_request servers_rows(uint32_t slot, uint32_t layer, uint32_t head,
                                      const uint32_t *ids, uint32_t n, uint8_t *to);
void servers_expect_rows(const struct servers_bed *bed, const struct qyi_store_request *request);
/* Many short lists of rows of slots 0 .. n - 1 in one batch, compared. */
void servers_read_rows(struct servers_bed *bed, uint32_t n_slots);
/* Blocks that server i has. */
uint64_t servers_held(const struct servers_bed *bed, uint32_t i);
/* ns on the fabric's clock, in which the store does its work. */
void servers_pass(struct servers_bed *bed, uint64_t ns);

#endif
