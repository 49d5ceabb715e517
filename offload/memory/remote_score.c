/* SPDX-License-Identifier: Apache-2.0 */
/* BOOK and SCORE: what a session scores by, and what it scores. See remote_wire.h. */
#include "offload/memory/remote_wire.h"

#include <math.h>
#include <string.h>

/* ---- BOOK ------------------------------------------------------------------------------------- */

uint64_t qyi_remote_scorer_hash(const struct qyi_remote_scorer *scorer, const float *inv_freq,
                                uint64_t codebook_hash)
{
    const uint64_t hash = qy_checksum(scorer, sizeof(*scorer), codebook_hash);

    return qy_checksum(inv_freq, scorer->rope_dim / 2 * sizeof(*inv_freq), hash);
}

const char *qyi_remote_book_parse(const void *head, size_t head_bytes, size_t payload_bytes,
                                  struct qyi_remote_book *book)
{
    struct qyi_remote_book b;

    if (head_bytes != sizeof(b)) {
        return "a head of another size";
    }
    memcpy(&b, head, sizeof(b));
    if (b.bytes < sizeof(struct qyi_remote_scorer)) {
        return "an image of no size";
    }
    if (payload_bytes == 0 || b.at >= b.bytes || payload_bytes > b.bytes - b.at) {
        return "a piece outside its image";
    }
    *book = b;
    return NULL;
}

const char *qyi_remote_scorer_parse(const uint8_t *piece, size_t piece_bytes, uint64_t bytes,
                                    struct qyi_remote_scorer *scorer, const uint8_t **inv_freq,
                                    const uint8_t **codebook)
{
    struct qyi_remote_scorer s;

    if (piece_bytes < sizeof(s)) {
        return "a first piece that is too short";
    }
    memcpy(&s, piece, sizeof(s));
    if (s.zero != 0 || memchr(s.policy, '\0', sizeof(s.policy)) == NULL) {
        return "a name without an end, or members that are not 0";
    }
    if (!isfinite(s.scale) || !(s.scale > 0.0F)) {
        return "a scale that there is not";
    }
    if (s.rope_dim % 2 != 0 || s.rope_dim > QYI_REMOTE_ROPE_MOST) {
        return "a rotation that there is not";
    }
    const uint64_t freqs = s.rope_dim / 2 * sizeof(float);
    if (s.codebook_bytes > bytes || bytes - s.codebook_bytes != sizeof(s) + freqs) {
        return "an image of another size than it says";
    }
    const uint64_t least =
        sizeof(s) + freqs + (s.codebook_bytes > 0 ? QY_CODEBOOK_HEADER_BYTES : 0);
    if (piece_bytes < least || bytes < least) {
        return "a first piece that is too short";
    }
    *scorer = s;
    *inv_freq = piece + sizeof(s);
    *codebook = piece + sizeof(s) + freqs;
    return NULL;
}

/* ---- SCORE ------------------------------------------------------------------------------------ */

/* The blocks of one item. */
static const char *check_blocks(const struct qyi_remote_bounds *bounds,
                                const struct qyi_remote_score *item, const uint32_t *blocks)
{
    for (uint32_t i = 0; i < item->n_blocks; i++) {
        if (blocks[i] >= bounds->max_blocks || (i > 0 && blocks[i] <= blocks[i - 1])) {
            return "a block outside the table, or out of order";
        }
    }
    if (item->n_tokens >> bounds->shift <= blocks[item->n_blocks - 1] ||
        (item->n_tokens - 1) >> bounds->shift >= bounds->max_blocks) {
        return "a position within the blocks, or outside the table";
    }
    return NULL;
}

static const char *check_item(const struct qyi_remote_bounds *bounds,
                              const struct qyi_remote_score *item, uint32_t n_left)
{
    if (item->sequence >= bounds->max_sequences) {
        return "a sequence outside the table";
    }
    if (item->head >= bounds->n_kv_heads) {
        return "a KV head that there is not";
    }
    if (item->serial == 0 || item->zero != 0) {
        return "a serial of 0, or members that are not 0";
    }
    if (item->n_blocks == 0 || item->n_blocks > n_left || item->k == 0) {
        return "a list of no blocks, or longer than the head says, or a choice of none";
    }
    return NULL;
}

const char *qyi_remote_score_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                   size_t head_bytes, const void *payload, size_t payload_bytes,
                                   struct qyi_remote_scores *scores)
{
    struct qyi_remote_ask ask;

    if (head_bytes != sizeof(ask)) {
        return "a head of another size";
    }
    memcpy(&ask, head, sizeof(ask));
    const struct qyi_remote_parts parts =
        qyi_remote_score_parts(ask.n_items, ask.n_ids, bounds->query_floats);
    if (ask.n_items == 0 || payload_bytes != parts.bytes) {
        return "a payload of another size than its head says";
    }
    if (!qyi_remote_aligned(payload)) {
        return "a payload that the node did not align";
    }
    if (ask.layer >= bounds->n_layers) {
        return "a layer that there is not";
    }
    if (ask.scale != 0.0F) {
        return "a scale, which the session has";
    }
    const struct qyi_remote_scores s = {
        .layer = ask.layer,
        .n_items = ask.n_items,
        .n_blocks = ask.n_ids,
        .items = payload,
        .q = (const float *)(const void *)((const uint8_t *)payload + parts.q_at),
        .blocks = (const uint32_t *)(const void *)((const uint8_t *)payload + parts.ids_at)};
    uint32_t at = 0;
    for (uint32_t i = 0; i < s.n_items; i++) {
        const char *wrong = check_item(bounds, &s.items[i], s.n_blocks - at);

        wrong = wrong ? wrong : check_blocks(bounds, &s.items[i], s.blocks + at);
        if (wrong) {
            return wrong;
        }
        at += s.items[i].n_blocks;
    }
    if (at != s.n_blocks) {
        return "lists that are not as long as the head says";
    }
    *scores = s;
    return NULL;
}
