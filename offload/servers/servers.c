/* SPDX-License-Identifier: Apache-2.0 */
/* The store on memory servers: what waits is dealt out to questions; batches, reset. See servers.h. */
#include "offload/servers/servers_internal.h"

#include <errno.h>
#include <string.h>

static struct qyi_servers *servers_of(struct qyi_store *store)
{
    return (struct qyi_servers *)(void *)store;
}

/* ---- writes ----------------------------------------------------------------------------------- */

void qyi_put_pack(struct qyi_servers_message *m, const struct qyi_store_name *name,
                  const void *data, size_t bytes)
{
    const struct qyi_remote_put put = {.serial = name->serial,
                                       .generation = name->generation,
                                       .sequence = name->sequence,
                                       .block = name->block};

    memcpy(m->request.head, &put, sizeof(put));
    m->request.op = QYI_REMOTE_PUT;
    m->request.head_bytes = sizeof(put);
    m->request.payload = data;
    m->request.payload_bytes = bytes;
}

/* One copy of a block. 0: no message is free. */
static int send_copy(struct qyi_servers *s, struct qyi_store_request *r, uint32_t server)
{
    struct qyi_servers_message *m = qyi_message_take(s, QYI_MESSAGE_PUT, server);

    if (m == NULL) {
        return 0;
    }
    qyi_put_pack(m, &r->name, r->data, r->bytes);
    m->parts[0] = r;
    m->n_parts = 1;
    r->tried |= (uint64_t)1 << server;
    r->left++;
    s->servers[server].free_blocks--;
    qyi_message_send(s, m);
    return 1;
}

/* 1: it waits no more: copies are on their way, or it failed. */
static int start_write(struct qyi_servers *s, struct qyi_store_request *r)
{
    struct qyi_place *place = &s->places[r->slot];

    while (place->n + r->left < s->params.copies) {
        const uint32_t server = qyi_place_choose(s, place, r->tried);

        if (server == UINT32_MAX) {
            break;
        }
        if (!send_copy(s, r, server)) {
            return r->left > 0;
        }
    }
    if (r->left == 0 && place->n == 0 && qyi_place_may_take(s, r->tried)) {
        return 0;
    }
    if (r->left == 0 && place->n == 0) {
        qyi_write_finish(s, r, ENOSPC); /* nobody is there, or all are full */
    } else if (r->left == 0) {
        r->done = r->bytes;
        qyi_write_finish(s, r, 0);
    }
    return 1;
}

void qyi_write_finish(struct qyi_servers *s, struct qyi_store_request *r, int error)
{
    struct qyi_place *place = &s->places[r->slot];
    int look = place->n < s->params.copies;

    for (uint32_t i = 0; i < place->n; i++) {
        look |= s->servers[place->copies[i].server].draining;
    }
    if (look && place->n > 0) {
        qyi_moves_look(s);
    }
    place->writing = 0;
    qyi_store_finish(&s->counts, r, error);
}

/* ---- all that waits --------------------------------------------------------------------------- */

/* Deals out what waits, in its order, as far as there are messages and servers. */
static void deal(struct qyi_servers *s)
{
    struct qyi_servers_message *open[QYI_SERVERS_MOST] = {NULL};
    struct qyi_store_queue waiting = s->waiting;
    struct qyi_store_request *r;

    s->waiting = (struct qyi_store_queue){0};
    while ((r = qyi_store_queue_take(&waiting)) != NULL) {
        const int gone = r->op == QYI_STORE_WRITE ? start_write(s, r) : qyi_servers_ask(s, r, open);

        if (!gone) {
            qyi_store_queue_put(&s->waiting, r);
        }
    }
    qyi_servers_send_open(s, open);
}

static void servers_poll(struct qyi_store *store)
{
    struct qyi_servers *s = servers_of(store);

    qyi_messages_poll(s);
    if (s->waiting.first != NULL && !s->resetting) {
        deal(s);
        qyi_messages_poll(s);
    }
}

/* Of the answer to an ATTEND or SCORE. */
static size_t list_bytes(const struct qyi_servers *s, const struct qyi_store_request *r)
{
    const struct qyi_store_list *l = &r->list;

    return r->op == QYI_STORE_ATTEND
               ? (s->query_floats + s->params.group) * sizeof(float)
               : (size_t)s->params.group * qyi_remote_best(l->k, l->n, s->shift) *
                     (sizeof(uint32_t) + sizeof(float));
}

static int is_valid_list(const struct qyi_servers *s, const struct qyi_store_request *r)
{
    const struct qyi_store_list *l = &r->list;
    const int attends = r->op == QYI_STORE_ATTEND;

    if (l->slots == NULL || l->q == NULL || r->data == NULL || l->n == 0 ||
        l->place >= s->params.n || l->slots[0] != r->slot || r->bytes != list_bytes(s, r) ||
        (attends ? l->ids == NULL || l->lse == NULL : l->k == 0 || s->params.book.bytes == 0)) {
        return 0;
    }
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->slots[i] >= s->n_slots) {
            return 0;
        }
    }
    return 1;
}

