/* SPDX-License-Identifier: Apache-2.0 */
/* Heads: what is sent is sealed here, and what comes is believed only after it was checked here. What that costs
 * is counted. */
#include "net/node.h"

#include <string.h>

enum {
    /* chosen: such a checksum takes 0.6 us and more, reading the clock twice 40 ns. */
    TIMED_BYTES = 16 << 10,
    /* chosen: of smaller ones each 17th is timed and stands for 17. A prime, as questions and answers, heads
     * and payloads take turns. */
    SAMPLED = 17
};

/* ---- checksums --------------------------------------------------------------------------------- */

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

/* ---- what they cost ------------------------------------------------------------------------------ */

/* The time; 0: this one is not timed. */
static uint64_t begin(struct qy_node *node, uint64_t bytes)
{
    node->checks.bytes += bytes;
    return bytes >= TIMED_BYTES || node->n_small_checks++ % SAMPLED == 0 ? qy_clock_ns() : 0;
}

static void end(struct qy_node *node, uint64_t bytes, uint64_t begun)
{
    if (begun != 0) {
        node->checks.ns += (qy_clock_ns() - begun) * (bytes >= TIMED_BYTES ? 1 : SAMPLED);
    }
}

void qyi_node_seal(struct qy_node *node, struct qyi_head *head, const void *payload)
{
    const uint64_t bytes = sizeof(*head) + head->payload_bytes;
    const uint64_t begun = begin(node, bytes);

    qyi_head_seal(head, payload);
    end(node, bytes, begun);
}

const char *qyi_node_check_head(struct qy_node *node, const struct qyi_head *head)
{
    const uint64_t begun = begin(node, sizeof(*head));
    const char *why = qyi_head_check(head);

    end(node, sizeof(*head), begun);
    node->checks.damaged += why && qyi_head_damaged(head);
    return why;
}

int qyi_node_check_payload(struct qy_node *node, const struct qyi_head *head, const void *payload)
{
    int whole;

    if (payload && head->payload_bytes > 0) {
        const uint64_t begun = begin(node, head->payload_bytes);
        whole = qyi_payload_check(head, payload);
        end(node, head->payload_bytes, begun);
    } else { /* nothing to read */
        whole = qyi_payload_check(head, payload);
    }
    node->checks.damaged += !whole;
    return whole;
}

void qy_node_checks(const struct qy_node *node, struct qy_node_checks *checks)
{
    *checks = node->checks;
}
