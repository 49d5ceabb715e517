/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes over a real network, with a server in a process of its own that is stopped, killed and started
 * again. The other process is this program with the arguments `serve` and an address.
 */
#include "tests/unit/net/net_bed.h"

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Of tests that wait for it: other load must not be taken for a loss. */
enum { TIMEOUT_MS = 800, LONG_MS = 20000 };
static const uint64_t patience = 30000 * BED_MS; /* machines under load; nothing takes so long */

/* Until it is killed, or its parent is gone. */
static int serve(const char *listen)
{
    const pid_t parent = getppid();
    struct bed_server server;
    struct bed bed;

    bed_open(&bed, NULL);
    struct qy_node_params p = bed_server_params(&bed, &server, listen);
    p.fabric = NULL;
    p.timeout_ns = TIMEOUT_MS * BED_MS;
    bed_server_start(&server, &p);
    printf("%s\n", qy_node_address(server.node));
    (void)fflush(stdout);
    while (getppid() == parent) {
        if (qy_node_progress(server.node) == 0) {
            qy_node_wait(server.node, qy_node_now(server.node) + 50 * BED_MS);
        }
    }
    return 0;
}

struct other {
    pid_t pid;
    char address[QY_NET_ADDRESS_BYTES];
};

static void start(struct other *other, const char *listen)
{
    char name[] = "test_node_processes";
    char word[] = "serve";
    char where[QY_NET_ADDRESS_BYTES];
    char *arguments[] = {name, word, where, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];

    (void)snprintf(where, sizeof(where), "%s", listen);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], 1), 0);
    assert_int_equal(posix_spawn_file_actions_addclose(&actions, ends[0]), 0);
    assert_int_equal(posix_spawn(&other->pid, "/proc/self/exe", &actions, NULL, arguments, environ),
                     0);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    FILE *text = fdopen(ends[0], "r");
    assert_non_null(text);
    assert_non_null(fgets(other->address, sizeof(other->address), text));
    other->address[strcspn(other->address, "\n")] = '\0';
    (void)fclose(text);
}

static void end(const struct other *other)
{
    (void)kill(other->pid, SIGKILL);
    assert_int_equal(waitpid(other->pid, NULL, 0), other->pid);
}

struct scene {
    struct bed bed;
    struct other other;
    struct qy_node *client;
    struct qy_peer *peer;
};

static struct qy_node *open_client(struct bed *bed, uint64_t timeout_ms, uint8_t key)
{
    struct qy_node_params p = bed_client_params(bed, "c");
    struct qy_node *node = NULL;
    struct qy_error err = {0};

    p.fabric = NULL;
    p.device = NULL;
    p.timeout_ns = timeout_ms * BED_MS;
    p.key[5] ^= key;
    if (qy_node_open(&p, &node, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    return node;
}

static void open_scene(struct scene *s, uint64_t timeout_ms)
{
    bed_open(&s->bed, NULL);
    start(&s->other, "127.0.0.1:0");
    s->client = open_client(&s->bed, timeout_ms, 0);
    s->peer = bed_connect(s->client, s->other.address);
}

static void close_scene(struct scene *s)
{
    qy_node_close(s->client);
    end(&s->other);
    bed_close(&s->bed);
}

static void requests_of_any_size_are_answered(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 65536, 65537, BED_STORE};
    static uint8_t bytes[65536];
    static uint8_t reply[65536];
    struct qy_request r;
    struct scene s;

    (void)state;
    open_scene(&s, LONG_MS);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        bed_get_works(s.client, s.peer, 0, sizes[i]);
    }
    for (size_t n = 0; n <= sizeof(bytes); n += 4096) {
        memset(bytes, (int)(n / 4096), n);
        bed_ask(&r, BED_ECHO, 0, n);
        r.payload = bytes;
        r.payload_bytes = n;
        r.reply = reply;
        r.reply_capacity = sizeof(reply);
        assert_int_equal(bed_try(s.peer, s.client, &r), QY_OK);
        assert_int_equal(r.reply_bytes, n);
        assert_memory_equal(reply, bytes, n);
    }
    bed_ask(&r, BED_PUT, 100, sizeof(bytes)); /* placed in the other's store */
    r.payload = bytes;
    r.payload_bytes = sizeof(bytes);
    assert_int_equal(bed_try(s.peer, s.client, &r), QY_OK);
    assert_int_equal(r.code, 0);
    close_scene(&s);
}

