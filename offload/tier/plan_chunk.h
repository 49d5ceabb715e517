/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of a chunk of prefill, in one layer of one sequence: its earlier blocks that lie on memory servers
 * either come here and pass through the device (*pull*), or the chunk's queries go to the servers (*push*).
 * A pure function, as plan.h is for single tokens. With T tokens of H query heads:
 *
 *   pull   far_rows * row_bytes * byte_ns + T * H * (own_rows + far_rows) * pair_ns
 *   push   T * n_places * token_ns + the longer of
 *            T * H * own_rows * pair_ns                                            here
 *            n_runs * most_rows * far_row_ns + T * H * most_rows * far_pair_ns     the busiest server
 *
 * Bytes come in and go out at one place, here, so those of all servers are summed up; servers work side by
 * side, and beside the device. chosen: on the pull's side nothing is beside anything: rows are moved by the
 * threads that attend, where a CPU plays the device.
 */
#ifndef QYI_OFFLOAD_PLAN_CHUNK_H
#define QYI_OFFLOAD_PLAN_CHUNK_H

#include "offload/offload.h"

/* Where the time goes, in ns; measured at open. */
struct qyi_chunk_costs {
    double byte_ns;     /* of a row's bytes, from a server to the device              */
    double pair_ns;     /* of the device, per query head and row that it attends to   */
    double token_ns;    /* per token and server: its queries there, its partials back */
    double far_row_ns;  /* of a server, per row (of all KV heads) and question        */
    double far_pair_ns; /* of a server, per query head and row                        */
};

/* Rows are of all KV heads: tokens. */
struct qyi_chunk_work {
    uint32_t n_tokens, n_heads; /* n_heads: query heads                                     */
    uint32_t own_rows;          /* that are attended to here either way, the chunk's included */
    uint32_t far_rows;          /* that servers could attend to; 0: nothing to plan          */
    uint32_t most_rows;         /* of them, at the one that has most                         */
    uint32_t n_places;          /* servers that have some                                    */
    uint32_t n_runs;            /* questions to each; 0: none can hold it, it is pulled      */
    uint32_t row_bytes;         /* as they cross the network                                 */
};

struct qyi_chunk_choice {
    int push;
    double pull_ns, push_ns; /* expected */
};

/* [noalloc] pure */
struct qyi_chunk_choice qyi_plan_chunk(enum qy_plan_mode mode, const struct qyi_chunk_costs *costs,
                                       const struct qyi_chunk_work *work);

#endif
