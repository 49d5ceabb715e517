/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any messages into a node: before the hello, after it, and as the answers of somebody it asks. Nothing of
 * them is followed further than its rules allow, what the service was given it gets back, and a peer that
 * keeps to the rules is served before and after.
 *
 * Input: a byte (bit 0: the hello is said first; bit 1: we are asked instead of asking), then records:
 * what to do (bit 0: seal it; bit 1: let it arrive; bit 2: let time pass; bit 3: claim a kind that fits; bit
 * 4: damage the payload), the head's fields, and how much of the rest is payload.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/net/raw.h"

#include "net/node.h"

#include <stdlib.h>
#include <string.h>

const unsigned fuzz_replays = 250;

enum { GREETED = 1, ASKED = 2, SEAL = 1, ARRIVE = 2, PASS = 4, FITS = 8, DAMAGE = 16 };

struct record {
    uint8_t what, kind, head_bytes, zero;
    uint16_t op, payload_bytes;
    uint64_t id;
    struct bed_ask ask;
};
_Static_assert(sizeof(struct record) == 32, "no padding");

static void say(struct raw *raw, const struct record *r, const uint8_t *payload, int asked)
{
    struct qyi_head head = {.magic = QYI_NET_MAGIC,
                            .protocol = QY_NET_PROTOCOL,
                            .kind = r->kind,
                            .op = r->op,
                            .id = r->id,
                            .payload_bytes = r->payload_bytes,
                            .head_bytes = r->head_bytes,
                            .zero = r->zero};
    uint8_t *copy = malloc(r->payload_bytes + 1U);

    if (!copy) {
        abort();
    }
    if (r->payload_bytes > 0) {
        memcpy(copy, payload, r->payload_bytes);
    }
    memcpy(head.head, &r->ask, sizeof(r->ask));
    if (r->what & FITS) {
        head.kind = asked ? QYI_KIND_ANSWER : QYI_KIND_ASK;
        head.op = r->op % 8;
        head.id = asked ? raw->last.id : r->id;
        head.head_bytes = r->head_bytes % (QY_NET_HEAD_BYTES + 1);
    }
    if (r->what & SEAL) {
        qyi_head_seal(&head, copy);
    }
    if ((r->what & DAMAGE) && r->payload_bytes > 0) {
        copy[r->id % r->payload_bytes] ^= 1;
    }
    raw_say_as_is(raw, &head, copy);
    free(copy);
}

static void say_all(struct raw *raw, const uint8_t *data, size_t n, int asked)
{
    size_t at = 0;

    while (n - at >= sizeof(struct record) && raw->conn && !raw->broken) {
        struct record r;
        memcpy(&r, data + at, sizeof(r));
        at += sizeof(r);
        if (r.payload_bytes > n - at) {
            r.payload_bytes = (uint16_t)(n - at);
        }
        say(raw, &r, data + at, asked);
        at += r.payload_bytes;
        if (r.what & ARRIVE) {
            raw_run(raw, r.what & PASS ? BED_TIMEOUT_MS * BED_MS / 4 : 0);
        }
    }
    raw_run(raw, 0);
}

/* Somebody asks a server whatever he likes. */
static void ask_a_server(struct bed *bed, const uint8_t *data, size_t n, int greeted)
{
    struct bed_server server;
    struct raw raw;

    bed_server_open(bed, &server, "s");
    struct qy_node *client = bed_client(bed, "c");
    struct qy_peer *peer = bed_connect(client, "s");
    bed_get_works(client, peer, 0, 10);
    raw_open(&raw, bed, "raw", NULL);
    raw_connect(&raw, "s");
    if (greeted) {
        raw_greet(&raw);
    }
    say_all(&raw, data, n, 0);
    if (qy_peer_state(peer) != QY_PEER_UP) {
        abort();
    }
    struct qy_request r;
    bed_ask(&r, BED_CODE, 3, 0); /* the store may have been written to */
    if (bed_try(peer, client, &r) != QY_OK || r.code != 3) {
        abort();
    }
    raw_close(&raw);
    bed_pass(client, BED_MS);
    qy_node_close(client);
    bed_server_close(&server); /* counts what was given back */
}

/* Somebody answers whatever he likes. */
static void answer_a_client(struct bed *bed, const uint8_t *data, size_t n)
{
    uint8_t *replies = malloc((size_t)4 * 1000);
    struct qy_request *r = calloc(4, sizeof(*r));
    struct qy_op op = {0};
    struct raw raw;

    if (!replies || !r) {
        abort();
    }
    raw_open(&raw, bed, "raw", "raw");
    struct qy_node *client = bed_client(bed, "c");
    struct qy_peer *peer = bed_connect(client, "raw");
    for (size_t i = 0; i < 4; i++) {
        bed_ask(&r[i], BED_GET, i, 1000);
        r[i].reply = replies + i * 1000;
        r[i].reply_capacity = 1000;
        r[i].counts = &op;
        if (qy_request_post(peer, &r[i]) != QY_OK) {
            abort();
        }
    }
    raw_run(&raw, 0);
    say_all(&raw, data, n, 1);
    const enum qy_status status = qy_op_wait(client, &op); /* whatever it is */
    for (size_t i = 0; i < 4; i++) {
        if (r[i].status == QY_PENDING || r[i].reply_bytes > 1000 ||
            (status == QY_OK && r[i].status != QY_OK)) {
            abort();
        }
    }
    free(r); /* nobody touches them any more */
    free(replies);
    bed_pass(client, BED_MS);
    qy_node_close(client);
    raw_close(&raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct bed bed;

    if (n == 0) {
        return 0;
    }
    bed_open(&bed, NULL);
    if (data[0] & ASKED) {
        answer_a_client(&bed, data + 1, n - 1);
    } else {
        ask_a_server(&bed, data + 1, n - 1, data[0] & GREETED);
    }
    bed_close(&bed);
    return 0;
}

uint8_t *fuzz_seed(size_t i, size_t *n)
{
    enum { RECORDS = 10, PAYLOAD = 100 };
    static const uint8_t modes[] = {0, GREETED, GREETED, ASKED};
    const size_t step = sizeof(struct record) + PAYLOAD;

    if (i >= sizeof(modes)) {
        return NULL;
    }
    *n = 1 + RECORDS * step;
    uint8_t *seed = calloc(1, *n);
    if (!seed) {
        abort();
    }
    seed[0] = modes[i];
    for (size_t k = 0; k < RECORDS; k++) {
        const struct record r = {.what =
                                     (uint8_t)(SEAL | (i == 2 ? 0 : ARRIVE) | (i == 0 ? 0 : FITS) |
                                               (k % 4 == 3 ? DAMAGE : 0) | (k == 8 ? PASS : 0)),
                                 .kind = (uint8_t)(1 + k % 6),
                                 .head_bytes = sizeof(struct bed_ask),
                                 .op = (uint16_t)(1 + k % 4),
                                 .payload_bytes = PAYLOAD,
                                 .id = 64 * (k + 1) + k % BED_DEPTH,
                                 .ask = {.at = 50 * k, .bytes = PAYLOAD}};
        memcpy(seed + 1 + k * step, &r, sizeof(r));
        memset(seed + 1 + k * step + sizeof(r), (int)k, PAYLOAD);
    }
    return seed;
}
