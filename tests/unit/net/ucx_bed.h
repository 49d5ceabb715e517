/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends of the UCX wire whose sinks count what they are called with. A message is known by its id, its
 * payload follows from it, and every payload lies in memory of its own that is freed as soon as the
 * contract allows: AddressSanitizer sees who touches it later.
 */
#ifndef QY_TESTS_UNIT_NET_UCX_BED_H
#define QY_TESTS_UNIT_NET_UCX_BED_H

#include "net/wire.h"
#include "tests/support/fail_alloc.h"

enum { BED_CONNS = 16 };

struct bed_memory; /* a message that the wire has, or a payload on its way in */

struct bed_end {
    struct fail_alloc heap;
    struct qy_runtime rt;
    void *wire;
    struct qyi_conn *conns[BED_CONNS]; /* in the order in which they came to be */
    uint32_t n_conns;
    int refuses;      /* `accepted` returns 0                                     */
    int drops;        /* `begins` returns NULL                                    */
    uint64_t replies; /* `arrived` sends as many bytes back, with id + replies    */
    uint32_t depth;   /* for bed_open; 0: 16 */
    uint32_t n_accepted, n_connected, n_broke, n_begun, n_arrived, n_sent, n_unsent;
    uint32_t n_wrong; /* payloads that are not what was sent, calls that break the contract */
    uint64_t begun[BED_CONNS], jumps; /* last id of each connection; those that were not the next */
    int dead[BED_CONNS];              /* each connection: `broke` was called */
    uint64_t last_id;                 /* that arrived */
    size_t last_bytes;
    char why[160];     /* of the last `broke` */
    uint32_t n_errors; /* lines of level error in the log */
    char log[1024];    /* the last line that names a variable */
    int in_progress;
    struct bed_memory *out, *in;
};

/* Why no test can run here; NULL: they can. */
const char *bed_no_loopback(void);
/* Zeroes the end, and opens its wire. */
enum qy_status bed_try_open(struct bed_end *end, const char *listen, const char *device,
                            struct qy_error *err);
/* The same, keeping what was set in the end; fails the test when it does not open. */
void bed_open(struct bed_end *end, const char *listen);
/* Closes everything, and checks that nothing went wrong and no memory is left. */
void bed_close(struct bed_end *end);
const char *bed_address(const struct bed_end *end);
/* The new connection is the last of end->conns. */
struct qyi_conn *bed_connect(struct bed_end *end, const char *address);
void bed_close_conn(struct bed_end *end, struct qyi_conn *conn);
/* Those that broke. */
void bed_close_broken(struct bed_end *end);
/* Sends message `id` with a payload of `bytes`. */
enum qy_status bed_send(struct bed_end *end, struct qyi_conn *conn, uint64_t id, size_t bytes);
/* Whether as much is under way as the depth allows: filling a payload for nothing takes long. */
int bed_full(const struct bed_end *end);
uint32_t bed_poll(struct bed_end *end);
/* Polls both (b may be NULL) for so long. */
void bed_poll_for(struct bed_end *a, struct bed_end *b, uint64_t ns);
/* One connection from b to a, told to both. */
void bed_meet(struct bed_end *a, struct bed_end *b);
/* Whether the time for a wait is over: much more than anything takes. */
int bed_late(uint64_t begin_ns);
uint32_t bed_open_files(void);

/* Polls both until the condition holds. */
#define BED_UNTIL(condition, a, b)                                                                 \
    do {                                                                                           \
        const uint64_t bed_begin = qy_clock_ns();                                                  \
        struct bed_end *bed_b = (b);                                                               \
        while (!(condition)) {                                                                     \
            assert_false(bed_late(bed_begin));                                                     \
            bed_poll(a);                                                                           \
            if (bed_b != NULL) {                                                                   \
                bed_poll(bed_b);                                                                   \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#endif
