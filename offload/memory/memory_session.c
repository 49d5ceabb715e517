/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: worker processes, known by the name that they give themselves. A session has a layout and a
 * table of blocks; it outlives its connections by the grace time. See memory_server.h.
 */
#include "offload/memory/memory_server.h"

#include <string.h>

/* What an OPEN asks for. */
struct wish {
    struct qyi_remote_open open;
    struct qyi_layout layout;
    struct qyi_home_layer *home; /* NULL: rows are not coded */
    uint64_t table_bytes;
};

struct qyi_session *qyi_session_find(const struct qy_memory *m, const uint8_t *name)
{
    for (uint32_t i = 0; i < m->params.max_sessions; i++) {
        struct qyi_session *s = &m->sessions[i];

        if (s->is_open && memcmp(s->name, name, sizeof(s->name)) == 0) {
            return s;
        }
    }
    return NULL;
}

/* 0: the answer says why not. home is the caller's to free, either way. */
static int read_wish(const struct qy_memory *m, const struct qyi_question *q, struct wish *w,
                     struct qyi_memory_reply *answer)
{
    answer->refused = qyi_remote_open_parse(q->payload, q->payload_bytes, &w->open);
    if (!answer->refused && w->open.coded) { /* n_layers: no more than the payload has bytes */
        w->home = qy_alloc_zero(&m->rt->mem, w->open.n_layers * sizeof(*w->home));
        if (!w->home) {
            answer->code = QYI_REMOTE_FAILED;
            return 0;
        }
    }
    if (!answer->refused) {
        answer->refused = qyi_remote_open_layout(&w->open, q->payload, w->home, &w->layout);
    }
    const uint64_t entries = (uint64_t)w->open.max_sequences * w->open.max_blocks;
    w->table_bytes =
        entries * (sizeof(uint8_t *) + sizeof(uint64_t)) + w->open.max_sequences * sizeof(uint64_t);
    return !answer->refused;
}

/* Was it opened with just this? */
static int is_same(const struct qyi_session *s, const struct wish *w)
{
    const struct qyi_layout *a = &s->layout;
    const struct qyi_layout *b = &w->layout;
    int same = a->n_layers == b->n_layers && a->n_kv_heads == b->n_kv_heads &&
               a->head_dim == b->head_dim && a->block_tokens == b->block_tokens &&
               a->row_type == b->row_type && a->index_slab_bytes == b->index_slab_bytes &&
               a->block_bytes == b->block_bytes && !a->home == !b->home &&
               s->group == w->open.group && s->bounds.max_sequences == w->open.max_sequences &&
               s->bounds.max_blocks == w->open.max_blocks;

    for (uint32_t i = 0; same && a->home && i < a->n_layers; i++) {
        const struct qy_row_codec *x = &a->home[i].codec;
        const struct qy_row_codec *y = &b->home[i].codec;

        same = x->k_bits == y->k_bits && x->v_bits == y->v_bits && x->group == y->group;
    }
    return same;
}

static void free_tables(struct qy_memory *m, struct qyi_session *s)
{
    const struct qy_allocator *mem = &m->rt->mem;

    qy_free(mem, s->generations);
    qy_free(mem, s->blocks);
    qy_free(mem, s->serials);
    qy_free(mem, s->home);
    qyi_scorer_close(m, s->coming);
    qyi_scorer_close(m, s->scorer);
    s->coming = NULL;
    s->scorer = NULL;
    s->generations = NULL;
    s->blocks = NULL;
    s->serials = NULL;
    s->home = NULL;
    m->table_bytes -= s->table_bytes;
    s->table_bytes = 0;
}

/* Takes over what w has. Non-zero: no memory, and s is as it was. */
static int fill(struct qy_memory *m, struct qyi_session *s, struct wish *w)
{
    const struct qy_allocator *mem = &m->rt->mem;
    const size_t entries = (size_t)w->open.max_sequences * w->open.max_blocks;
    struct qyi_session made = *s;

    made.serials = qy_alloc_zero(mem, w->open.max_sequences * sizeof(*made.serials));
    made.blocks = qy_alloc_zero(mem, entries * sizeof(*made.blocks));
    made.generations = qy_alloc_zero(mem, entries * sizeof(*made.generations));
    if (!made.serials || !made.blocks || !made.generations) {
        qy_free(mem, made.generations);
        qy_free(mem, made.blocks);
        qy_free(mem, made.serials);
        return 1;
    }
    free_tables(m, s);
    made.coming = NULL; /* they were of another layout */
    made.scorer = NULL;
    made.layout = w->layout;
    made.home = w->home;
    made.group = w->open.group;
    made.bounds = (struct qyi_remote_bounds){.n_layers = w->layout.n_layers,
                                             .n_kv_heads = w->layout.n_kv_heads,
                                             .query_floats = w->open.group * w->layout.head_dim,
                                             .shift = w->layout.shift,
                                             .max_sequences = w->open.max_sequences,
                                             .max_blocks = w->open.max_blocks,
                                             .block_bytes = w->layout.block_bytes};
    made.table_bytes = w->table_bytes;
    made.is_open = 1;
    w->home = NULL;
    m->table_bytes += made.table_bytes;
    *s = made;
    return 0;
}

