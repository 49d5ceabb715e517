/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls: questions that peers ask us. Each peer has places of its own for the depth that it was told, and
 * its calls wait in a queue of its own; the queues take turns at the buffers of answers, so no peer
 * keeps another waiting for longer than its own calls take. A buffer is taken until its answer was sent, and a
 * peer that takes nothing in (it was stopped, say) leaves one of them to each other: they are answered.
 *
 *   receiving --whole--> queued --its turn--> serving --answer--> sending --sent--> free
 *
 * A question that comes twice is known by its id, and dropped; one whose answer came damaged is asked again
 * with another id. A peer that keeps more than its depth open breaks the rules.
 */
#include "net/node.h"

#include <assert.h>
#include <string.h>

/* ---- places ------------------------------------------------------------------------------------ */

static uint32_t n_places(const struct qy_node *node)
{
    return 2 *
           node->depth; /* an answer may be read at the other end before the wire gives it back */
}

/* Not cleared, and so not touched before it is needed. */
static void *reserve(const struct qy_allocator *mem, size_t bytes)
{
    return mem->alloc(mem->ctx, bytes + 1, 64);
}

enum qy_status qyi_calls_open(struct qy_peer *peer)
{
    const struct qy_node *node = peer->node;
    const struct qy_allocator *mem = &node->rt->mem;

    if (!peer->all_calls) {
        peer->all_calls = qy_alloc_zero(mem, n_places(node) * sizeof(*peer->all_calls));
    }
    if (!peer->buffers) {
        peer->buffers = reserve(mem, node->depth * node->call_bytes);
    }
    if (!peer->free_buffers) {
        peer->free_buffers = qy_alloc_zero(mem, node->depth * sizeof(*peer->free_buffers));
    }
    if (!peer->all_calls || !peer->buffers || !peer->free_buffers) {
        return QY_ERR_NOMEM;
    }
    memset(peer->last_ids, 0, sizeof(peer->last_ids));
    peer->free_calls = NULL;
    for (uint32_t i = n_places(node); i-- > 0;) {
        struct qyi_call *call = &peer->all_calls[i];
        memset(call, 0, sizeof(*call));
        call->next = peer->free_calls;
        peer->free_calls = call;
    }
    for (uint32_t i = 0; i < node->depth; i++) {
        peer->free_buffers[i] = peer->buffers + (node->depth - 1 - i) * node->call_bytes;
    }
    peer->n_free_buffers = node->depth;
    return QY_OK;
}

static void release_buffer(struct qyi_call *call)
{
    struct qy_peer *peer = call->call.peer;

    if (call->buffer) {
        peer->free_buffers[peer->n_free_buffers++] = call->buffer;
        call->buffer = NULL;
    }
}

static void release_answer(struct qyi_call *call)
{
    struct qy_node *node = call->call.peer->node;

    if (call->answer) {
        node->free_answers[node->n_free_answers++] = call->answer;
        node->n_answered -= --call->call.peer->n_answers == 0;
        call->answer = NULL;
    }
}

static void release(struct qyi_call *call)
{
    struct qy_peer *peer = call->call.peer;
    const struct qy_service *service = &peer->node->service;

    if (call->owed && service->done) {
        service->done(service->ctx, &call->call);
    }
    release_buffer(call);
    release_answer(call);
    call->owed = 0;
    call->state = QYI_CALL_FREE;
    call->next = peer->free_calls;
    peer->free_calls = call;
}

void qyi_calls_give_up(struct qy_peer *peer)
{
    for (uint32_t i = 0; i < n_places(peer->node); i++) {
        struct qyi_call *call = &peer->all_calls[i];
        peer->node->n_queued -= call->state == QYI_CALL_QUEUED ? 1 : 0;
        if (call->state != QYI_CALL_FREE) {
            release(call);
        }
    }
    peer->queue = NULL;
    peer->queue_end = &peer->queue;
    peer->n_open = 0;
}

/* ---- arriving ------------------------------------------------------------------------------------- */

static void fill(struct qyi_call *call, struct qy_peer *peer, const struct qyi_head *head)
{
    memset(call, 0, sizeof(*call));
    qyi_out_init(&call->out, peer, QYI_OUT_ANSWER);
    call->id = head->id;
    call->state = QYI_CALL_RECEIVING;
    memcpy(call->head, head->head, head->head_bytes);
    call->call.peer = peer;
    call->call.op = head->op;
    call->call.head_bytes = head->head_bytes;
    call->call.head = call->head;
    call->call.payload_bytes = (size_t)head->payload_bytes;
}

/* Where its payload goes. NULL: nowhere. */
static void *place(struct qyi_call *call)
{
    struct qy_peer *peer = call->call.peer;
    const struct qy_node *node = peer->node;
    const struct qy_service *service = &node->service;
    void *to = NULL;

    if (service->place) {
        to = service->place(service->ctx, &call->call, &call->code);
        if (call->code != 0) {
            return NULL;
        }
        call->owed = 1;
    }
    if (!to && call->call.payload_bytes > node->call_bytes) {
        qyi_peer_doom(peer, "a question of %zu bytes; at most %zu are taken",
                      call->call.payload_bytes, node->call_bytes);
        return NULL;
    }
    if (!to) { /* as many as calls may be open */
        assert(peer->n_free_buffers > 0);
        call->buffer = peer->free_buffers[--peer->n_free_buffers];
        to = call->buffer;
    }
    call->call.payload = to;
    return to;
}

