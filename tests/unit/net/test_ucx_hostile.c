/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who speaks UCX but not to our rules, and who does not even speak UCX: that connection ends, and others
 * do not notice. What UCX itself does not bear is not here.
 */
#include "tests/support/test.h"
#include "tests/unit/net/ucx_bed.h"

#include "net/ucx.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* UCX without our wire. */
struct stranger {
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_ep_h ep;
    int failed;
};

struct fixture {
    struct bed_end a, b; /* b is a good client of a, and must not be disturbed */
    struct stranger stranger;
    uint64_t next;
};

static void stranger_failed(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    (void)ep;
    (void)status;
    ((struct stranger *)arg)->failed = 1;
}

static struct sockaddr_in address_of(const struct bed_end *end)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *colon = strrchr(bed_address(end), ':');

    at.sin_port = htons((uint16_t)atoi(colon + 1));
    return at;
}

static void stranger_connect(struct stranger *s, const struct bed_end *end)
{
    const struct sockaddr_in at = address_of(end);
    const ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER |
                      UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = stranger_failed, .arg = s},
        .flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER,
        .sockaddr = {.addr = (const struct sockaddr *)&at, .addrlen = sizeof(at)}};

    s->failed = 0;
    assert_int_equal(ucp_ep_create(s->worker, &params, &s->ep), UCS_OK);
}

static void stranger_close(struct stranger *s)
{
    const ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                        .flags = UCP_EP_CLOSE_FLAG_FORCE};
    ucs_status_ptr_t request = ucp_ep_close_nbx(s->ep, &params);

    while (UCS_PTR_IS_PTR(request) && ucp_request_check_status(request) == UCS_INPROGRESS) {
        ucp_worker_progress(s->worker);
    }
    if (UCS_PTR_IS_PTR(request)) {
        ucp_request_free(request);
    }
}

static ucs_status_t ignore(void *arg, const void *header, size_t header_length, void *data,
                           size_t length, const ucp_am_recv_param_t *param)
{
    (void)arg;
    (void)header;
    (void)header_length;
    (void)data;
    (void)length;
    (void)param;
    return UCS_OK;
}

/* header and payload are static, or outlive the connection. */
static void stranger_send(struct stranger *s, unsigned id, const void *header, size_t header_bytes,
                          const void *payload, size_t bytes, uint32_t flags)
{
    const ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS, .flags = flags};
    ucs_status_ptr_t request =
        ucp_am_send_nbx(s->ep, id, header, header_bytes, payload, bytes, &params);

    assert_false(UCS_PTR_IS_ERR(request));
    if (UCS_PTR_IS_PTR(request)) {
        ucp_request_free(request);
    }
}

static int setup(void **state)
{
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES,
                                 .features = UCP_FEATURE_AM};
    const ucp_worker_params_t worker_params = {.field_mask = 0};
    ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB, .cb = ignore};
    struct fixture *f = calloc(1, sizeof(*f));
    ucp_config_t *config;

    bed_open(&f->a, "127.0.0.1:0");
    bed_open(&f->b, NULL);
    bed_meet(&f->a, &f->b);
    assert_int_equal(ucp_config_read(NULL, NULL, &config), UCS_OK);
    assert_int_equal(ucp_config_modify(config, "TLS", "tcp,self"), UCS_OK);
    assert_int_equal(ucp_init(&params, config, &f->stranger.context), UCS_OK);
    ucp_config_release(config);
    assert_int_equal(ucp_worker_create(f->stranger.context, &worker_params, &f->stranger.worker),
                     UCS_OK);
    for (handler.id = QYI_UCX_AM_MESSAGE; handler.id <= QYI_UCX_AM_HERE; handler.id++) {
        assert_int_equal(ucp_worker_set_am_recv_handler(f->stranger.worker, &handler), UCS_OK);
    }
    f->next = 1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    ucp_worker_destroy(f->stranger.worker);
    ucp_cleanup(f->stranger.context);
    bed_close(&f->b);
    bed_close(&f->a);
    free(f);
    return 0;
}

/* The good client's messages still come, and nothing else does. */
static void check_good(struct fixture *f)
{
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bed_send(&f->b, f->b.conns[0], f->next, i == 1 ? 300000 : 100), QY_OK);
        BED_UNTIL(f->a.n_arrived == f->next, &f->a, &f->b);
        f->next++;
    }
    assert_int_equal(f->b.n_broke, 0);
}