/* Does it fit into what this server has? `old`: the tables that it would replace, or NULL. */
static enum qyi_remote_code room(struct qy_memory *m, const struct qyi_session *old,
                                 const struct wish *w)
{
    const struct qyi_session like = {.layout = w->layout, .group = w->open.group};
    const uint64_t taken = m->table_bytes - (old ? old->table_bytes : 0);
    struct qy_error err = {0};

    if (w->table_bytes > m->params.table_bytes - taken || w->layout.block_bytes > m->params.bytes ||
        qyi_attend_need(m, &like, 1, QY_ATTEND_PIECE) > m->arena.bytes) {
        return QYI_REMOTE_TOO_LARGE;
    }
    const enum qy_status st = qyi_frames_size(&m->frames, w->layout.block_bytes, &err);
    if (st == QY_OK || st == QY_AGAIN) {
        return st == QY_OK ? QYI_REMOTE_DONE : QYI_REMOTE_BUSY;
    }
    qy_log_write(&m->rt->log, QY_LOG_ERROR, "memory", "%s", err.text);
    return QYI_REMOTE_FAILED;
}

static struct qyi_session *free_place(const struct qy_memory *m)
{
    for (uint32_t i = 0; i < m->params.max_sessions; i++) {
        if (!m->sessions[i].is_open) {
            return &m->sessions[i];
        }
    }
    return NULL;
}

static struct qyi_session *open_new(struct qy_memory *m, const uint8_t *name,
                                    struct qyi_session *old, struct wish *w,
                                    struct qyi_memory_reply *answer)
{
    struct qyi_session *s = old ? old : free_place(m);
    char text[32];

    if (!s) {
        answer->code = QYI_REMOTE_FULL;
        return NULL;
    }
    answer->code = (uint16_t)room(m, old, w);
    if (answer->code != QYI_REMOTE_DONE) {
        return NULL;
    }
    if (!old) {
        *s = (struct qyi_session){0};
        memcpy(s->name, name, sizeof(s->name));
    }
    if (fill(m, s, w)) {
        answer->code = QYI_REMOTE_FAILED;
        return NULL;
    }
    qy_log_write(&m->rt->log, QY_LOG_INFO, "memory",
                 "session %02x%02x%02x%02x: blocks of %s, %u of %u free", s->name[0], s->name[1],
                 s->name[2], s->name[3], qy_format_size(s->layout.block_bytes, text, sizeof(text)),
                 qyi_frames_free(&m->frames), m->frames.n);
    return s;
}

struct qyi_session *qyi_session_open(struct qy_memory *m, const uint8_t *name,
                                     const struct qyi_question *q, struct qyi_memory_reply *answer)
{
    static const uint8_t nobody[QY_NET_SESSION_BYTES] = {0};
    struct qyi_session *s = qyi_session_find(m, name);
    struct wish w = {.home = NULL};

    if (memcmp(name, nobody, sizeof(nobody)) == 0) {
        answer->refused = "a worker without a name of its own";
        return NULL;
    }
    if (!read_wish(m, q, &w, answer)) {
        s = NULL;
    } else if (s && is_same(s, &w)) {
        answer->code = (uint16_t)room(m, s, &w);
        s = answer->code == QYI_REMOTE_DONE ? s : NULL;
    } else if (s && s->n_held > 0) {
        answer->code = QYI_REMOTE_BUSY;
        s = NULL;
    } else {
        s = open_new(m, name, s, &w, answer);
    }
    qy_free(&m->rt->mem, w.home);
    return s;
}

void qyi_session_close(struct qy_memory *m, struct qyi_session *s)
{
    for (uint32_t i = 0; i < s->bounds.max_sequences; i++) {
        qyi_blocks_free(m, s, i, 0, s->bounds.max_blocks, UINT64_MAX);
    }
    free_tables(m, s);
    *s = (struct qyi_session){0};
}

void qyi_sessions_tend(struct qy_memory *m, uint64_t now_ns)
{
    for (uint32_t i = 0; i < m->params.max_sessions; i++) {
        struct qyi_session *s = &m->sessions[i];

        if (!s->is_open || s->n_peers > 0) {
            s->away = 0;
        } else if (!s->away) {
            s->away = 1;
            s->away_ns = now_ns;
        } else if (now_ns - s->away_ns >= m->params.grace_ns) {
            qy_log_write(&m->rt->log, QY_LOG_INFO, "memory",
                         "session %02x%02x%02x%02x is over, it did not come back; it had %u blocks "
                         "here",
                         s->name[0], s->name[1], s->name[2], s->name[3], s->n_held);
            qyi_session_close(m, s);
            m->counts.sessions_forgotten++;
        }
    }
}
