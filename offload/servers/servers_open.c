/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing of the store on memory servers: sessions, memory, counts. See servers.h. */
#include "offload/servers/servers_internal.h"

#include <string.h>

enum { MESSAGES_PER_SERVER = 16 };

static uint32_t n_messages(const struct qyi_servers_params *p)
{
    return p->n * (p->depth < MESSAGES_PER_SERVER ? p->depth : MESSAGES_PER_SERVER);
}

static int open_message(struct qyi_servers *s, struct qyi_servers_message *m)
{
    m->payload = qy_alloc_zero(s->mem, s->params.call_bytes);
    m->reply = qy_alloc_zero(s->mem, s->params.answer_bytes);
    m->parts = qy_alloc_zero(s->mem, s->max_parts * sizeof(struct qyi_store_request *));
    m->next = s->free;
    s->free = m;
    return m->payload == NULL || m->reply == NULL || m->parts == NULL;
}

static int open_messages(struct qyi_servers *s)
{
    int missing = 0;

    s->n_messages = n_messages(&s->params);
    s->messages = qy_alloc_zero(s->mem, s->n_messages * sizeof(*s->messages));
    if (s->messages == NULL) {
        s->n_messages = 0;
        return 1;
    }
    for (uint32_t i = s->n_messages; i-- > 0;) {
        missing |= open_message(s, &s->messages[i]);
    }
    return missing;
}

/* The whole book, piece by piece. */
static enum qy_status tell_book(struct qyi_servers *s, uint32_t i, struct qy_error *err)
{
    struct qyi_server *v = &s->servers[i];
    struct qy_op op;
    struct qy_request request;

    for (int more = s->params.book.bytes > 0; more;) {
        qyi_book_ask(s, i, s->free->payload, &request);
        op = (struct qy_op){0};
        request.counts = &op;
        enum qy_status st = qy_request_post(v->peer, &request);
        st = st == QY_OK ? qy_op_wait(s->params.node, &op) : st;
        more = st == QY_OK ? qyi_book_heard(s, i, &request, request.code) : -1;
        if (more < 0) {
            return qy_error_set(err, st == QY_OK ? QY_ERR_CONFIG : st,
                                "memory server '%s': does not take what it is to score by, %llu "
                                "bytes (%s); look at "
                                "its log, or set retrieval.index_at = worker",
                                qy_peer_name(v->peer), (unsigned long long)s->params.book.bytes,
                                st == QY_OK ? qyi_remote_code_name(request.code)
                                            : qy_status_name(st));
        }
    }
    return QY_OK;
}

/* What a server says to the first OPEN. */
static enum qy_status first_open(struct qyi_servers *s, uint32_t i, uint64_t deadline,
                                 struct qy_error *err)
{
    struct qyi_server *v = &s->servers[i];
    const char *name = qy_peer_name(v->peer);
    struct qy_op op = {0};
    struct qy_request request = {.op = QYI_REMOTE_OPEN,
                                 .payload = s->open_payload,
                                 .payload_bytes = s->open_bytes,
                                 .counts = &op};
    struct qyi_remote_reply reply;
    const uint64_t now = qy_node_now(s->params.node);
    enum qy_status st = qy_peer_wait(v->peer, deadline > now ? deadline - now : 0, err);

    if (st != QY_OK) {
        return qy_error_wrap(err, st, "memory servers");
    }
    st = qy_request_post(v->peer, &request);
    st = st == QY_OK ? qy_op_wait(s->params.node, &op) : st;
    if (st != QY_OK) {
        return qy_error_set(err, st, "memory server '%s': does not answer (%s); look at its log",
                            name, qy_status_name(st));
    }
    if (request.code != QYI_REMOTE_DONE ||
        qyi_remote_reply_parse(request.reply_head, request.reply_head_bytes, &reply) != QY_OK) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "memory server '%s': takes no blocks of %zu bytes from here: %s; use a "
                            "server that is free, or give it more bytes",
                            name, s->block_bytes, qyi_remote_code_name(request.code));
    }
    v->free_blocks = reply.free_blocks;
    v->held_blocks = reply.held_blocks;
    v->draining = reply.draining != 0;
    v->heard_ns = qy_node_now(s->params.node);
    st = tell_book(s, i, err);
    v->incarnation = st == QY_OK ? qy_peer_incarnation(v->peer) : 0;
    return st;
}

static enum qy_status check(const struct qyi_servers_params *p, struct qy_error *err)
{
    if (p->n == 0 || p->n > QYI_SERVERS_MOST || p->copies == 0 || p->copies > QYI_COPIES_MOST ||
        p->copies > p->n || p->depth == 0 || p->call_bytes < sizeof(struct qyi_remote_read) ||
        p->answer_bytes == 0 || (p->book.bytes > 0 && p->call_bytes < QYI_REMOTE_BOOK_CALL)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "memory servers: %u of them, %u copies; 1 to %d servers and 1 to %d "
                            "copies, no more than servers, are accepted",
                            p->n, p->copies, QYI_SERVERS_MOST, QYI_COPIES_MOST);
    }
    return QY_OK;
}

static enum qy_status open_all(struct qyi_servers *s, struct qy_error *err)
{
    const uint64_t deadline = qy_node_now(s->params.node) + s->params.timeout_ns;
    enum qy_status st = QY_OK;

    s->open_bytes = qyi_remote_open_bytes(s->params.layout);
    s->open_payload = qy_alloc_zero(s->mem, s->open_bytes);
    if (s->open_payload == NULL || open_messages(s)) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "memory servers: out of memory for %u messages of %zu bytes",
                            n_messages(&s->params), s->params.answer_bytes);
    }
    qyi_remote_open_pack(s->params.layout, s->params.group, s->params.max_sequences,
                         s->params.max_blocks, s->open_payload);
    for (uint32_t i = 0; st == QY_OK && i < s->params.n; i++) {
        st = first_open(s, i, deadline, err);
    }
    return st;
}

