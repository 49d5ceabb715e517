/* SPDX-License-Identifier: Apache-2.0 */
/* Damage to a good question: every length but its own, and members outside their bounds, are refused. */
#ifndef QY_TESTS_OFFLOAD_WIRE_DAMAGE_H
#define QY_TESTS_OFFLOAD_WIRE_DAMAGE_H

#include "tests/support/test.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef const char *(*parser)(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes);

/* A good question, and a parser of its kind. */
struct question {
    parser parse;
    uint8_t *head, *payload;
    size_t head_bytes, payload_bytes;
};

/* A member of n bytes at `at` of the head or payload, with a value that must be refused. */
struct damage {
    int in_payload;
    size_t at, n;
    uint64_t value;
};

/* What is looked at is in memory of exactly its size: ASan sees a read beyond. */
static inline const char *parse_copy(const struct question *q, size_t head_bytes,
                                     size_t payload_bytes)
{
    uint8_t *head = malloc(head_bytes + 1);
    uint8_t *payload = malloc(payload_bytes + 1);

    assert_non_null(head);
    assert_non_null(payload);
    memset(head, 0, head_bytes + 1);
    memset(payload, 0, payload_bytes + 1);
    head = realloc(head, head_bytes + !head_bytes);
    payload = realloc(payload, payload_bytes + !payload_bytes);
    assert_non_null(head);
    assert_non_null(payload);
    memcpy(head, q->head, head_bytes < q->head_bytes ? head_bytes : q->head_bytes);
    memcpy(payload, q->payload,
           payload_bytes < q->payload_bytes ? payload_bytes : q->payload_bytes);
    const char *wrong = q->parse(head, head_bytes, payload, payload_bytes);
    free(payload);
    free(head);
    return wrong;
}

static inline void refuse_everything(struct question *q, const struct damage *damages, size_t n)
{
    assert_null(parse_copy(q, q->head_bytes, q->payload_bytes));
    for (size_t i = 0; i <= q->head_bytes + 8; i++) {
        assert_int_equal(parse_copy(q, i, q->payload_bytes) != NULL, i != q->head_bytes);
    }
    for (size_t i = 0; i <= q->payload_bytes + 64; i++) {
        assert_int_equal(parse_copy(q, q->head_bytes, i) != NULL, i != q->payload_bytes);
    }
    for (size_t i = 0; i < n; i++) {
        const struct damage *d = &damages[i];
        uint8_t *at = (d->in_payload ? q->payload : q->head) + d->at;
        uint8_t before[8];

        memcpy(before, at, d->n);
        memcpy(at, &d->value, d->n);
        if (!parse_copy(q, q->head_bytes, q->payload_bytes)) {
            fail_msg("damage %zu was not refused", i);
        }
        memcpy(at, before, d->n);
    }
    assert_null(parse_copy(q, q->head_bytes, q->payload_bytes));
}

#define IN_HEAD(type, member, value)                                                               \
    {                                                                                              \
        0, offsetof(type, member), sizeof(((type *)0)->member), value                              \
    }
#define IN_ITEM(i, type, member, value)                                                            \
    {                                                                                              \
        1, (i) * sizeof(type) + offsetof(type, member), sizeof(((type *)0)->member), value         \
    }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
