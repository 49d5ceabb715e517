/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the UCX wire: addresses, devices, settings, memory that runs out. */
#include "tests/support/test.h"
#include "tests/unit/net/ucx_bed.h"

#include "net/ucx.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct qyi_wire_ops *ops = &qyi_wire_ucx;

static void wire_tells_its_address(void **state)
{
    struct bed_end a = {0}, b = {0};
    unsigned port = 0;

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    bed_open(&b, NULL);
    assert_int_equal(sscanf(bed_address(&a), "127.0.0.1:%u", &port), 1);
    assert_in_range(port, 1, 65535);
    assert_string_equal(bed_address(&b), "");
    bed_close(&b);
    bed_close(&a);
}

static void port_in_use_is_told(void **state)
{
    struct bed_end a = {0}, b;
    struct qy_error err;

    (void)state;
    bed_open(&a, "127.0.0.1:0");
    assert_int_equal(bed_try_open(&b, bed_address(&a), NULL, &err), QY_ERR_DEVICE);
    assert_non_null(strstr(err.text, "the port is in use"));
    assert_non_null(strstr(err.text, bed_address(&a)));
    assert_int_equal(b.heap.live, 0);
    bed_close(&a);
}

static void addresses_of_no_form_are_refused(void **state)
{
    static const char *const both[] = {
        "",          "host",           "127.0.0.1", "127.0.0.1:",
        "::1:80",    "127.0.0.1:http", "[::1]80",   "127.0.0.1:65536",
        "[::1:5000", "1.2.3.4:-1",     "[]:80x",    "127.0.0.1:123456"};
    static const char *const asked[] = {":5000", "*:5000", "127.0.0.1:0"};
    struct bed_end a = {0}, b;
    struct qyi_conn *conn;
    struct qy_error err;

    (void)state;
    bed_open(&a, NULL);
    for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        assert_int_equal(ops->connect(a.wire, both[i], NULL, &conn, &err), QY_ERR_CONFIG);
        assert_non_null(strstr(err.text, "host:port is accepted"));
        assert_int_equal(bed_try_open(&b, both[i], NULL, &err), QY_ERR_CONFIG);
        assert_int_equal(b.heap.live, 0);
    }
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        assert_int_equal(ops->connect(a.wire, asked[i], NULL, &conn, &err), QY_ERR_CONFIG);
    }
    bed_close(&a);
}

static void listening_is_for_the_chosen_device_alone(void **state)
{
    struct bed_end a, b = {0};
    struct qy_error err;

    (void)state;
    assert_int_equal(bed_try_open(&a, "127.0.0.1:0", "nosuch0", &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "network device 'nosuch0'"));
    assert_int_equal(bed_try_open(&a, "192.0.2.77:0", "lo", &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "has not this address"));
    assert_int_equal(bed_try_open(&a, "203.0.113.9:0", NULL, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "no device of this host"));
    assert_int_equal(a.heap.live, 0);
    assert_int_equal(bed_try_open(&a, ":0", "lo", &err), QY_OK);
    assert_memory_equal(bed_address(&a), "127.0.0.1:", 10);
    bed_open(&b, NULL);
    bed_meet(&a, &b);
    bed_close(&b);
    bed_close(&a);
}

static void users_variable_wins_and_is_told(void **state)
{
    struct qy_net_setting setting = {0};
    struct bed_end a = {0};
    size_t n;

    (void)state;
    assert_int_equal(qy_net_setting_at(0, &setting), 1);
    assert_string_equal(setting.variable, "UCX_TLS");
    assert_string_equal(setting.value, "tcp,self");
    assert_false(setting.by_user);
    setenv("UCX_TLS", "tcp", 1);
    assert_int_equal(qy_net_setting_at(0, &setting), 1);
    assert_string_equal(setting.value, "tcp");
    assert_true(setting.by_user);
    bed_open(&a, NULL);
    assert_non_null(strstr(a.log, "UCX_TLS: 'tcp' from the environment"));
    bed_close(&a);
    unsetenv("UCX_TLS");
    for (n = 0; qy_net_setting_at(n, &setting); n++) {
        assert_true(strlen(setting.why) > 10);
    }
    assert_true(n > 3);
}

/* Whatever else this machine has, it can reach itself by TCP: the tests do. */
static void transports_of_this_host_are_listed(void **state)
{
    enum { MOST = 64 };
    struct qy_net_transport list[MOST], one[1];
    struct fail_alloc f = {.fail_at = -1};
    struct qy_runtime rt = {.mem = fail_alloc_make(&f)};
    struct qy_error err;
    uint32_t n = 0, again = 0;
    int loopback = 0;

    (void)state;
    assert_int_equal(qy_net_transports(&rt, list, MOST, &n, &err), QY_OK);
    for (uint32_t i = 0; i < n && i < MOST; i++) {
        loopback |= strcmp(list[i].name, "tcp") == 0 && strcmp(list[i].device, "lo") == 0 &&
                    list[i].is_network;
    }
    assert_true(loopback);
    assert_int_equal(qy_net_transports(&rt, one, 1, &again, &err), QY_OK);
    assert_int_equal(again, n);
    assert_string_equal(one[0].name, list[0].name);
    f.fail_at = f.calls;
    assert_int_equal(qy_net_transports(&rt, list, MOST, &n, &err), QY_ERR_NOMEM);
    assert_int_equal(f.live, 0);
    assert_non_null(strchr(qy_net_ucx_version(), '.'));
}

static void signals_are_given_back(void **state)
{
    struct bed_end a = {0};
    struct sigaction now;

    (void)state;
    bed_open(&a, NULL);
    bed_close(&a);
    assert_int_equal(sigaction(SIGHUP, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN);
}

static void open_survives_every_allocation_that_fails(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_runtime rt = {.mem = fail_alloc_make(&f)};
        const struct qyi_wire_params params = {
            .rt = &rt, .listen = "127.0.0.1:0", .max_conns = 3, .depth = 2};
        struct qy_error err;
        void *wire = NULL;

        if (ops->open(&params, &wire, &err) == QY_OK) {
            ops->close(wire);
            assert_int_equal(f.live, 0);
            assert_true(n > 3);
            break;
        }
        assert_int_equal(err.status, QY_ERR_NOMEM);
        assert_int_equal(f.live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wire_tells_its_address),
        cmocka_unit_test(port_in_use_is_told),
        cmocka_unit_test(addresses_of_no_form_are_refused),
        cmocka_unit_test(listening_is_for_the_chosen_device_alone),
        cmocka_unit_test(users_variable_wins_and_is_told),
        cmocka_unit_test(transports_of_this_host_are_listed),
        cmocka_unit_test(signals_are_given_back),
        cmocka_unit_test(open_survives_every_allocation_that_fails),
    };
    const char *reason = bed_no_loopback();

    if (reason != NULL) {
        printf("%s\n", reason);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
