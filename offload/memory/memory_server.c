/* SPDX-License-Identifier: Apache-2.0 */
/* A memory server: opening and closing it, and the service that a node asks (net/net.h). */
#include "offload/memory/memory_server.h"

#include <string.h>

static const uint64_t least_tables = (uint64_t)16 << 20;
/* chosen: codebooks of large models for `a2ats` are 300 MB */
static const uint64_t usual_book = (uint64_t)1 << 30;
/* chosen: items of the longest usual lists, a few hundred at once */
static const size_t usual_scratch = (size_t)8 << 20;

/* ---- questions ---------------------------------------------------------------------------------- */

static void answer_open_session(struct qy_memory *m, struct qyi_session *s,
                                const struct qyi_question *q, struct qyi_memory_reply *answer)
{
    switch (q->op) {
    case QYI_REMOTE_PUT:
        qyi_memory_put(m, s, q, answer);
        break;
    case QYI_REMOTE_DROP:
        qyi_memory_drop(m, s, q, answer);
        break;
    case QYI_REMOTE_READ:
        qyi_memory_read(m, s, q, answer);
        break;
    case QYI_REMOTE_ROWS:
        qyi_memory_rows(m, s, q, answer);
        break;
    case QYI_REMOTE_ATTEND:
        qyi_memory_attend(m, s, q, answer);
        break;
    case QYI_REMOTE_CHUNK:
        qyi_memory_chunk(m, s, q, answer);
        break;
    case QYI_REMOTE_BOOK:
        qyi_memory_book(m, s, q, answer);
        break;
    case QYI_REMOTE_SCORE:
        qyi_memory_score(m, s, q, answer);
        break;
    default:
        answer->refused = "a question that there is not";
        break;
    }
    s->out_bytes += answer->payload_bytes;
    m->counts.out_bytes += answer->payload_bytes;
}

static void tell_state(const struct qy_memory *m, const struct qyi_question *q,
                       struct qyi_memory_reply *answer)
{
    struct qyi_remote_state state = {.version = QYI_REMOTE_VERSION,
                                     .bytes = m->params.bytes,
                                     .block_bytes = m->frames.frame_bytes};

    for (uint32_t i = 0; i < m->params.max_sessions; i++) {
        state.sessions += m->sessions[i].is_open != 0;
    }
    memcpy(q->answer, &state, sizeof(state));
    answer->payload = q->answer;
    answer->payload_bytes = sizeof(state);
}

static uint32_t clipped(size_t bytes)
{
    return bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
}

static void fill_head(const struct qy_memory *m, const struct qyi_session *s,
                      struct qyi_remote_reply *head)
{
    head->in_bytes = s ? s->in_bytes : 0;
    head->out_bytes = s ? s->out_bytes : 0;
    head->held_blocks = s ? s->n_held : 0;
    head->free_blocks = m->draining ? 0 : qyi_frames_free(&m->frames);
    head->draining = m->draining != 0;
    head->total_blocks = m->frames.n;
    head->call_bytes = clipped(m->params.call_bytes);
    head->answer_bytes = clipped(m->params.answer_bytes);
}

void qyi_memory_answer(struct qy_memory *m, const uint8_t *name, struct qyi_session **session,
                       const struct qyi_question *q, struct qyi_memory_reply *answer)
{
    m->counts.calls++;
    if (q->op == QYI_REMOTE_OPEN) {
        struct qyi_session *opened = qyi_session_open(m, name, q, answer);

        *session = opened ? opened : *session;
    } else if (q->op == QYI_REMOTE_STATE) {
        tell_state(m, q, answer);
        answer->code = *session ? QYI_REMOTE_DONE : QYI_REMOTE_NOT_OPEN;
    } else if (*session) {
        answer_open_session(m, *session, q, answer);
    } else {
        answer->code = QYI_REMOTE_NOT_OPEN;
    }
    if (answer->code == QYI_REMOTE_FAILED) {
        qy_log_write(&m->rt->log, QY_LOG_ERROR, "memory",
                     "question %u: out of memory, or the kernel refused it", (unsigned)q->op);
    }
    m->counts.refused += answer->refused != NULL;
    m->counts.turned_down += answer->code != QYI_REMOTE_DONE;
    fill_head(m, *session, &answer->head);
}

