/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latency and bandwidth of the UCX wire by size, between two processes of this host, as one JSON line per size.
 * The ceiling is ucx_perftest's am_lat and am_bw over the same transport (UCX_TLS=tcp,self), and the sizes are
 * its own; its latency is half a round trip, and so is ours.
 *
 *   net_wire [host:port to listen on, 127.0.0.1:0 [only this size]]
 */
#include "net/wire.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEPTH = 16, MAX_BYTES = 4 << 20, MAX_ROUNDS = 4000 };

static const struct qyi_wire_ops *ops = &qyi_wire_ucx;
static const double second = 1e9;

struct end {
    struct qy_runtime rt;
    void *wire;
    struct qyi_conn *conn;
    struct qyi_message messages[DEPTH];
    uint32_t idle[DEPTH], n_idle; /* messages that may be sent */
    uint8_t *in, *out;            /* one place for all payloads */
    uint32_t n_arrived;
    int connected, broke;
};

static void stop(const char *why)
{
    fprintf(stderr, "net_wire: %s\n", why);
    exit(1);
}

static int send_message(struct end *end, enum qyi_kind kind, size_t bytes)
{
    struct qyi_message *message;

    if (end->n_idle == 0) {
        return 0;
    }
    message = &end->messages[end->idle[--end->n_idle]];
    message->head = (struct qyi_head){.kind = (uint8_t)kind, .payload_bytes = bytes};
    message->payload = end->out;
    if (ops->send(end->wire, end->conn, message) != QY_OK) {
        stop("a message was refused");
    }
    return 1;
}

static int accepted(void *ctx, struct qyi_conn *conn)
{
    ((struct end *)ctx)->conn = conn;
    return 1;
}

static void connected(void *ctx, struct qyi_conn *conn)
{
    (void)conn;
    ((struct end *)ctx)->connected = 1;
}

static void *begins(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void **token)
{
    (void)conn;
    (void)token;
    return head->payload_bytes <= MAX_BYTES ? ((struct end *)ctx)->in : NULL;
}

/* PING is answered with as many bytes, and comes after all others that were sent before it. */
static void arrived(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void *payload,
                    void *token)
{
    struct end *end = ctx;

    (void)conn;
    (void)payload;
    (void)token;
    end->n_arrived++;
    if (head->kind == QYI_KIND_PING && !send_message(end, QYI_KIND_PONG, head->payload_bytes)) {
        stop("no message is free");
    }
}

static void was_sent(void *ctx, struct qyi_conn *conn, struct qyi_message *message,
                     enum qy_status status)
{
    struct end *end = ctx;

    (void)conn;
    (void)status;
    end->idle[end->n_idle++] = (uint32_t)(message - end->messages);
}

static void broke(void *ctx, struct qyi_conn *conn, const char *why)
{
    (void)conn;
    (void)why;
    ((struct end *)ctx)->broke = 1;
}

static void open_end(struct end *end, const char *listen)
{
    const struct qyi_wire_params params = {.rt = &end->rt,
                                           .listen = listen,
                                           .max_conns = 1,
                                           .depth = DEPTH,
                                           .sink = {.ctx = end,
                                                    .accepted = accepted,
                                                    .connected = connected,
                                                    .begins = begins,
                                                    .arrived = arrived,
                                                    .sent = was_sent,
                                                    .broke = broke}};
    struct qy_error err = {0};

    end->rt.mem = qy_allocator_system();
    end->rt.log = qy_log_stderr(QY_LOG_WARN);
    end->in = calloc(1, MAX_BYTES);
    end->out = calloc(1, MAX_BYTES);
    for (end->n_idle = 0; end->n_idle < DEPTH; end->n_idle++) {
        end->idle[end->n_idle] = end->n_idle;
    }
    if (end->in == NULL || end->out == NULL || ops->open(&params, &end->wire, &err) != QY_OK) {
        stop(err.text);
    }
}

static void close_end(struct end *end)
{
    ops->close_conn(end->wire, end->conn);
    ops->close(end->wire);
    free(end->in);
    free(end->out);
}

