/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake as pure functions; see hello.h. Its messages are structs without padding, little endian. */
#include "net/hello.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum type { ASKS = 1, ANSWERS, PROVES, WELCOMES, REFUSES };
enum reason { NOT_ACCEPTED = 1, OTHER_PROTOCOL };
enum { VERSION_BYTES = 16, LABEL_BYTES = 16 };

struct asks {
    uint32_t type, protocol;
    char version[VERSION_BYTES];
    uint64_t incarnation;
    uint8_t session[QY_NET_SESSION_BYTES], nonce[QYI_NONCE_BYTES];
};

struct answers {
    uint32_t type, protocol;
    char version[VERSION_BYTES];
    uint64_t incarnation;
    uint8_t nonce[QYI_NONCE_BYTES];
    uint8_t proof[QYI_PROOF_BYTES]; /* last: of everything before it */
};

struct proves {
    uint32_t type, zero;
    uint8_t proof[QYI_PROOF_BYTES];
};

struct welcomes {
    uint32_t type, depth;
    uint64_t call_bytes, answer_bytes;
    uint8_t proof[QYI_PROOF_BYTES]; /* last */
};

struct refuses {
    uint32_t type, reason, protocol, zero;
    char version[VERSION_BYTES];
};

_Static_assert(sizeof(struct asks) == 80, "no padding");
_Static_assert(sizeof(struct answers) == 96, "no padding");
_Static_assert(sizeof(struct proves) == 40, "no padding");
_Static_assert(sizeof(struct welcomes) == 56, "no padding");
_Static_assert(sizeof(struct refuses) == 32, "no padding");
_Static_assert(QYI_PROOF_BYTES == crypto_auth_hmacsha256_BYTES, "HMAC-SHA256");
/* Messages 1 and 2, as far as both sides can know them before the first proof. */
enum { SAID_BYTES = sizeof(struct asks) + sizeof(struct answers) - QYI_PROOF_BYTES };

void qyi_random(void *to, size_t bytes)
{
    /* Any number of times, from any thread. Only faster code depends on it: randomness and HMAC do not. */
    const int ready = sodium_init();

    (void)ready;
    randombytes_buf(to, bytes);
}

/* HMAC(key, label, messages 1 and 2, more). */
static void prove(const struct qyi_hello *hello, const uint8_t *key, const char *label,
                  const void *more, size_t more_bytes, uint8_t *proof)
{
    crypto_auth_hmacsha256_state state;
    char padded[LABEL_BYTES] = {0};

    (void)snprintf(padded, sizeof(padded), "%s", label);
    crypto_auth_hmacsha256_init(&state, key, QY_NET_KEY_BYTES);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)padded, sizeof(padded));
    crypto_auth_hmacsha256_update(&state, hello->said, SAID_BYTES);
    if (more_bytes > 0) {
        crypto_auth_hmacsha256_update(&state, more, more_bytes);
    }
    crypto_auth_hmacsha256_final(&state, proof);
    sodium_memzero(&state, sizeof(state));
}

static int proven(const struct qyi_hello *hello, const uint8_t *key, const char *label,
                  const void *more, size_t more_bytes, const uint8_t *proof)
{
    uint8_t expected[QYI_PROOF_BYTES];

    prove(hello, key, label, more, more_bytes, expected);
    return sodium_memcmp(expected, proof, sizeof(expected)) == 0;
}

/* What somebody else calls his version, fit to be printed. */
static void printable(const char *version, char *out)
{
    size_t n = 0;

    for (; n < VERSION_BYTES - 1 && version[n] > ' ' && version[n] < 127; n++) {
        out[n] = version[n];
    }
    out[n] = '\0';
}

static size_t refuse(struct qyi_hello *hello, enum reason reason, uint8_t *out)
{
    struct refuses message = {.type = REFUSES, .reason = reason, .protocol = QY_NET_PROTOCOL};

    hello->stage = QYI_HELLO_REFUSED;
    (void)snprintf(message.version, sizeof(message.version), "%s", QY_VERSION);
    memcpy(out, &message, sizeof(message));
    return sizeof(message);
}

