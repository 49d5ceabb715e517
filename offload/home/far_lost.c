/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that nobody holds any more, and room that nobody has: what the caller and people are told. See
 * home_far.h. */
#include "offload/cache.h"

#include <errno.h>
#include <string.h>

const char *qyi_home_far_why(struct qy_cache *cache, const struct qy_sequence *seq, uint32_t block,
                             int error)
{
    if (error != ENODATA || !cache->far.store->ops->lost) {
        return strerror(error);
    }
    cache->far.nobody.seq = seq;
    cache->far.nobody.block = block;
    return "nobody holds it any more; compute the sequence again from its token ids";
}

int qy_sequence_lost(const struct qy_sequence *seq, struct qy_lost *lost)
{
    const struct qyi_home_far *d = &seq->cache->far;
    struct qy_lost found = {0};

    for (uint32_t b = seq->n_down > 0 ? seq->n_blocks : 0; b-- > 0;) {
        const int failed = d->nobody.seq == seq && d->nobody.block == b;
        uint64_t servers;

        if (seq->homes[b] ||
            (!qyi_store_lost(d->store, d->slots[seq->blocks[b]] - 1, &servers) && !failed)) {
            continue;
        }
        found.first_token = b << seq->cache->layout.shift;
        found.n_blocks++;
        found.servers |= servers;
    }
    if (found.n_blocks > 0) {
        *lost = found;
    }
    return found.n_blocks > 0;
}

enum qy_status qyi_home_far_full(const struct qy_cache *cache, uint64_t need, struct qy_error *err)
{
    const struct qyi_home_far *d = &cache->far;
    const uint32_t n_free = qy_pool_free_count(cache->home.pool);
    const uint32_t n_frames = qy_pool_total(cache->home.pool);
    uint64_t room;

    if (!qyi_home_far_is_remote(&cache->params)) {
        return qy_error_set(err, QY_AGAIN,
                            "step: %llu more blocks are needed; %u of %u are free in host memory, "
                            "%u of %u on the disk (%llu writes failed); close or truncate a "
                            "sequence, or raise cache.host_bytes or cache.disk_bytes",
                            (unsigned long long)need, n_free, n_frames, d->n_free, d->n_slots,
                            (unsigned long long)d->write_failures);
    }
    const uint32_t n_servers = qyi_servers_present(d->store, &room);
    return qy_error_set(
        err, QY_AGAIN,
        "step: %llu more blocks of %zu bytes are needed; %u of %u are free in host memory, and %u "
        "of "
        "%u memory servers are there, with room for %llu (%llu writes failed); raise "
        "cache.host_bytes, start servers again or with more bytes, or use less context",
        (unsigned long long)need, cache->layout.block_bytes, n_free, n_frames, n_servers,
        cache->params.servers->n, (unsigned long long)room, (unsigned long long)d->write_failures);
}
