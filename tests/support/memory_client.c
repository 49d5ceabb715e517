/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody who connects to a memory server, for tests of the program.
 *
 * usage: memory_client ADDRESS KEY_FILE [hold]
 * Prints one line: "up INCARNATION", "refused: ..." or "no answer: ..." (exit code 0, 3, 4). With `hold` it
 * stays until the connection ends and prints "lost" then, or exits with 5 after a minute.
 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "serve/memory/key.h"

static const uint64_t second_ns = 1000000000u;

static int fail(const struct qy_error *err, int code)
{
    fprintf(stderr, "%s\n", err->text);
    return code;
}

static int hold(struct qy_node *node, const struct qy_peer *peer)
{
    const uint64_t until = qy_node_now(node) + 60 * second_ns;
    while (qy_peer_state(peer) == QY_PEER_UP) {
        if (qy_node_now(node) >= until) {
            return 5;
        }
        if (qy_node_progress(node) == 0) {
            qy_node_wait(node, qy_node_now(node) + second_ns / 10);
        }
    }
    printf("lost\n");
    return 0;
}

static int ask(struct qy_node *node, const char *address, int holds)
{
    struct qy_error err = {0};
    struct qy_peer *peer = NULL;
    if (qy_peer_open(node, address, "server", &peer, &err) != QY_OK) {
        return fail(&err, 2);
    }
    const enum qy_status st = qy_peer_wait(peer, 10 * second_ns, &err);
    if (st != QY_OK) {
        printf("%s: %s\n", st == QY_ERR_PEER ? "refused" : "no answer", err.text);
        return st == QY_ERR_PEER ? 3 : 4;
    }
    printf("up %016llx\n", (unsigned long long)qy_peer_incarnation(peer));
    fflush(stdout);
    const int code = holds ? hold(node, peer) : 0;
    qy_peer_close(peer);
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        return 2;
    }
    struct qy_error err = {0};
    struct qy_node *node = NULL;
    struct qy_runtime rt = {.mem = qy_allocator_system(), .log = qy_log_stderr(QY_LOG_WARN)};
    struct qy_node_params params = {.rt = &rt,
                                    .timeout_ns = 2 * second_ns,
                                    .max_peers = 1,
                                    .depth = 1,
                                    .call_bytes = 4096,
                                    .answer_bytes = 4096,
                                    .n_answers = 1};
    if (qyi_key_read(argv[2], params.key, &err) != QY_OK) {
        return fail(&err, 2);
    }
    if (getrandom(params.session, sizeof params.session, 0) != (ssize_t)sizeof params.session) {
        return 2;
    }
    if (qy_node_open(&params, &node, &err) != QY_OK) {
        return fail(&err, err.status == QY_ERR_UNSUPPORTED ? 77 : 2);
    }
    const int code = ask(node, argv[1], argc > 3 && strcmp(argv[3], "hold") == 0);
    qy_node_close(node);
    return code;
}