static size_t refuse_proof(struct qyi_hello *hello, uint8_t *out)
{
    (void)snprintf(hello->why, sizeof(hello->why),
                   "it does not prove that it knows this job's key; give both the same key");
    return refuse(hello, NOT_ACCEPTED, out);
}

static size_t refuse_protocol(struct qyi_hello *hello, uint32_t protocol, const char *version,
                              uint8_t *out)
{
    char theirs[VERSION_BYTES];

    printable(version, theirs);
    (void)snprintf(
        hello->why, sizeof(hello->why),
        "it speaks protocol %u (version '%s'), this is protocol %d (version '%s'); run the same "
        "version on both",
        (unsigned)protocol, theirs, QY_NET_PROTOCOL, QY_VERSION);
    return refuse(hello, OTHER_PROTOCOL, out);
}

static size_t refused(struct qyi_hello *hello, const uint8_t *in, uint8_t *out)
{
    struct refuses message;

    memcpy(&message, in, sizeof(message));
    if (message.reason == OTHER_PROTOCOL) {
        (void)refuse_protocol(hello, message.protocol, message.version, out);
    } else {
        (void)refuse(hello, NOT_ACCEPTED, out);
        (void)snprintf(hello->why, sizeof(hello->why),
                       "it does not accept that we know the job's key; give both the same key");
    }
    return 0; /* a refusal is not answered */
}

void qyi_hello_open(struct qyi_hello *hello, int asks, const struct qyi_identity *mine,
                    const struct qyi_terms *terms)
{
    memset(hello, 0, sizeof(*hello));
    hello->asks = asks;
    hello->mine = *mine;
    if (terms) {
        hello->terms = *terms;
    }
    qyi_random(hello->nonces[asks ? 0 : 1], QYI_NONCE_BYTES);
}

size_t qyi_hello_begin(struct qyi_hello *hello, uint8_t *out)
{
    struct asks message = {
        .type = ASKS, .protocol = QY_NET_PROTOCOL, .incarnation = hello->mine.incarnation};

    (void)snprintf(message.version, sizeof(message.version), "%s", QY_VERSION);
    memcpy(message.session, hello->mine.session, sizeof(message.session));
    memcpy(message.nonce, hello->nonces[0], sizeof(message.nonce));
    memcpy(hello->said, &message, sizeof(message));
    memcpy(out, &message, sizeof(message));
    hello->stage = QYI_HELLO_ASKED;
    return sizeof(message);
}

/* Message 1 at the answerer. */
static size_t take_asks(struct qyi_hello *hello, const uint8_t *key, const uint8_t *in,
                        uint8_t *out)
{
    struct answers message = {
        .type = ANSWERS, .protocol = QY_NET_PROTOCOL, .incarnation = hello->mine.incarnation};
    struct asks asks;

    memcpy(&asks, in, sizeof(asks));
    if (asks.protocol != QY_NET_PROTOCOL) {
        return refuse_protocol(hello, asks.protocol, asks.version, out);
    }
    hello->theirs.incarnation = asks.incarnation;
    memcpy(hello->theirs.session, asks.session, sizeof(asks.session));
    memcpy(hello->nonces[0], asks.nonce, sizeof(asks.nonce));
    (void)snprintf(message.version, sizeof(message.version), "%s", QY_VERSION);
    memcpy(message.nonce, hello->nonces[1], sizeof(message.nonce));
    memcpy(hello->said, &asks, sizeof(asks));
    memcpy(hello->said + sizeof(asks), &message, SAID_BYTES - sizeof(asks));
    prove(hello, key, "answerer", NULL, 0, message.proof);
    memcpy(out, &message, sizeof(message));
    hello->stage = QYI_HELLO_ASKED;
    return sizeof(message);
}

