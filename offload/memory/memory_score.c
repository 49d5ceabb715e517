/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCORE: index bytes of blocks are scored where they lie, by the worker's own policy; each query head's best
 * tokens go back, with their scores, to be ranked with those of other places. See memory_server.h.
 */
#include "offload/memory/memory_server.h"

/* Are all blocks of the question here? answer gets their fold; 0: its code says what is missing. */
static int all_known(const struct qyi_session *s, const struct qyi_remote_scores *scores,
                     struct qyi_memory_reply *answer)
{
    const uint32_t *block = scores->blocks;

    for (uint32_t i = 0; i < scores->n_items; i++) {
        const struct qyi_remote_score *item = &scores->items[i];
        const uint32_t *end = block + item->n_blocks;

        answer->head.item = i;
        answer->code = (uint16_t)qyi_serial_check(s, item->sequence, item->serial);
        for (; answer->code == QYI_REMOTE_DONE && block < end; block++) {
            const size_t place = qyi_block_place(s, item->sequence, *block);

            answer->head.block = *block;
            answer->code = s->blocks[place] ? QYI_REMOTE_DONE : QYI_REMOTE_UNKNOWN;
            answer->head.fold = qyi_remote_fold(answer->head.fold, s->generations[place]);
        }
        if (answer->code != QYI_REMOTE_DONE) {
            return 0;
        }
    }
    return 1;
}

/* Are all blocks below the window, as all are that a choice is made of? What is nearer a policy may score by
 * keys, which are not given to it here. */
static int below_window(const struct qyi_session *s, const struct qyi_remote_scores *scores)
{
    const uint32_t *block = scores->blocks;

    for (uint32_t i = 0; i < scores->n_items; i++) {
        const struct qyi_remote_score *item = &scores->items[i];

        block += item->n_blocks;
        if (item->n_tokens - ((block[-1] + 1) << s->bounds.shift) < s->scorer->said.window) {
            return 0;
        }
    }
    return 1;
}

/* The item's blocks alone, for the kernel. */
static uint8_t **table(struct qyi_session *s, const struct qyi_remote_score *item,
                       const uint32_t *blocks)
{
    uint8_t **to = qy_arena_take(&s->scorer->arena, item->n_blocks * sizeof(*to), 64);

    for (uint32_t i = 0; to && i < item->n_blocks; i++) {
        to[i] = s->blocks[qyi_block_place(s, item->sequence, blocks[i])];
    }
    return to;
}

/* Items first .. first + n - 1, of blocks from *blocks on; *to: where their answers go. */
static enum qyi_remote_code score(struct qyi_session *s, const struct qyi_remote_scores *scores,
                                  uint32_t first, uint32_t n, const uint32_t **blocks, uint8_t **to)
{
    struct qyi_scorer *scorer = s->scorer;
    struct qy_best_item *items = qy_arena_take(&scorer->arena, n * sizeof(*items), 64);
    const uint32_t *at = *blocks;

    for (uint32_t i = 0; items && i < n; i++) {
        const struct qyi_remote_score *item = &scores->items[first + i];
        const uint32_t best = qyi_remote_best(item->k, item->n_blocks, s->bounds.shift);
        const size_t list_bytes = (size_t)s->group * best * sizeof(uint32_t);
        uint8_t **index = table(s, item, at);

        if (!index) {
            return QYI_REMOTE_TOO_LARGE;
        }
        items[i] = (struct qy_best_item){
            .q = scores->q + (size_t)(first + i) * s->bounds.query_floats,
            .index = {.blocks = index,
                      .offset = qyi_layout_index_at(&s->layout, scores->layer, item->head),
                      .shift = s->bounds.shift},
            .group = s->group,
            .n_tokens = item->n_tokens,
            .layer = scores->layer,
            .kv_head = item->head,
            .n = item->n_blocks << s->bounds.shift,
            .k = best,
            .places = (uint32_t *)(void *)*to,
            .scores = (float *)(void *)(*to + list_bytes)};
        *to += 2 * list_bytes;
        at += item->n_blocks;
    }
    if (!items || scorer->ops->best(scorer->policy, items, n, &scorer->arena) != QY_OK) {
        return items ? QYI_REMOTE_FAILED : QYI_REMOTE_TOO_LARGE;
    }
    for (uint32_t i = 0; i < n; i++) {
        qyi_layout_name_tokens(s->bounds.shift, *blocks, items[i].places,
                               (size_t)s->group * items[i].k);
        *blocks += scores->items[first + i].n_blocks;
    }
    return QYI_REMOTE_DONE;
}

/* Bytes of the answer; SIZE_MAX: too many. */
static size_t answer_bytes(const struct qy_memory *m, const struct qyi_session *s,
                           const struct qyi_remote_scores *scores)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < scores->n_items; i++) {
        const struct qyi_remote_score *item = &scores->items[i];

        bytes += (size_t)s->group * qyi_remote_best(item->k, item->n_blocks, s->bounds.shift) *
                 (sizeof(uint32_t) + sizeof(float));
        if (bytes > m->params.answer_bytes) {
            return SIZE_MAX;
        }
    }
    return bytes;
}

void qyi_memory_score(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                      struct qyi_memory_reply *answer)
{
    struct qyi_remote_scores scores;
    uint8_t *to = q->answer;
    uint32_t n;

    answer->refused = s->scorer ? qyi_remote_score_parse(&s->bounds, q->head, q->head_bytes,
                                                         q->payload, q->payload_bytes, &scores)
                                : "a question about scores, and nothing to score by";
    if (answer->refused) {
        return;
    }
    if (!below_window(s, &scores)) {
        answer->refused = "scores of tokens in the window";
        return;
    }
    const size_t bytes = answer_bytes(m, s, &scores);
    if (bytes == SIZE_MAX) {
        answer->code = QYI_REMOTE_TOO_LARGE;
        return;
    }
    if (!all_known(s, &scores, answer)) {
        return;
    }
    const uint32_t *blocks = scores.blocks;
    for (uint32_t first = 0; answer->code == QYI_REMOTE_DONE && first < scores.n_items;
         first += n) {
        const size_t mark = qy_arena_mark(&s->scorer->arena);

        n = scores.n_items - first < s->scorer->batch ? scores.n_items - first : s->scorer->batch;
        answer->code = (uint16_t)score(s, &scores, first, n, &blocks, &to);
        qy_arena_rewind(&s->scorer->arena, mark);
    }
    if (answer->code == QYI_REMOTE_DONE) {
        m->counts.tokens_scored += (uint64_t)scores.n_blocks << s->bounds.shift;
        answer->payload = q->answer;
        answer->payload_bytes = bytes;
    }
}
