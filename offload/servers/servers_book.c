/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What servers score index bytes by, told in pieces after each OPEN: a question a piece, one at a time. A server
 * that has it already, from before its link broke, says so to the first. See servers.h.
 */
#include "offload/servers/servers_internal.h"

#include <string.h>

static size_t piece_bytes(const struct qyi_servers *s, uint64_t at)
{
    const uint64_t left = s->params.book.bytes - at;

    return left < s->params.call_bytes ? (size_t)left : s->params.call_bytes;
}

void qyi_book_ask(const struct qyi_servers *s, uint32_t server, uint8_t *payload,
                  struct qy_request *request)
{
    const struct qyi_servers_book *book = &s->params.book;
    const uint64_t at = s->servers[server].book_at;
    const struct qyi_remote_book head = {.hash = book->hash, .bytes = book->bytes, .at = at};

    memset(request, 0, sizeof(*request));
    book->read(book->ctx, at, piece_bytes(s, at), payload);
    memcpy(request->head, &head, sizeof(head));
    request->op = QYI_REMOTE_BOOK;
    request->head_bytes = sizeof(head);
    request->payload = payload;
    request->payload_bytes = piece_bytes(s, at);
}

int qyi_book_heard(struct qyi_servers *s, uint32_t server, const struct qy_request *request,
                   uint16_t code)
{
    struct qyi_server *v = &s->servers[server];

    if (code == QYI_REMOTE_DONE) {
        v->book_at += request->payload_bytes;
    } else if (code == QYI_REMOTE_HELD) {
        v->book_at = s->params.book.bytes;
    } else {
        return -1;
    }
    return v->book_at < s->params.book.bytes;
}