void *qyi_call_begins(struct qy_peer *peer, const struct qyi_head *head, void **token)
{
    const uint64_t place_of_it = head->id & (QYI_ASKS - 1);
    struct qyi_call *call = peer->free_calls;

    if (place_of_it >= peer->node->depth) {
        qyi_peer_doom(peer, "a question with an id that is none");
        return NULL;
    }
    if (head->id <= peer->last_ids[place_of_it]) {
        return NULL; /* it came before */
    }
    if (!call || peer->n_open >= peer->node->depth) {
        qyi_peer_doom(peer, "more than %u questions at once", (unsigned)peer->node->depth);
        return NULL;
    }
    peer->free_calls = call->next;
    peer->last_ids[place_of_it] = head->id;
    peer->n_open++;
    fill(call, peer, head);
    *token = call;
    return head->payload_bytes > 0 ? place(call) : NULL;
}

/* Says the last word on a call. */
static void reply(struct qyi_call *call, enum qyi_kind kind, uint16_t code)
{
    struct qyi_message *message = &call->out.message;

    message->head.kind = (uint8_t)kind;
    message->head.op = code;
    message->head.id = call->id;
    qyi_node_seal(call->call.peer->node, &message->head, message->payload);
    call->state = QYI_CALL_SENDING;
    qyi_out_send(&call->out);
}

void qyi_call_arrived(struct qyi_call *call, const struct qyi_head *head, const void *payload)
{
    struct qy_peer *peer = call->call.peer;

    if (call->code != 0) {
        peer->n_open--;
        reply(call, QYI_KIND_ANSWER, call->code);
    } else if ((head->payload_bytes > 0 && !payload) ||
               !qyi_node_check_payload(peer->node, head, payload)) {
        peer->n_open--;
        release_buffer(call);
        reply(call, QYI_KIND_DAMAGED, 0);
    } else {
        call->state = QYI_CALL_QUEUED;
        call->next = NULL;
        *peer->queue_end = call;
        peer->queue_end = &call->next;
        peer->node->n_queued++;
    }
}

void qyi_call_sent(struct qyi_call *call)
{
    release(call);
}

/* ---- serving -------------------------------------------------------------------------------------- */

/* Has it a call, and may it have a buffer? Each that has none can have one. Who goes is not served any more. */
static int has_turn(const struct qy_node *node, const struct qy_peer *peer)
{
    /* those that left may still have some */
    const uint32_t kept = node->n_peers > node->n_answered ? node->n_peers - node->n_answered : 0;

    return peer->queue && !peer->doomed && (peer->n_answers == 0 || node->n_free_answers > kept);
}

/* The place of the next peer whose turn it is; n_places: there is none. */
static uint32_t next_turn(const struct qy_node *node)
{
    for (uint32_t i = 0; i < node->n_places; i++) {
        const uint32_t place = (node->turn + i) % node->n_places;
        if (has_turn(node, &node->peers[place])) {
            return place;
        }
    }
    return node->n_places;
}

int qyi_calls_are_due(const struct qy_node *node)
{
    return node->n_queued > 0 && node->n_free_answers > 0 && next_turn(node) < node->n_places;
}

/* The first call of that peer. */
static struct qyi_call *next_call(struct qy_node *node)
{
    const uint32_t place = next_turn(node);
    struct qy_peer *peer = &node->peers[place];
    struct qyi_call *call;

    if (place == node->n_places) {
        return NULL;
    }
    call = peer->queue;
    peer->queue = call->next;
    if (!peer->queue) {
        peer->queue_end = &peer->queue;
    }
    node->turn = (place + 1) % node->n_places;
    return call;
}

uint32_t qyi_calls_serve(struct qy_node *node)
{
    uint32_t n = 0;

    while (node->n_queued > 0 && node->n_free_answers > 0) {
        struct qyi_call *call = next_call(node);
        if (!call) {
            break; /* what is left is of peers that go, or leave the others theirs */
        }
        node->n_queued--;
        call->call.peer->n_open--;
        node->n_answered += call->call.peer->n_answers++ == 0;
        call->answer = node->free_answers[--node->n_free_answers];
        call->call.answer = call->answer;
        call->state = QYI_CALL_SERVING;
        call->owed = 1;
        node->service.serve(node->service.ctx, &call->call);
        if (call->state == QYI_CALL_SERVING) {
            qy_call_refuse(&call->call, "the service gave no answer");
        }
        release_buffer(call);
        n++;
    }
    return n;
}

static struct qyi_call *inside(struct qy_call *call)
{
    return (struct qyi_call *)((char *)call - offsetof(struct qyi_call, call));
}

static int in_answer(const struct qyi_call *call, const void *payload)
{
    const uintptr_t at = (uintptr_t)payload;
    const uintptr_t first = (uintptr_t)call->answer;

    return at >= first && at - first < call->call.peer->node->answer_bytes;
}

void qy_call_answer(struct qy_call *call, uint16_t code, const void *head, size_t head_bytes,
                    const void *payload, size_t payload_bytes)
{
    struct qyi_call *own = inside(call);
    struct qyi_message *message = &own->out.message;

    assert(own->state == QYI_CALL_SERVING && head_bytes <= QY_NET_HEAD_BYTES);
    message->head.head_bytes = (uint16_t)head_bytes;
    if (head_bytes > 0) {
        memcpy(message->head.head, head, head_bytes);
    }
    message->head.payload_bytes = payload_bytes;
    message->payload = payload_bytes > 0 ? payload : NULL;
    if (payload_bytes == 0 || !in_answer(own, payload)) {
        release_answer(own);
    }
    call->answer = NULL;
    reply(own, QYI_KIND_ANSWER, code);
}

void qy_call_refuse(struct qy_call *call, const char *why)
{
    struct qyi_call *own = inside(call);

    qy_log_write(&call->peer->node->rt->log, QY_LOG_WARN, "net", "%s is sent away: %s",
                 call->peer->name, why);
    own->state = QYI_CALL_SENDING; /* until the end of the connection */
    qyi_peer_doom(call->peer, "%s", why);
}
