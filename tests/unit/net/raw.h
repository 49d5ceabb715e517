/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node that says what a test wants it to say: the wire of a fabric without the rules of a node. It can
 * greet as it should (raw_greet, or as the one who is connected to), and then anything may follow.
 */
#ifndef QY_TESTS_UNIT_NET_RAW_H
#define QY_TESTS_UNIT_NET_RAW_H

#include "tests/unit/net/net_bed.h"

#include "net/hello.h"

struct raw_out;

struct raw {
    struct bed *bed;
    void *wire;
    struct qyi_conn *conn;
    struct qyi_hello hello;
    uint8_t hello_in[QYI_HELLO_BYTES];
    int connected, broken, refused; /* what happened to the connection */
    uint32_t n_said, depth;         /* depth: what it accepts          */
    uint32_t n_kind[8];             /* messages that came              */
    struct qyi_head last;           /* of these                        */
    int early;                      /* answers a question when it begins, before it has read it */
    uint8_t in[50000];              /* where payloads of questions go              */
    struct raw_out *outs;
};

/* listen: the address it listens at; NULL: `name` is only what it is called. */
void raw_open(struct raw *raw, struct bed *bed, const char *name, const char *listen);
void raw_connect(struct raw *raw, const char *address);
/* Until nothing happens; then also for ns of the fabric's time. */
void raw_run(struct raw *raw, uint64_t ns);
/* Says its hello, with the bed's key; afterwards raw->hello.stage is QYI_HELLO_DONE. */
void raw_greet(struct raw *raw);
/* A message, sealed as it should be; payload [head->payload_bytes] is copied. */
void raw_say(struct raw *raw, struct qyi_head head, const void *payload);
/* The same, as it is: sums and magic are the caller's. */
void raw_say_as_is(struct raw *raw, const struct qyi_head *head, const void *payload);
void raw_close(struct raw *raw);

#endif
