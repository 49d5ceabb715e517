/* SPDX-License-Identifier: Apache-2.0 */
/* Heads: what is sent is sealed here, and what comes is believed only after it was checked here. */
#include "net/node.h"

#include <string.h>

static uint32_t head_sum(const struct qyi_head *head)
{
    struct qyi_head copy = *head;

    copy.head_sum = 0;
    return (uint32_t)qy_checksum(&copy, sizeof(copy), 0);
}

static uint64_t payload_sum(const struct qyi_head *head, const void *payload)
{
    return head->payload_bytes ? qy_checksum(payload, head->payload_bytes, head->id) : 0;
}

void qyi_head_seal(struct qyi_head *head, const void *payload)
{
    head->magic = QYI_NET_MAGIC;
    head->protocol = QY_NET_PROTOCOL;
    head->zero = 0;
    head->sum = payload_sum(head, payload);
    head->head_sum = head_sum(head);
}

int qyi_head_damaged(const struct qyi_head *head)
{
    return head->magic != QYI_NET_MAGIC || head->head_sum != head_sum(head);
}

const char *qyi_head_check(const struct qyi_head *head)
{
    if (qyi_head_damaged(head)) {
        return "a message came damaged, or is not of our protocol";
    }
    /* A hello may be of another protocol: it is answered by a refusal that says so. */
    if (head->kind != QYI_KIND_HELLO && head->protocol != QY_NET_PROTOCOL) {
        return "a message of another protocol";
    }
    if (head->zero != 0 || head->head_bytes > QY_NET_HEAD_BYTES) {
        return "a message with a head of wrong form";
    }
    switch (head->kind) {
    case QYI_KIND_HELLO:
        return head->payload_bytes == 0 || head->payload_bytes > QYI_HELLO_BYTES
                   ? "a hello of wrong size"
                   : NULL;
    case QYI_KIND_ASK:
    case QYI_KIND_ANSWER:
        return NULL;
    case QYI_KIND_PING:
    case QYI_KIND_PONG:
    case QYI_KIND_DAMAGED:
        return head->payload_bytes != 0 || head->head_bytes != 0 ? "a ping of wrong size" : NULL;
    default:
        return "a message of unknown kind";
    }
}

int qyi_payload_check(const struct qyi_head *head, const void *payload)
{
    return (!payload && head->payload_bytes) || head->sum == payload_sum(head, payload);
}