/* Message 2 at the asker. */
static size_t take_answers(struct qyi_hello *hello, const uint8_t *key, const uint8_t *in,
                           uint8_t *out)
{
    struct proves message = {.type = PROVES};
    struct answers answers;

    memcpy(&answers, in, sizeof(answers));
    if (answers.protocol != QY_NET_PROTOCOL) {
        return refuse_protocol(hello, answers.protocol, answers.version, out);
    }
    memcpy(hello->said + sizeof(struct asks), &answers, SAID_BYTES - sizeof(struct asks));
    if (!proven(hello, key, "answerer", NULL, 0, answers.proof) || answers.incarnation == 0) {
        return refuse_proof(hello, out);
    }
    hello->theirs.incarnation = answers.incarnation;
    memcpy(hello->nonces[1], answers.nonce, sizeof(answers.nonce));
    prove(hello, key, "asker", NULL, 0, message.proof);
    memcpy(out, &message, sizeof(message));
    hello->stage = QYI_HELLO_PROVED;
    return sizeof(message);
}

/* Message 3 at the answerer. */
static size_t take_proves(struct qyi_hello *hello, const uint8_t *key, const uint8_t *in,
                          uint8_t *out)
{
    struct welcomes message = {.type = WELCOMES,
                               .depth = hello->terms.depth,
                               .call_bytes = hello->terms.call_bytes,
                               .answer_bytes = hello->terms.answer_bytes};
    struct proves proves;

    memcpy(&proves, in, sizeof(proves));
    if (proves.zero != 0 || !proven(hello, key, "asker", NULL, 0, proves.proof) ||
        hello->theirs.incarnation == 0) {
        return refuse_proof(hello, out);
    }
    prove(hello, key, "welcome", &message, sizeof(message) - QYI_PROOF_BYTES, message.proof);
    memcpy(out, &message, sizeof(message));
    hello->stage = QYI_HELLO_DONE;
    return sizeof(message);
}

/* Message 4 at the asker. */
static size_t take_welcomes(struct qyi_hello *hello, const uint8_t *key, const uint8_t *in,
                            uint8_t *out)
{
    struct welcomes welcomes;

    memcpy(&welcomes, in, sizeof(welcomes));
    if (!proven(hello, key, "welcome", &welcomes, sizeof(welcomes) - QYI_PROOF_BYTES,
                welcomes.proof) ||
        welcomes.depth == 0) {
        return refuse_proof(hello, out);
    }
    hello->terms = (struct qyi_terms){.call_bytes = welcomes.call_bytes,
                                      .answer_bytes = welcomes.answer_bytes,
                                      .depth = welcomes.depth};
    hello->stage = QYI_HELLO_DONE;
    return 0;
}

size_t qyi_hello_take(struct qyi_hello *hello, const uint8_t *key, const uint8_t *in, size_t bytes,
                      uint8_t *out)
{
    uint32_t type = 0;

    if (hello->stage == QYI_HELLO_REFUSED) {
        return 0;
    }
    if (bytes >= sizeof(type)) {
        memcpy(&type, in, sizeof(type));
    }
    if (type == REFUSES && bytes == sizeof(struct refuses) && hello->stage != QYI_HELLO_DONE) {
        return refused(hello, in, out);
    }
    switch (hello->stage) {
    case QYI_HELLO_NEW:
        if (!hello->asks && type == ASKS && bytes == sizeof(struct asks)) {
            return take_asks(hello, key, in, out);
        }
        break;
    case QYI_HELLO_ASKED:
        if (hello->asks && type == ANSWERS && bytes == sizeof(struct answers)) {
            return take_answers(hello, key, in, out);
        }
        if (!hello->asks && type == PROVES && bytes == sizeof(struct proves)) {
            return take_proves(hello, key, in, out);
        }
        break;
    case QYI_HELLO_PROVED:
        if (type == WELCOMES && bytes == sizeof(struct welcomes)) {
            return take_welcomes(hello, key, in, out);
        }
        break;
    case QYI_HELLO_DONE:
    case QYI_HELLO_REFUSED:
        break;
    }
    (void)snprintf(hello->why, sizeof(hello->why), "it says something that is no part of a hello");
    return refuse(hello, NOT_ACCEPTED, out);
}