static int run_peer(const char *listen)
{
    struct end end = {0};

    open_end(&end, listen);
    printf("%s\n", ops->address(end.wire));
    fflush(stdout);
    while (!end.broke) {
        ops->progress(end.wire);
    }
    close_end(&end);
    return 0;
}

/* Its address into out. */
static pid_t start_peer(const char *listen, char out[QY_NET_ADDRESS_BYTES])
{
    char name[] = "net_wire", word[] = "peer", where[QY_NET_ADDRESS_BYTES];
    char *arguments[] = {name, word, where, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    pid_t pid = 0;
    FILE *text;

    snprintf(where, sizeof(where), "%s", listen);
    if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1) != 0 ||
        posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ) != 0) {
        stop("the other process does not start");
    }
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    text = fdopen(ends[0], "r");
    if (text == NULL || fgets(out, QY_NET_ADDRESS_BYTES, text) == NULL) {
        stop("the other process says no address");
    }
    out[strcspn(out, "\n")] = '\0';
    fclose(text);
    return pid;
}

static void until(struct end *end, uint32_t n_arrived)
{
    while (end->n_arrived < n_arrived) {
        ops->progress(end->wire);
        if (end->broke) {
            stop("the connection broke");
        }
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Half a round trip, us: times [rounds], sorted. */
static void latency(struct end *end, size_t bytes, double *times, uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        const uint64_t begin = qy_clock_ns();

        if (!send_message(end, QYI_KIND_PING, bytes)) {
            stop("no message is free");
        }
        until(end, end->n_arrived + 1);
        times[i] = (double)(qy_clock_ns() - begin) / 2e3;
        while (end->n_idle < DEPTH) {
            ops->progress(end->wire);
        }
    }
    qsort(times, rounds, sizeof(*times), compare);
}

/* MB/s of `n` messages, one way, DEPTH under way. */
static double bandwidth(struct end *end, size_t bytes, uint32_t n)
{
    const uint64_t begin = qy_clock_ns();

    for (uint32_t i = 0; i < n;) {
        if (send_message(end, QYI_KIND_ASK, bytes)) {
            i++;
        } else {
            ops->progress(end->wire);
        }
    }
    while (!send_message(end, QYI_KIND_PING, 0)) {
        ops->progress(end->wire);
    }
    until(end, end->n_arrived + 1);
    return (double)bytes * n / ((double)(qy_clock_ns() - begin) / second) / 1e6;
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {8,      256,    4096,   16384,   65536,
                                   131072, 262144, 524288, 1 << 20, 4 << 20};
    static double times[MAX_ROUNDS];
    struct end end = {0};
    char address[QY_NET_ADDRESS_BYTES];
    struct qy_error err = {0};
    pid_t pid;

    if (argc == 3 && strcmp(argv[1], "peer") == 0) {
        return run_peer(argv[2]);
    }
    pid = start_peer(argc > 1 ? argv[1] : "127.0.0.1:0", address);
    open_end(&end, NULL);
    if (ops->connect(end.wire, address, NULL, &end.conn, &err) != QY_OK) {
        stop(err.text);
    }
    while (!end.connected && !end.broke) {
        ops->progress(end.wire);
    }
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        if (argc > 2 && strtoull(argv[2], NULL, 10) != sizes[s]) {
            continue;
        }
        const uint32_t rounds = sizes[s] <= 65536 ? MAX_ROUNDS : (uint32_t)((256 << 20) / sizes[s]);
        double rate = 0;

        latency(&end, sizes[s], times, rounds / 4); /* warm */
        latency(&end, sizes[s], times, rounds);
        for (int i = 0; i < 3; i++) {
            const double once = bandwidth(&end, sizes[s], rounds);

            rate = once > rate ? once : rate;
        }
        printf(
            "{\"bench\":\"net_wire/bytes=%zu\",\"samples\":%u,\"min_us\":%.1f,\"p50_us\":%.1f,"
            "\"p99_us\":%.1f,\"best_mb_per_s\":%.0f}\n",
            sizes[s], rounds, times[0], times[rounds / 2], times[rounds * 99 / 100], rate);
        fflush(stdout);
    }
    close_end(&end);
    waitpid(pid, NULL, 0);
    return 0;
}
