/* SPDX-License-Identifier: Apache-2.0 */
/* See sizing.h. */
#include "offload/sizing.h"

enum { SIZE_TEXT = 32 };

/* host_bytes given: as many blocks as fit, and one whole sequence at least. */
static enum qy_status size_given(const struct qyi_layout *layout, const struct qyi_sizing *want,
                                 uint64_t most, uint64_t *n, struct qy_error *err)
{
    const uint64_t one = qyi_layout_blocks(layout, want->max_tokens);
    char need[SIZE_TEXT];
    char given[SIZE_TEXT];
    char usable[SIZE_TEXT];

    *n = want->host_bytes / layout->block_bytes;
    *n = *n < most ? *n : most;
    qy_format_size(want->host_bytes, given, sizeof(given));
    if (want->disk_blocks > 0 && *n < want->least_blocks && *n < most) {
        return qy_error_set(
            err, QY_ERR_NOMEM,
            "cache.host_bytes '%s': with blocks on a disk or on memory servers the sinks "
            "and windows of %u sequences and of a step need %s; raise it",
            given, want->max_sequences,
            qy_format_size(want->least_blocks * layout->block_bytes, need, sizeof(need)));
    }
    if (*n + want->disk_blocks < one) {
        return qy_error_set(
            err, QY_ERR_NOMEM,
            "cache.host_bytes '%s': one sequence of %u tokens needs %s of KV; "
            "raise cache.host_bytes, cache.disk_bytes or the memory servers' bytes, or "
            "lower --ctx",
            given, want->max_tokens, qy_format_size(one * layout->block_bytes, need, sizeof(need)));
    }
    if (*n * layout->block_bytes + want->fixed_bytes > want->usable_bytes) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache.host_bytes '%s': %s of memory is usable, %s of it for other "
                            "needs of the cache; lower cache.host_bytes or free memory",
                            given, qy_format_size(want->usable_bytes, usable, sizeof(usable)),
                            qy_format_size(want->fixed_bytes, need, sizeof(need)));
    }
    return QY_OK;
}

/* host_bytes not given: what the request needs. */
static enum qy_status size_needed(const struct qyi_layout *layout, const struct qyi_sizing *want,
                                  uint64_t most, uint64_t *n, struct qy_error *err)
{
    uint64_t tokens = want->total_tokens;
    char need[SIZE_TEXT];
    char usable[SIZE_TEXT];

    *n = most;
    if (tokens > 0 && tokens < (uint64_t)want->max_sequences * want->max_tokens) {
        const uint64_t blocks = qyi_layout_blocks(layout, tokens) + want->max_sequences;

        *n = blocks < most ? blocks : most;
    } else {
        tokens = (uint64_t)want->max_sequences * want->max_tokens;
    }
    if (*n > (UINT64_MAX >> 1) / layout->block_bytes ||
        *n * layout->block_bytes + want->fixed_bytes > want->usable_bytes) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "cache.host_bytes: the request needs %s of KV for %llu tokens; %s of "
                            "memory is usable; lower --ctx or the number of sequences, or give a "
                            "smaller cache.host_bytes",
                            qy_format_size(*n * layout->block_bytes, need, sizeof(need)),
                            (unsigned long long)tokens,
                            qy_format_size(want->usable_bytes, usable, sizeof(usable)));
    }
    return QY_OK;
}

enum qy_status qyi_size_pool(const struct qyi_layout *layout, const struct qyi_sizing *want,
                             uint32_t *n_blocks, struct qy_error *err)
{
    const uint64_t most =
        qyi_layout_blocks(layout, want->max_tokens) * (uint64_t)want->max_sequences;
    uint64_t n = 0;
    enum qy_status st;

    if (want->host_bytes > 0) {
        st = size_given(layout, want, most, &n, err);
    } else {
        st = size_needed(layout, want, most, &n, err);
    }
    if (st != QY_OK) {
        return st;
    }
    if (n >= UINT32_MAX) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "cache: %llu blocks; at most %u; raise cache.block_tokens",
                            (unsigned long long)n, UINT32_MAX - 1);
    }
    *n_blocks = (uint32_t)n;
    return QY_OK;
}

enum qy_status qyi_size_index(uint64_t given, uint64_t index_bytes, uint64_t map_bytes,
                              const char *policy, struct qy_error *err)
{
    char text[3][SIZE_TEXT];

    if (given == 0 || index_bytes + map_bytes <= given) {
        return QY_OK;
    }
    return qy_error_set(
        err, QY_ERR_NOMEM,
        "cache.index_bytes '%s': the index of policy '%.60s' takes %s and the map of rows on the "
        "device %s; raise it, lower --ctx or the number of sequences, or choose a policy with a "
        "smaller index",
        qy_format_size(given, text[0], SIZE_TEXT), policy,
        qy_format_size(index_bytes, text[1], SIZE_TEXT),
        qy_format_size(map_bytes, text[2], SIZE_TEXT));
}