/* Connects the stranger, sends one message, and waits until the wire has broken that connection. */
static void refused(struct fixture *f, const void *header, size_t header_bytes, const void *payload,
                    size_t bytes, const char *why)
{
    const uint32_t broke = f->a.n_broke, begun = f->a.n_begun;
    const uint64_t begin = qy_clock_ns();

    stranger_connect(&f->stranger, &f->a);
    stranger_send(&f->stranger, QYI_UCX_AM_MESSAGE, header, header_bytes, payload, bytes,
                  UCP_AM_SEND_FLAG_REPLY);
    while (f->a.n_broke == broke) {
        ucp_worker_progress(f->stranger.worker);
        bed_poll(&f->a);
        assert_false(bed_late(begin));
    }
    assert_string_equal(f->a.why, why);
    assert_int_equal(f->a.n_begun, begun);
    bed_close_broken(&f->a);
    while (!f->stranger.failed) {
        ucp_worker_progress(f->stranger.worker);
        bed_poll(&f->a);
        assert_false(bed_late(begin));
    }
    stranger_close(&f->stranger);
    check_good(f);
}

static void message_of_a_wrong_form_breaks_its_connection_alone(void **state)
{
    static uint8_t bytes[1 << 20];
    static struct qyi_head head = {.magic = QYI_NET_MAGIC, .payload_bytes = 100};
    struct fixture *f = *state;

    refused(f, NULL, 0, NULL, 0, "a message without a head of ours");
    refused(f, bytes, 10, bytes, 100, "a message without a head of ours");
    refused(f, bytes, sizeof(head) + 1, bytes, 100, "a message without a head of ours");
    refused(f, &head, sizeof(head), NULL, 0, "a payload of another size than its head says");
    refused(f, &head, sizeof(head), bytes, 101, "a payload of another size than its head says");
    refused(f, &head, sizeof(head), bytes, sizeof(bytes),
            "a payload of another size than its head says");
    head.payload_bytes = UINT64_MAX;
    refused(f, &head, sizeof(head), bytes, 64, "a payload of another size than its head says");
}

static void message_that_names_no_connection_is_dropped(void **state)
{
    static uint8_t bytes[1 << 20];
    static struct qyi_head head = {.magic = QYI_NET_MAGIC, .payload_bytes = 64};
    static struct qyi_head big = {.magic = QYI_NET_MAGIC, .payload_bytes = sizeof(bytes)};
    struct fixture *f = *state;
    const uint32_t begun = f->a.n_begun;

    stranger_connect(&f->stranger, &f->a);
    stranger_send(&f->stranger, QYI_UCX_AM_MESSAGE, &head, sizeof(head), bytes, 64, 0);
    stranger_send(&f->stranger, QYI_UCX_AM_MESSAGE, &big, sizeof(big), bytes, sizeof(bytes), 0);
    stranger_send(&f->stranger, QYI_UCX_AM_HERE, &head, sizeof(head), bytes, 64,
                  UCP_AM_SEND_FLAG_REPLY);
    for (const uint64_t begin = qy_clock_ns(); qy_clock_ns() - begin < 100000000;) {
        ucp_worker_progress(f->stranger.worker);
        bed_poll(&f->a);
    }
    assert_int_equal(f->a.n_begun, begun);
    assert_int_equal(f->a.n_connected, 0);
    assert_int_equal(f->a.n_broke, 0);
    check_good(f);
    stranger_close(&f->stranger);
    BED_UNTIL((ucp_worker_progress(f->stranger.worker), f->a.n_broke == 1), &f->a, &f->b);
}

/* UCX 1.13 itself ends the process on bytes that begin like its own and are not (SECURITY.md):
 * here are those of who knocks by mistake. */
static void somebody_who_knocks_by_mistake_disturbs_nobody(void **state)
{
    static const char *const words[] = {"",
                                        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                        "SSH-2.0-OpenSSH_9.2\r\n",
                                        "EHLO example.org\r\n",
                                        "\x16\x03\x01\x02\x05\x01",
                                        "hello"};
    struct fixture *f = *state;
    const struct sockaddr_in at = address_of(&f->a);

    for (uint32_t round = 0; round < 12; round++) {
        const char *word = words[round % 6];
        const int fd = socket(AF_INET, SOCK_STREAM, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
        assert_int_equal(write(fd, word, strlen(word)), strlen(word));
        bed_poll_for(&f->a, &f->b, 2000000);
        close(fd);
        bed_poll_for(&f->a, &f->b, 2000000);
        check_good(f);
    }
    bed_meet(&f->a, &f->b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(message_of_a_wrong_form_breaks_its_connection_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(message_that_names_no_connection_is_dropped, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(somebody_who_knocks_by_mistake_disturbs_nobody, setup,
                                        teardown),
    };
    const char *reason = bed_no_loopback();

    if (reason != NULL) {
        printf("%s\n", reason);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