static int is_valid(const struct qyi_servers *s, const struct qyi_store_request *r)
{
    if (r->op == QYI_STORE_ATTEND || r->op == QYI_STORE_SCORE) {
        return is_valid_list(s, r);
    }
    if (r->op == QYI_STORE_CHUNK) {
        return qyi_servers_chunk_valid(s, r);
    }
    if (r->slot >= s->n_slots || r->data == NULL || r->bytes == 0 || r->at > s->block_bytes ||
        r->bytes > s->block_bytes - r->at) {
        return 0;
    }
    switch (r->op) {
    case QYI_STORE_READ:
        return s->places[r->slot].n > 0;
    case QYI_STORE_WRITE:
        return r->at == 0 && r->bytes == s->block_bytes;
    case QYI_STORE_ROWS:
        return s->places[r->slot].n > 0 && r->list.ids != NULL && r->list.n > 0 &&
               r->list.n <= r->bytes / sizeof(*r->list.ids) && r->bytes <= s->store.rows_bytes;
    case QYI_STORE_ATTEND:
    case QYI_STORE_CHUNK:
    case QYI_STORE_SCORE:
        break;
    }
    return 0;
}

static enum qy_status servers_submit(struct qyi_store *store, struct qyi_store_batch *batch)
{
    struct qyi_servers *s = servers_of(store);

    if (s->resetting) {
        return QY_ERR_DEVICE;
    }
    for (uint32_t i = 0; i < batch->n; i++) {
        if (!is_valid(s, &batch->requests[i])) {
            return QY_ERR_INVALID;
        }
    }
    for (uint32_t i = 0; i < batch->n; i++) {
        const struct qyi_store_request *r = &batch->requests[i];

        if (r->op == QYI_STORE_WRITE) {
            qyi_moves_forget(s, r->slot);
            s->places[r->slot] = (struct qyi_place){.name = r->name, .writing = 1};
        }
    }
    qyi_store_queue_batch(&s->waiting, batch);
    servers_poll(store);
    return QY_OK;
}

static uint64_t deadline_of(const struct qyi_servers *s, uint64_t timeout_ns)
{
    const uint64_t now = qy_node_now(s->params.node);

    return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

static enum qy_status servers_wait(struct qyi_store *store, const struct qyi_store_batch *batch,
                                   uint64_t timeout_ns)
{
    struct qyi_servers *s = servers_of(store);
    const uint64_t deadline = deadline_of(s, timeout_ns);

    for (;;) {
        servers_poll(store);
        if (batch->n_left == 0) {
            return batch->failed ? QY_ERR_DEVICE : QY_OK;
        }
        if (qy_node_now(s->params.node) >= deadline) {
            return QY_ERR_TIMEOUT;
        }
        qy_node_wait(s->params.node, deadline);
    }
}

/* Is anything under way that names memory of a caller's; all != 0: or of the store's own? */
int qyi_servers_are_busy(const struct qyi_servers *s, int all)
{
    for (uint32_t i = 0; i < s->n_messages; i++) {
        const struct qyi_servers_message *m = &s->messages[i];

        if (m->posted && (all || m->kind >= QYI_MESSAGE_PUT)) {
            return 1;
        }
    }
    return 0;
}

static enum qy_status servers_reset(struct qyi_store *store, uint64_t timeout_ns)
{
    struct qyi_servers *s = servers_of(store);
    const uint64_t deadline = deadline_of(s, timeout_ns);
    struct qyi_store_request *r;

    s->resetting = 1;
    for (;;) {
        while ((r = qyi_store_queue_take(&s->waiting)) != NULL) { /* no copy of it is on its way */
            if (r->op == QYI_STORE_WRITE) {
                qyi_write_finish(s, r, ECANCELED);
            } else {
                qyi_store_finish(&s->counts, r, ECANCELED);
            }
        }
        qyi_messages_poll(s); /* questions have deadlines: they end */
        if (!qyi_servers_are_busy(s, 0) && s->ready == NULL && s->waiting.first == NULL) {
            s->resetting = 0;
            return QY_OK;
        }
        if (qy_node_now(s->params.node) >= deadline) {
            return QY_ERR_TIMEOUT;
        }
        qy_node_wait(s->params.node, deadline);
    }
}

void qyi_server_drop(struct qyi_servers *s, uint32_t server, const struct qyi_store_name *name,
                     uint32_t moved)
{
    struct qyi_server *v = &s->servers[server];

    if (v->n_drops < s->max_drops) { /* else it forgets the block with the session */
        v->drops[v->n_drops++] = (struct qyi_remote_drop){.serial = name->serial,
                                                          .generation = name->generation,
                                                          .sequence = name->sequence,
                                                          .first = name->block,
                                                          .n = 1,
                                                          .moved = moved};
    }
}

static void servers_release(struct qyi_store *store, uint32_t slot)
{
    struct qyi_servers *s = servers_of(store);
    struct qyi_place *place = &s->places[slot];

    qyi_moves_forget(s, slot);
    for (uint32_t i = 0; i < place->n; i++) {
        if (qyi_copy_is_there(s, &place->copies[i])) { /* else it has forgotten the block itself */
            qyi_server_drop(s, place->copies[i].server, &place->name, 0);
        }
    }
    place->n = 0;
}

static struct qyi_store_stats *servers_counts(struct qyi_store *store)
{
    return &servers_of(store)->counts;
}

const struct qyi_store_ops qyi_servers_ops = {.submit = servers_submit,
                                              .poll = servers_poll,
                                              .wait = servers_wait,
                                              .reset = servers_reset,
                                              .release = servers_release,
                                              .where = qyi_servers_where,
                                              .lost = qyi_servers_lost,
                                              .tend = qyi_servers_tend,
                                              .stats = servers_counts,
                                              .close = qyi_servers_close};
