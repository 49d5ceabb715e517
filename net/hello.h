/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How two nodes meet: each proves that it knows the job's key, without saying it. Private to net/.
 *
 *   1  asker -> answerer   its session, incarnation, version, a nonce
 *   2  answerer -> asker   its incarnation, version, a nonce, HMAC(key, "answerer", 1 and 2)
 *   3  asker -> answerer   HMAC(key, "asker", 1 and 2)
 *   4  answerer -> asker   welcome: the depth and sizes it accepts; or a refusal with its reason
 *
 * Both nonces are in both codes, so nothing recorded before can be played again, and the labels differ,
 * so no side's proof is the other's. Codes are compared in constant time. What fails is answered by one
 * refusal that does not say how near it was. Pure functions: messages in, messages out; no clock, no
 * connection. Randomness and HMAC are libsodium's.
 */
#ifndef QYI_NET_HELLO_H
#define QYI_NET_HELLO_H

#include "net/wire.h"

enum { QYI_NONCE_BYTES = 32, QYI_PROOF_BYTES = 32, QYI_HELLO_BYTES = 256 };

struct qyi_identity {
    uint64_t incarnation;
    uint8_t session[QY_NET_SESSION_BYTES];
};

/* What the answerer accepts. */
struct qyi_terms {
    uint64_t call_bytes, answer_bytes;
    uint32_t depth;
};

enum qyi_hello_stage {
    QYI_HELLO_NEW,
    QYI_HELLO_ASKED,  /* asker: 1 was sent; answerer: 2 was sent */
    QYI_HELLO_PROVED, /* asker: 3 was sent                      */
    QYI_HELLO_DONE,   /* both know each other                   */
    QYI_HELLO_REFUSED /* `why` says what is wrong, for people   */
};

struct qyi_hello {
    enum qyi_hello_stage stage;
    int asks; /* which side this is */
    struct qyi_identity mine, theirs;
    struct qyi_terms terms; /* of the answerer */
    uint8_t nonces[2][QYI_NONCE_BYTES];
    uint8_t said[2 * QYI_HELLO_BYTES]; /* messages 1 and 2, as they were sent */
    char why[160];
};

/* Random bytes from the system. [any] */
void qyi_random(void *to, size_t bytes);
void qyi_hello_open(struct qyi_hello *hello, int asks, const struct qyi_identity *mine,
                    const struct qyi_terms *terms);
/* The first message, of the asker. out [QYI_HELLO_BYTES]; how many bytes. */
size_t qyi_hello_begin(struct qyi_hello *hello, uint8_t *out);
/* A message has come: the stage moves, and out gets what is to be sent now; 0: nothing. key
 * [QY_NET_KEY_BYTES]. Any bytes are accepted as input, and refused. */
size_t qyi_hello_take(struct qyi_hello *hello, const uint8_t *key, const uint8_t *in, size_t bytes,
                      uint8_t *out);

#endif
