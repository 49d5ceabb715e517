/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BOOK: a worker's policy, as far as it scores index bytes, with its codebook. It comes in pieces, of which
 * tables are made as they come, so that no question takes long; when all are here the policy is opened, on
 * this server's device. See memory_server.h.
 */
#include "offload/memory/memory_server.h"

#include <string.h>

enum { BATCH = 8 };
/* chosen: of longer contexts fewer are scored together */
static const size_t usual_scratch = (size_t)64 << 20;

void qyi_scorer_close(struct qy_memory *m, struct qyi_scorer *scorer)
{
    const struct qy_allocator *mem = &m->rt->mem;

    if (!scorer) {
        return;
    }
    if (scorer->policy) {
        scorer->ops->close(scorer->policy);
    }
    qy_codebook_close(scorer->codebook);
    qy_free(mem, scorer->inv_freq);
    qy_free(mem, scorer->scratch);
    qy_free(mem, scorer);
}

static size_t scratch_of(const struct qyi_scorer *scorer, const struct qyi_session *s, uint32_t n)
{
    const uint32_t blocks = s->bounds.max_blocks;

    return scorer->ops->best_scratch(scorer->policy, n, blocks << s->bounds.shift) +
           n * ((size_t)blocks * sizeof(uint8_t *) + sizeof(struct qy_best_item) + 64) +
           (size_t)4 * 64;
}

/* As many items at a time as usual, or one. */
static enum qy_status open_scratch(struct qy_memory *m, const struct qyi_session *s,
                                   struct qyi_scorer *scorer, struct qy_error *err)
{
    scorer->batch = BATCH;
    while (scorer->batch > 1 && scratch_of(scorer, s, scorer->batch) > usual_scratch) {
        scorer->batch /= 2;
    }
    const size_t bytes = scratch_of(scorer, s, scorer->batch);
    scorer->scratch = bytes > m->params.book_bytes ? NULL : qy_alloc_zero(&m->rt->mem, bytes);
    if (!scorer->scratch) {
        return qy_error_set(err, QY_ERR_NOMEM, "scores of %u blocks take %zu bytes",
                            s->bounds.max_blocks, bytes);
    }
    qy_arena_init(&scorer->arena, scorer->scratch, bytes);
    return QY_OK;
}

/* The policy, by the settings that are said; those that only others have are 0. */
static enum qy_status open_policy(struct qy_memory *m, const struct qyi_session *s,
                                  struct qyi_scorer *scorer, struct qy_error *err)
{
    const struct qyi_remote_scorer *said = &scorer->said;
    const struct qyi_layout *l = &s->layout;
    struct qy_retrieval_settings *r = &scorer->settings;

    *r = (struct qy_retrieval_settings){.preset = (int)said->preset,
                                        .first_stage = (int)said->first_stage,
                                        .rerank = (int)said->rerank,
                                        .pooling = (int)said->pooling,
                                        .wrope_window = said->wrope_window,
                                        .wrope_distance = said->wrope_distance};
    scorer->ops = qy_policy_find(said->policy);
    if (!scorer->ops || !scorer->ops->scores_apart || !scorer->ops->scores_apart(r, said->window)) {
        return qy_error_set(err, QY_ERR_CONFIG, "policy '%.31s' cannot score blocks apart",
                            said->policy);
    }
    const struct qy_policy_params params = {
        .rt = m->rt,
        .dev = m->dev,
        .n_layers = l->n_layers,
        .n_heads = l->n_kv_heads * s->group,
        .n_kv_heads = l->n_kv_heads,
        .head_dim = l->head_dim,
        .max_sequences = 1, /* what it keeps is for the item that it scores */
        .max_tokens = s->bounds.max_blocks << l->shift,
        .block_tokens = l->block_tokens,
        .sinks = said->sinks,
        .window = said->window,
        .rope = {.dim = said->rope_dim,
                 .pairs = (enum qy_rope_pairs)said->rope_pairs,
                 .inv_freq = scorer->inv_freq},
        .scale = said->scale,
        .argument = "",
        .codebook = scorer->codebook,
        .settings = r};
    const enum qy_status st = scorer->ops->open(&params, &scorer->policy, err);
    if (st != QY_OK) {
        return st;
    }
    const size_t index = scorer->ops->index_bytes(scorer->policy);
    if (index == 0 || (index + 63) / 64 * 64 != l->index_slab_bytes) {
        return qy_error_set(err, QY_ERR_CONFIG, "an index of %zu bytes, and blocks with %zu", index,
                            l->index_slab_bytes);
    }
    return QY_OK;
}

/* What the first piece says. */
static enum qy_status begin(struct qy_memory *m, const struct qyi_session *s,
                            struct qyi_scorer *scorer, const struct qyi_question *q,
                            struct qy_error *err)
{
    const struct qy_allocator *mem = &m->rt->mem;
    struct qyi_remote_scorer *said = &scorer->said;
    const uint8_t *inv_freq;
    const uint8_t *codebook;
    const char *wrong = qyi_remote_scorer_parse(q->payload, q->payload_bytes, scorer->book.bytes,
                                                said, &inv_freq, &codebook);