/* Stopped while asked and while idle; nobody but our own deadline tells. */
static void stopped_process_is_lost_gone_and_back(void **state)
{
    struct qy_request r;
    struct scene s;

    (void)state;
    open_scene(&s, TIMEOUT_MS);
    const uint64_t incarnation = qy_peer_incarnation(s.peer);
    assert_int_equal(kill(s.other.pid, SIGSTOP), 0);
    bed_ask(&r, BED_CODE, 1, 0);
    assert_int_equal(bed_try(s.peer, s.client, &r), QY_ERR_TIMEOUT);
    assert_int_equal(qy_peer_state(s.peer), QY_PEER_LOST);
    bed_until(s.client, s.peer, QY_PEER_GONE, patience);
    assert_int_equal(kill(s.other.pid, SIGCONT), 0);
    bed_until(s.client, s.peer, QY_PEER_UP, patience);
    assert_int_equal(qy_peer_incarnation(s.peer), incarnation);
    bed_get_works(s.client, s.peer, 0, 100000);

    assert_int_equal(kill(s.other.pid, SIGSTOP), 0);
    bed_until(s.client, s.peer, QY_PEER_LOST, patience);
    assert_int_equal(kill(s.other.pid, SIGCONT), 0);
    bed_until(s.client, s.peer, QY_PEER_UP, patience);
    bed_get_works(s.client, s.peer, 0, 100000);
    close_scene(&s);
}

static void killed_process_is_lost_and_another_start_is_known(void **state)
{
    static uint8_t reply[BED_STORE];
    struct qy_op op = {0};
    struct qy_request r;
    struct scene s;

    (void)state;
    open_scene(&s, TIMEOUT_MS);
    const uint64_t incarnation = qy_peer_incarnation(s.peer);
    assert_int_equal(kill(s.other.pid, SIGSTOP), 0);
    bed_ask(&r, BED_GET, 0, sizeof(reply));
    r.reply = reply;
    r.reply_capacity = sizeof(reply);
    r.timeout_ns = patience;
    r.counts = &op;
    assert_int_equal(qy_request_post(s.peer, &r), QY_OK);
    end(&s.other);
    assert_int_equal(qy_op_wait(s.client, &op), QY_ERR_PEER);
    assert_int_equal(qy_peer_state(s.peer), QY_PEER_LOST);

    char address[QY_NET_ADDRESS_BYTES];
    memcpy(address, s.other.address, sizeof(address));
    start(&s.other, address);
    bed_until(s.client, s.peer, QY_PEER_UP, patience);
    assert_int_not_equal(qy_peer_incarnation(s.peer), incarnation);
    bed_get_works(s.client, s.peer, 0, BED_STORE);
    close_scene(&s);
}

static void process_without_the_key_is_refused(void **state)
{
    struct qy_error err = {0};
    struct qy_peer *bad;
    struct scene s;

    (void)state;
    open_scene(&s, LONG_MS);
    struct qy_node *stranger = open_client(&s.bed, LONG_MS, 1);
    assert_int_equal(qy_peer_open(stranger, s.other.address, "s", &bad, &err), QY_OK);
    assert_int_equal(qy_peer_wait(bad, patience, &err), QY_ERR_PEER);
    assert_non_null(strstr(err.text, "key"));
    qy_node_close(stranger);
    bed_get_works(s.client, s.peer, 0, 100);
    close_scene(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_any_size_are_answered),
        cmocka_unit_test(stopped_process_is_lost_gone_and_back),
        cmocka_unit_test(killed_process_is_lost_and_another_start_is_known),
        cmocka_unit_test(process_without_the_key_is_refused),
    };

    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        return serve(argv[2]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
