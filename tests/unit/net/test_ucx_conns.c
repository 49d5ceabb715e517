/* SPDX-License-Identifier: Apache-2.0 */
/* Connections over UCX: made, refused, closed with much under way, and a thousand times. */
#include "tests/support/test.h"
#include "tests/unit/net/ucx_bed.h"

#include "net/ucx.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct qyi_wire_ops *ops = &qyi_wire_ucx;

static void both_ends_are_told_once(void **state)
{
    struct bed_end a = {0}, b = {0};

    (void)state;
    bed_open(&a, "localhost:0");
    bed_open(&b, NULL);
    bed_meet(&a, &b);
    bed_poll_for(&a, &b, 20000000);
    assert_int_equal(a.n_accepted, 1);
    assert_int_equal(b.n_connected, 1);
    bed_close_conn(&b, b.conns[0]);
    BED_UNTIL(a.n_broke == 1, &a, &b);
    bed_poll_for(&a, &b, 20000000);
    assert_int_equal(a.n_broke, 1);
    assert_int_equal(b.n_broke, 0);
    assert_int_equal(bed_send(&a, a.conns[0], 1, 8), QY_ERR_PEER);
    bed_close(&b);
    bed_close(&a);
}

/* An IPv6 address of this host that is more than the link's or the loopback device's; 0: there is none. */
static int global_ipv6(char out[QY_NET_ADDRESS_BYTES])
{
    struct ifaddrs *list = NULL;
    char host[INET6_ADDRSTRLEN];
    int found = 0;

    assert_int_equal(getifaddrs(&list), 0);
    for (const struct ifaddrs *i = list; i != NULL && !found; i = i->ifa_next) {
        const struct sockaddr_in6 *at = (const struct sockaddr_in6 *)i->ifa_addr;

        if (at != NULL && at->sin6_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(&at->sin6_addr) &&
            !IN6_IS_ADDR_LINKLOCAL(&at->sin6_addr) && (i->ifa_flags & IFF_RUNNING) != 0 &&
            inet_ntop(AF_INET6, &at->sin6_addr, host, sizeof(host)) != NULL) {
            snprintf(out, QY_NET_ADDRESS_BYTES, "[%s]:0", host);
            found = 1;
        }
    }
    freeifaddrs(list);
    return found;
}

static void ends_meet_over_ipv6_where_the_user_chose_it(void **state)
{
    struct bed_end a, b = {0};
    char address[QY_NET_ADDRESS_BYTES];
    struct qyi_conn *conn;
    struct qy_error err;

    (void)state;
    assert_int_equal(bed_try_open(&a, "[::1]:0", NULL, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "UCX_TCP_AF_PRIO"));
    if (!global_ipv6(address)) {
        skip(); /* UCX does not take the loopback device's */
    }
    setenv("UCX_TCP_AF_PRIO", "inet6", 1);
    assert_int_equal(bed_try_open(&a, address, NULL, &err), QY_OK);
    bed_open(&b, NULL);
    unsetenv("UCX_TCP_AF_PRIO");
    assert_int_equal(ops->connect(b.wire, bed_address(&a), NULL, &conn, &err), QY_ERR_CONFIG);
    setenv("UCX_TCP_AF_PRIO", "inet6", 1);
    bed_meet(&a, &b);
    assert_int_equal(bed_send(&b, b.conns[0], 1, 100000), QY_OK);
    BED_UNTIL(a.n_arrived == 1, &a, &b);
    bed_close(&b);
    bed_close(&a);
    unsetenv("UCX_TCP_AF_PRIO");
}

static void nobody_listening_breaks_the_connection(void **state)
{
    struct bed_end a = {0}, b = {0};
    char address[QY_NET_ADDRESS_BYTES];

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    snprintf(address, sizeof(address), "%s", bed_address(&a));
    bed_close(&a);
    bed_open(&b, NULL);
    bed_connect(&b, address);
    assert_int_equal(bed_send(&b, b.conns[0], 1, 100), QY_OK);
    BED_UNTIL(b.n_broke == 1 && b.n_unsent == 1, &b, NULL);
    assert_int_equal(b.n_connected, 0);
    assert_string_equal(b.why, "nobody listens there");
    bed_close(&b);
}