    if (wrong || said->rope_dim > s->layout.head_dim || said->rope_pairs > QY_ROPE_HALVES) {
        return qy_error_set(err, QY_ERR_CORRUPT, "%s", wrong ? wrong : "a rotation of no head");
    }
    const size_t freqs = said->rope_dim / 2 * sizeof(float);
    scorer->inv_freq = qy_alloc_zero(mem, freqs + sizeof(float));
    if (!scorer->inv_freq) {
        return qy_error_set(err, QY_ERR_NOMEM, "out of memory");
    }
    memcpy(scorer->inv_freq, inv_freq, freqs);
    scorer->codebook_at = sizeof(*said) + freqs;
    return said->codebook_bytes == 0
               ? QY_OK
               : qy_codebook_begin(mem, codebook, said->codebook_bytes, &scorer->codebook, err);
}

/* A piece at book.at, of which the codebook gets what is of its tables. */
static enum qy_status add(struct qyi_scorer *scorer, const struct qyi_question *q,
                          struct qy_error *err)
{
    const uint64_t tables = scorer->codebook_at + QY_CODEBOOK_HEADER_BYTES;
    const uint64_t from = scorer->book.at;
    const uint64_t at = from > tables ? from : tables;

    scorer->book.at += q->payload_bytes;
    return scorer->codebook == NULL || scorer->book.at <= at
               ? QY_OK
               : qy_codebook_add(scorer->codebook, at - scorer->codebook_at,
                                 (const uint8_t *)q->payload + (at - from),
                                 (size_t)(scorer->book.at - at), err);
}

/* All is here. */
static enum qy_status finish(struct qy_memory *m, const struct qyi_session *s,
                             struct qyi_scorer *scorer, struct qy_error *err)
{
    const uint64_t codebook = scorer->codebook ? qy_codebook_hash(scorer->codebook) : 0;

    if (qyi_remote_scorer_hash(&scorer->said, scorer->inv_freq, codebook) != scorer->book.hash) {
        return qy_error_set(err, QY_ERR_CORRUPT, "another image than its hash says");
    }
    const enum qy_status st = open_policy(m, s, scorer, err);
    return st == QY_OK ? open_scratch(m, s, scorer, err) : st;
}

/* The piece is the next one, or the first. */
static uint16_t take(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                     const struct qyi_remote_book *book)
{
    struct qy_error err = {0};
    enum qy_status st = QY_OK;

    if (book->at == 0) {
        qyi_scorer_close(m, s->coming);
        s->coming = qy_alloc_zero(&m->rt->mem, sizeof(*s->coming));
        if (!s->coming) {
            return QYI_REMOTE_TOO_LARGE;
        }
        s->coming->book = *book;
        st = begin(m, s, s->coming, q, &err);
    }
    if (st == QY_OK) {
        st = add(s->coming, q, &err);
    }
    if (st == QY_OK && s->coming->book.at < book->bytes) {
        return QYI_REMOTE_DONE;
    }
    if (st == QY_OK) {
        st = finish(m, s, s->coming, &err);
    }
    if (st == QY_OK) {
        qyi_scorer_close(m, s->scorer);
        s->scorer = s->coming;
    } else {
        qy_log_write(&m->rt->log, QY_LOG_ERROR, "memory",
                     "session %02x%02x%02x%02x: what it is to be scored by is refused: %s",
                     s->name[0], s->name[1], s->name[2], s->name[3], err.text);
        qyi_scorer_close(m, s->coming);
    }
    s->coming = NULL;
    return st == QY_OK            ? QYI_REMOTE_DONE
           : st == QY_ERR_NOMEM   ? QYI_REMOTE_TOO_LARGE
           : st == QY_ERR_CORRUPT ? QYI_REMOTE_CORRUPT
                                  : QYI_REMOTE_FAILED;
}

void qyi_memory_book(struct qy_memory *m, struct qyi_session *s, const struct qyi_question *q,
                     struct qyi_memory_reply *answer)
{
    struct qyi_remote_book book;

    answer->refused = qyi_remote_book_parse(q->head, q->head_bytes, q->payload_bytes, &book);
    if (answer->refused) {
        return;
    }
    const int known =
        s->coming && book.hash == s->coming->book.hash && book.bytes == s->coming->book.bytes;
    if (s->scorer && s->scorer->book.hash == book.hash) {
        answer->code = QYI_REMOTE_HELD;
    } else if (book.bytes > m->params.book_bytes) {
        answer->code = QYI_REMOTE_TOO_LARGE;
    } else if (book.at == 0 || (known && book.at == s->coming->book.at)) {
        answer->code = take(m, s, q, &book);
    } else if (!known || book.at + q->payload_bytes != s->coming->book.at) {
        answer->code = QYI_REMOTE_STALE; /* else it is asked twice */
    }
}