/* ---- the service -------------------------------------------------------------------------------- */

static struct qyi_question question_of(const struct qy_call *call)
{
    return (struct qyi_question){.op = call->op,
                                 .head_bytes = call->head_bytes,
                                 .payload_bytes = call->payload_bytes,
                                 .head = call->head,
                                 .payload = call->payload,
                                 .answer = call->answer};
}

static void *place(void *ctx, const struct qy_call *call, uint16_t *code)
{
    const struct qyi_question q = question_of(call);

    *code = QYI_REMOTE_DONE;
    return call->op == QYI_REMOTE_PUT ? qyi_memory_place(ctx, qy_peer_user(call->peer), &q, code)
                                      : NULL;
}

static void attach(struct qy_peer *peer, struct qyi_session *s)
{
    if (qy_peer_user(peer) != s) {
        qy_peer_set_user(peer, s);
        s->n_peers++;
        s->away = 0;
    }
}

/* call->user: NULL, it was never served; the memory, it was; else the frame that its answer lies in. */
static void serve(void *ctx, struct qy_call *call)
{
    struct qy_memory *m = ctx;
    struct qyi_session *s = qy_peer_user(call->peer);
    const struct qyi_question q = question_of(call);
    struct qyi_memory_reply answer = {0};

    call->user = m;
    qyi_memory_answer(m, qy_peer_session(call->peer), &s, &q, &answer);
    if (s) {
        attach(call->peer, s);
    }
    if (answer.refused) {
        qy_call_refuse(call, answer.refused);
        return;
    }
    if (answer.pinned) {
        call->user = answer.pinned;
    }
    qy_call_answer(call, answer.code, &answer.head, sizeof(answer.head), answer.payload,
                   answer.payload_bytes);
}

static void done(void *ctx, struct qy_call *call)
{
    struct qy_memory *m = ctx;

    if (!call->user) {
        const uint8_t *frame = qyi_frames_coming(&m->frames, call->payload);

        if (frame) {
            qyi_frames_give(&m->frames, frame);
        }
    } else if (call->user != m) {
        qyi_frames_unpin(&m->frames, call->user);
    }
}

static void joined(void *ctx, struct qy_peer *peer)
{
    struct qyi_session *s = qyi_session_find(ctx, qy_peer_session(peer));

    if (s) { /* it was here before, and its blocks are still */
        attach(peer, s);
    }
}

static void left(void *ctx, struct qy_peer *peer, const char *why)
{
    struct qyi_session *s = qy_peer_user(peer);

    (void)ctx;
    (void)why;
    if (s) {
        s->n_peers--;
        qy_peer_set_user(peer, NULL);
    }
}

const struct qy_service *qy_memory_service(const struct qy_memory *m)
{
    return &m->service;
}

/* ---- opening and closing ------------------------------------------------------------------------- */

static enum qy_status check(const struct qy_memory_params *p, struct qy_error *err)
{
    if (!p->rt || p->bytes == 0 || p->max_sessions == 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "memory of %llu bytes for %u sessions: both must be above 0, and a "
                            "runtime given",
                            (unsigned long long)p->bytes, p->max_sessions);
    }
    if (p->call_bytes == 0 || p->answer_bytes == 0 || p->call_bytes % 64 != 0 ||
        p->answer_bytes % 64 != 0) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "memory: questions of '%zu' bytes, answers of '%zu'; multiples of 64 "
                            "are accepted; give those of the node",
                            p->call_bytes, p->answer_bytes);
    }
    if (p->dev && !qy_device_caps(p->dev)->unified) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "memory: device '%s' does not read the host's memory; give a unified "
                            "one, as 'host'",
                            qy_device_caps(p->dev)->name);
    }
    return QY_OK;
}