/* UCX has one word for all that does not connect; what this host says of a port is what is asked for. */
static void refusal_is_known_from_who_listens_and_from_silence(void **state)
{
    struct qyi_ucx_address to = {.bytes = sizeof(struct sockaddr_in)};
    struct sockaddr_in *at = (struct sockaddr_in *)&to.at;
    const struct qyi_ucx_address nowhere = {.bytes = 0};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t bytes = sizeof(*at);

    (void)state;
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof(*at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)at, &bytes), 0);
    assert_true(qyi_ucx_is_refused(&to)); /* bound, and nobody listens */
    assert_int_equal(listen(fd, 1), 0);
    assert_false(qyi_ucx_is_refused(&to)); /* nobody answers either: that is for deadlines */
    close(fd);
    assert_false(qyi_ucx_is_refused(&nowhere));
}

static void refused_connection_breaks_at_who_asked(void **state)
{
    struct bed_end a = {.refuses = 1}, b = {0};

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    bed_connect(&b, bed_address(&a));
    BED_UNTIL(b.n_broke == 1, &a, &b);
    assert_int_equal(b.n_connected, 0);
    assert_string_equal(b.why, "it has no room for one more connection");
    bed_close_conn(&b, b.conns[0]);
    a.refuses = 0;
    bed_meet(&a, &b);
    bed_close(&b);
    bed_close(&a);
}

static void no_more_connections_than_reserved(void **state)
{
    struct bed_end a = {0}, b = {0}, c = {0};
    struct qyi_conn *conn;
    struct qy_error err;

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    bed_open(&c, NULL);
    for (int i = 0; i < BED_CONNS; i++) {
        bed_meet(&a, &b);
    }
    assert_int_equal(ops->connect(b.wire, bed_address(&a), NULL, &conn, &err), QY_ERR_NOMEM);
    bed_connect(&c, bed_address(&a));
    BED_UNTIL(c.n_broke == 1, &a, &c);
    bed_close_conn(&b, b.conns[3]);
    BED_UNTIL(a.n_broke == 1, &a, &b);
    bed_close_conn(&a,
                   a.conns[3]); /* whichever broke: the wire does not tell, and one is free again */
    bed_close_conn(&c, c.conns[0]);
    bed_meet(&a, &c);
    bed_close(&c);
    bed_close(&b);
    bed_close(&a);
}

static void listener_comes_back_on_its_port(void **state)
{
    struct bed_end a = {0}, b = {0};
    char address[QY_NET_ADDRESS_BYTES];

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    snprintf(address, sizeof(address), "%s", bed_address(&a));
    for (int i = 0; i < 5;
         i++) { /* who closes first keeps the port in TIME_WAIT: the listener does */
        bed_meet(&a, &b);
        assert_int_equal(bed_send(&b, b.conns[0], 1, 64), QY_OK);
        BED_UNTIL(a.n_arrived == 1, &a, &b);
        bed_close(&a);
        BED_UNTIL(b.n_broke == (uint32_t)i + 1, &b, NULL);
        bed_close_conn(&b, b.conns[0]);
        a = (struct bed_end){0};
        bed_open(&a, address);
        assert_string_equal(bed_address(&a), address);
    }
    bed_close(&b);
    bed_close(&a);
}

static void close_gives_up_what_is_sent(void **state)
{
    struct bed_end a = {0}, b = {0};
    uint32_t n_told;

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    for (int round = 0; round < 12; round++) {
        const uint32_t broken = a.n_broke;

        bed_meet(&a, &b);
        for (uint64_t id = 1; id <= 16; id++) {
            assert_int_equal(bed_send(&b, b.conns[0], id, round % 2 == 0 ? 1 << 20 : 6000), QY_OK);
        }
        for (int i = 0; i < round; i++) {
            bed_poll(&b);
            bed_poll(&a);
        }
        bed_close_conn(&b, b.conns[0]); /* frees what it sent */
        n_told = b.n_sent + b.n_unsent;
        BED_UNTIL(a.n_broke == broken + 1, &a, &b);
        bed_close_conn(&a, a.conns[0]);
        bed_poll_for(&a, &b, 1000000);
        assert_int_equal(b.n_sent + b.n_unsent, n_told);
    }
    bed_close(&b);
    bed_close(&a);
}