enum qy_status qyi_servers_open(const struct qyi_servers_params *params, struct qyi_store **store,
                                struct qy_error *err)
{
    enum qy_status st = check(params, err);
    if (st != QY_OK) {
        return st;
    }
    struct qyi_servers *s = qy_alloc_zero(&params->rt->mem, sizeof(*s));
    if (s == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "memory servers: out of memory at open");
    }
    s->store = (struct qyi_store){
        .ops = &qyi_servers_ops, .word = "memory servers", .granule = QYI_SERVERS_GRANULE};
    s->params = *params;
    s->mem = &params->rt->mem;
    s->block_bytes = params->layout->block_bytes;
    s->query_floats = params->group * params->layout->head_dim;
    s->n_heads = params->layout->n_kv_heads * params->group;
    s->chunk_floats = s->n_heads * params->layout->head_dim;
    s->shift = params->layout->shift;
    s->store.n_places = params->n;
    s->store.chunk_work = QYI_REMOTE_CHUNK_WORK;
    s->max_parts = (uint32_t)(params->call_bytes / sizeof(struct qyi_remote_read));
    /* a row has more bytes than its id */
    const size_t ids = params->call_bytes - sizeof(struct qyi_remote_item);
    s->store.rows_bytes = ids < params->answer_bytes ? ids : params->answer_bytes;
    for (uint32_t i = 0; i < params->n; i++) {
        s->servers[i].peer = params->peers[i];
        s->servers[i].epoch = 1;
    }
    st = open_all(s, err);
    s->params.layout = NULL; /* both were borrowed */
    s->params.peers = NULL;
    if (st != QY_OK) {
        qyi_servers_close(&s->store);
        return st;
    }
    *store = &s->store;
    return QY_OK;
}

enum qy_status qyi_servers_reserve(struct qyi_store *store, uint32_t n_slots, struct qy_error *err)
{
    struct qyi_servers *s = (struct qyi_servers *)(void *)store;
    int missing = 0;

    s->places = qy_alloc_zero(s->mem, (size_t)n_slots * sizeof(*s->places));
    s->max_drops = 2 * n_slots;
    for (uint32_t i = 0; i < s->params.n; i++) {
        struct qyi_server *v = &s->servers[i];

        v->drops = qy_alloc_zero(s->mem, (size_t)s->max_drops * sizeof(*v->drops));
        missing |= v->drops == NULL;
    }
    missing |= qyi_mover_open(s);
    if (s->places == NULL || missing) {
        return qy_error_set(err, QY_ERR_NOMEM,
                            "memory servers: out of memory for the tables of %u blocks, and for "
                            "those that go from one server to another",
                            n_slots);
    }
    s->n_slots = n_slots;
    s->store.bytes = (uint64_t)n_slots * s->block_bytes;
    return QY_OK;
}

/* Is a server there that was not told of all blocks that are of no use any more? */
static int has_drops(const struct qyi_servers *s)
{
    for (uint32_t i = 0; i < s->params.n; i++) {
        if (qyi_server_has_drops(&s->servers[i])) {
            return 1;
        }
    }
    return 0;
}

void qyi_servers_close(struct qyi_store *store)
{
    struct qyi_servers *s = (struct qyi_servers *)(void *)store;

    while (store->ops->reset(store, UINT64_MAX) != QY_OK) {
        /* what is under way names memory of the caller's */
    }
    /* what was taken until now is given back: the session stays, and may be in the way of others */
    for (uint32_t i = 0; i < s->n_slots; i++) {
        store->ops->release(store, i);
    }
    qyi_messages_poll(s);
    while (qyi_servers_are_busy(s, 1) || has_drops(s)) { /* ends: questions have deadlines */
        qy_node_wait(s->params.node, UINT64_MAX);
        qyi_messages_poll(s);
    }
    for (uint32_t i = 0; i < s->params.n; i++) {
        qy_free(s->mem, s->servers[i].drops);
    }
    for (uint32_t i = 0; i < s->n_messages; i++) {
        qy_free(s->mem, s->messages[i].parts);
        qy_free(s->mem, s->messages[i].reply);
        qy_free(s->mem, s->messages[i].payload);
    }
    qy_free(s->mem, s->messages);
    qy_free(s->mem, s->mover.frames);
    qy_free(s->mem, s->open_payload);
    qy_free(s->mem, s->places);
    qy_free(s->mem, s);
}

uint64_t qyi_servers_room(const struct qyi_store *store)
{
    const struct qyi_servers *s = (const struct qyi_servers *)(const void *)store;
    uint64_t blocks = 0;

    for (uint32_t i = 0; i < s->params.n; i++) {
        blocks += s->servers[i].free_blocks;
    }
    return blocks / s->params.copies;
}

void qyi_servers_stats(const struct qyi_store *store, uint32_t i, struct qyi_servers_stats *stats)
{
    const struct qyi_servers *s = (const struct qyi_servers *)(const void *)store;

    *stats = s->servers[i].stats;
    stats->blocks = s->servers[i].held_blocks;
    stats->free_blocks = s->servers[i].free_blocks;
    stats->draining = s->servers[i].draining;
}

uint32_t qyi_servers_count(const struct qyi_store *store)
{
    return ((const struct qyi_servers *)(const void *)store)->params.n;
}

const struct qy_peer *qyi_servers_peer(const struct qyi_store *store, uint32_t i)
{
    return ((const struct qyi_servers *)(const void *)store)->servers[i].peer;
}