static enum qy_status open_parts(struct qy_memory *m, struct qy_error *err)
{
    const struct qy_allocator *mem = &m->rt->mem;
    const struct qy_device_params device = {.spec = "host", .max_m = 1};
    size_t scratch = m->params.scratch_bytes;

    if (!m->dev) {
        const enum qy_status st = qy_device_open(m->rt, &device, &m->own_dev, err);

        if (st != QY_OK) {
            return st;
        }
        m->dev = m->own_dev;
    }
    if (scratch == 0) {
        scratch = usual_scratch + qy_device_attend_coded_scratch(m->dev, QY_ROW_CODEC_MAX_D);
    }
    m->sessions = qy_alloc_zero(mem, m->params.max_sessions * sizeof(*m->sessions));
    m->items = qy_alloc_zero(mem, QYI_MEMORY_BATCH * sizeof(*m->items));
    m->scratch = qy_alloc_zero(mem, scratch);
    if (!m->sessions || !m->items || !m->scratch) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "memory: out of memory for %u sessions and %zu bytes of scratch",
                            m->params.max_sessions, scratch);
    }
    qy_arena_init(&m->arena, m->scratch, scratch);
    return QY_OK;
}

enum qy_status qy_memory_open(const struct qy_memory_params *params, struct qy_memory **memory,
                              struct qy_error *err)
{
    enum qy_status st = check(params, err);

    if (st != QY_OK) {
        return st;
    }
    struct qy_memory *m = qy_alloc_zero(&params->rt->mem, sizeof(*m));
    if (!m) {
        return qy_error_set(err, QY_ERR_NOMEM, "memory: out of memory for its state");
    }
    m->params = *params;
    m->rt = params->rt;
    m->dev = params->dev;
    m->frames = (struct qyi_frames){.rt = params->rt, .bytes = params->bytes};
    m->service = (struct qy_service){
        .ctx = m, .place = place, .serve = serve, .done = done, .joined = joined, .left = left};
    if (m->params.table_bytes == 0) {
        const uint64_t share = params->bytes / 16;

        m->params.table_bytes = share > least_tables ? share : least_tables;
    }
    if (m->params.book_bytes == 0) {
        m->params.book_bytes = usual_book;
    }
    st = open_parts(m, err);
    if (st != QY_OK) {
        qy_memory_close(m);
        return st;
    }
    *memory = m;
    return QY_OK;
}

void qy_memory_close(struct qy_memory *m)
{
    if (!m) {
        return;
    }
    const struct qy_allocator *mem = &m->rt->mem;
    for (uint32_t i = 0; m->sessions && i < m->params.max_sessions; i++) {
        if (m->sessions[i].is_open) {
            qyi_session_close(m, &m->sessions[i]);
        }
    }
    qyi_frames_close(&m->frames);
    qy_free(mem, m->scratch);
    qy_free(mem, m->items);
    qy_free(mem, m->sessions);
    qy_device_close(m->own_dev);
    qy_free(mem, m);
}

void qy_memory_drain(struct qy_memory *m)
{
    m->draining = 1;
}

int qy_memory_tend(struct qy_memory *m, uint64_t now_ns)
{
    qyi_sessions_tend(m, now_ns);
    return qyi_frames_clean(&m->frames) > 0;
}

void qy_memory_stats(const struct qy_memory *m, struct qy_memory_stats *stats)
{
    *stats = m->counts;
    stats->block_bytes = m->frames.frame_bytes;
    stats->blocks_total = m->frames.n;
    stats->blocks_free = qyi_frames_free(&m->frames);
    for (uint32_t i = 0; i < m->params.max_sessions; i++) {
        stats->sessions += m->sessions[i].is_open != 0;
        stats->sessions_away += m->sessions[i].is_open && m->sessions[i].n_peers == 0;
    }
}