static void close_gives_up_what_arrives(void **state)
{
    struct bed_end a = {0}, b = {0};

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    for (int round = 0; round < 12; round++) {
        const uint32_t broken = b.n_broke, begun = a.n_begun, done = b.n_sent + b.n_unsent;

        bed_meet(&a, &b);
        for (uint64_t id = 1; id <= 16; id++) {
            assert_int_equal(bed_send(&b, b.conns[0], id, 1 << 20), QY_OK);
        }
        BED_UNTIL(a.n_begun > begun, &a, &b);
        for (int i = 0; i < round; i++) {
            bed_poll(&b);
            bed_poll(&a);
        }
        bed_close_conn(&a, a.conns[0]); /* frees where it arrives */
        BED_UNTIL(b.n_broke == broken + 1 && b.n_sent + b.n_unsent == done + 16, &a, &b);
        bed_close_conn(&b, b.conns[0]);
    }
    bed_close(&b);
    bed_close(&a);
}

/* While one connection is closed, what comes over another waits for the next progress. */
static void close_loses_nothing_of_other_connections(void **state)
{
    struct bed_end a = {0}, b = {0}, c = {0};
    uint64_t next = 1;

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    bed_open(&c, NULL);
    bed_meet(&a, &c);
    for (int round = 0; round < 12; round++) {
        const uint32_t broken = a.n_broke;

        bed_meet(&a, &b);
        for (uint64_t id = 1; id <= 8; id++) {
            assert_int_equal(bed_send(&a, a.conns[1], id, 1 << 20), QY_OK);
        }
        for (int i = 0; i < 12; i++) {
            assert_int_equal(bed_send(&c, c.conns[0], next, next % 3 == 0 ? 200000 : 500), QY_OK);
            next++;
            bed_poll(&c);
        }
        bed_close_conn(&a, a.conns[1]);
        BED_UNTIL(b.n_broke == (uint32_t)round + 1, &a, &b);
        bed_close_conn(&b, b.conns[0]);
        BED_UNTIL(a.n_arrived == next - 1 && c.n_sent == next - 1, &a, &c);
        assert_int_equal(a.n_broke, broken);
    }
    assert_int_equal(a.jumps, 0);
    bed_close(&c);
    bed_close(&b);
    bed_close(&a);
}

static void thousand_connections_leave_no_file_open(void **state)
{
    struct bed_end a = {0}, b = {0};
    uint32_t before = 0;

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    for (uint32_t i = 0; i < 1000; i++) {
        if (i == 10) { /* what UCX opens once is open now */
            bed_poll_for(&a, &b, 50000000);
            before = bed_open_files();
        }
        bed_meet(&a, &b);
        if (i % 2 == 0) {
            bed_close_conn(&b, b.conns[0]);
            BED_UNTIL(a.n_broke + b.n_broke == i + 1, &a, &b);
            bed_close_conn(&a, a.conns[0]);
        } else {
            bed_close_conn(&a, a.conns[0]);
            BED_UNTIL(a.n_broke + b.n_broke == i + 1, &a, &b);
            bed_close_conn(&b, b.conns[0]);
        }
    }
    BED_UNTIL(bed_open_files() <= before, &a, &b);
    bed_close(&b);
    bed_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_are_told_once),
        cmocka_unit_test(ends_meet_over_ipv6_where_the_user_chose_it),
        cmocka_unit_test(nobody_listening_breaks_the_connection),
        cmocka_unit_test(refusal_is_known_from_who_listens_and_from_silence),
        cmocka_unit_test(refused_connection_breaks_at_who_asked),
        cmocka_unit_test(no_more_connections_than_reserved),
        cmocka_unit_test(listener_comes_back_on_its_port),
        cmocka_unit_test(close_gives_up_what_is_sent),
        cmocka_unit_test(close_gives_up_what_arrives),
        cmocka_unit_test(close_loses_nothing_of_other_connections),
        cmocka_unit_test(thousand_connections_leave_no_file_open),
    };
    const char *reason = bed_no_loopback();

    if (reason != NULL) {
        printf("%s\n", reason);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
