/* SPDX-License-Identifier: Apache-2.0 */
/* CHUNK, as it comes from outside: all that it names is within the bounds. See remote_wire.h. */
#include "offload/memory/remote_wire.h"

#include <math.h>
#include <string.h>

static const char *check_ask(const struct qyi_remote_bounds *bounds,
                             const struct qyi_remote_chunk *ask)
{
    if (ask->sequence >= bounds->max_sequences) {
        return "a sequence outside the table";
    }
    if (ask->serial == 0 || ask->zero != 0) {
        return "a serial of 0, or members that are not 0";
    }
    if (ask->layer >= bounds->n_layers) {
        return "a layer that there is not";
    }
    return isfinite(ask->scale) ? NULL : "a scale that is not finite";
}

const char *qyi_remote_chunk_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                   size_t head_bytes, const void *payload, size_t payload_bytes,
                                   struct qyi_remote_chunk_parts *chunk)
{
    const uint64_t floats = (uint64_t)bounds->n_kv_heads * bounds->query_floats;
    struct qyi_remote_chunk ask;

    if (head_bytes != sizeof(ask)) {
        return "a head of another size";
    }
    memcpy(&ask, head, sizeof(ask));
    if (ask.n_queries == 0 || ask.n_blocks == 0 ||
        ask.n_queries > payload_bytes / (floats * sizeof(float)) ||
        payload_bytes != qyi_remote_chunk_bytes(ask.n_queries, ask.n_blocks, (uint32_t)floats)) {
        return "a payload of another size than its head says";
    }
    if (!qyi_remote_aligned(payload)) {
        return "a payload that the node did not align";
    }
    const char *wrong = check_ask(bounds, &ask);
    if (wrong) {
        return wrong;
    }
    const float *q = payload;
    const uint32_t *blocks = (const uint32_t *)(const void *)(q + ask.n_queries * floats);
    for (uint32_t i = 0; i < ask.n_blocks; i++) {
        if (blocks[i] >= bounds->max_blocks) {
            return "a block outside the table";
        }
    }
    *chunk = (struct qyi_remote_chunk_parts){.ask = ask, .q = q, .blocks = blocks};
    return NULL;
}
