/* SPDX-License-Identifier: Apache-2.0 */
/* Ends of the UCX wire with sinks that count. */
#include "tests/unit/net/ucx_bed.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct qyi_wire_ops *ops = &qyi_wire_ucx;

struct bed_memory {
    struct bed_memory *next;
    struct qyi_conn *conn;
    struct qyi_message message; /* out */
    uint8_t *bytes;
};

static uint8_t byte_of(uint64_t id, size_t at)
{
    return (uint8_t)(id * 37 + at * 11 + (at >> 8));
}

static struct bed_memory *memory_add(struct bed_memory **list, struct qyi_conn *conn, size_t bytes)
{
    struct bed_memory *memory = calloc(1, sizeof(*memory));

    if (memory == NULL) {
        abort();
    }
    memory->bytes = malloc(bytes + 1);
    if (memory->bytes == NULL) {
        abort();
    }
    memory->conn = conn;
    memory->next = *list;
    *list = memory;
    return memory;
}

static void memory_free(struct bed_memory **list, struct bed_memory *memory)
{
    while (*list != memory) {
        list = &(*list)->next;
    }
    *list = memory->next;
    free(memory->bytes);
    free(memory);
}

/* ---- the sink ------------------------------------------------------------------------------ */

static void check_call(struct bed_end *end)
{
    end->n_wrong += !end->in_progress;
}

static uint32_t place_of(const struct bed_end *end, const struct qyi_conn *conn)
{
    for (uint32_t i = 0; i < end->n_conns; i++) {
        if (end->conns[i] == conn) {
            return i;
        }
    }
    return BED_CONNS;
}

static int accepted(void *ctx, struct qyi_conn *conn)
{
    struct bed_end *end = ctx;

    check_call(end);
    end->n_wrong += conn->user != NULL;
    if (end->refuses || end->n_conns == BED_CONNS) {
        return 0;
    }
    conn->user = end;
    end->begun[end->n_conns] = 0;
    end->dead[end->n_conns] = 0;
    end->conns[end->n_conns++] = conn;
    end->n_accepted++;
    return 1;
}

static void connected(void *ctx, struct qyi_conn *conn)
{
    struct bed_end *end = ctx;

    check_call(end);
    end->n_wrong += conn->user != end;
    end->n_connected++;
}

static void *begins(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void **token)
{
    struct bed_end *end = ctx;
    const uint32_t place = place_of(end, conn);
    struct bed_memory *memory;

    check_call(end);
    end->n_begun++;
    if (place == BED_CONNS) {
        end->n_wrong++;
        return NULL;
    }
    end->jumps += head->id != end->begun[place] + 1;
    end->begun[place] = head->id;
    if (end->drops) {
        return NULL;
    }
    memory = memory_add(&end->in, conn, head->payload_bytes);
    memset(memory->bytes, 0xaa, head->payload_bytes);
    *token = memory;
    return memory->bytes;
}

static void arrived(void *ctx, struct qyi_conn *conn, const struct qyi_head *head, void *payload,
                    void *token)
{
    struct bed_end *end = ctx;
    struct bed_memory *memory = token;

    check_call(end);
    end->n_wrong += place_of(end, conn) == BED_CONNS || head->magic != QYI_NET_MAGIC ||
                    head->head[0] != byte_of(head->id, 0);
    if (memory != NULL) {
        end->n_wrong += payload != memory->bytes;
        for (size_t i = 0; i < head->payload_bytes; i++) {
            if (memory->bytes[i] != byte_of(head->id, i)) {
                end->n_wrong++;
                break;
            }
        }
        memory_free(&end->in, memory);
    } else {
        end->n_wrong += payload != NULL;
    }
    end->last_id = head->id;
    end->last_bytes = head->payload_bytes;
    end->n_arrived++;
    if (end->replies != 0) {
        end->n_wrong += bed_send(end, conn, head->id + end->replies, head->payload_bytes) != QY_OK;
    }
}

static void was_sent(void *ctx, struct qyi_conn *conn, struct qyi_message *message,
                     enum qy_status status)
{
    struct bed_end *end = ctx;
    struct bed_memory *memory = message->user;

    check_call(end);
    end->n_wrong += memory->conn != conn || (status != QY_OK && status != QY_ERR_PEER);
    end->n_sent += status == QY_OK;
    end->n_unsent += status != QY_OK;
    memory_free(&end->out, memory);
}

static void broke(void *ctx, struct qyi_conn *conn, const char *why)
{
    struct bed_end *end = ctx;
    const uint32_t place = place_of(end, conn);

    check_call(end);
    if (place == BED_CONNS || end->dead[place]) {
        end->n_wrong++;
        return;
    }
    end->dead[place] = 1;
    end->n_broke++;
    snprintf(end->why, sizeof(end->why), "%s", why);
}

static uint32_t work(void *ctx)
{
    struct bed_end *end = ctx;

    end->n_wrong += !end->in_progress;
    return 0;
}

static void write_log(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    struct bed_end *end = ctx;

    (void)module;
    end->n_errors += level == QY_LOG_ERROR;
    if (strstr(text, "UCX_") != NULL) {
        snprintf(end->log, sizeof(end->log), "%s", text);
    }
}

/* ---- ends ---------------------------------------------------------------------------------- */

const char *bed_no_loopback(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    int usable;

    if (fd < 0) {
        return "the system gives no sockets";
    }
    usable = bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(fd, 1) == 0;
    close(fd);
    return usable ? NULL : "nobody may listen on the loopback device";
}

static enum qy_status open_wire(struct bed_end *end, const char *listen, const char *device,
                                struct qy_error *err)
{
    const struct qyi_wire_params params = {.rt = &end->rt,
                                           .device = device,
                                           .listen = listen,
                                           .max_conns = BED_CONNS,
                                           .depth = end->depth == 0 ? 16 : end->depth,
                                           .sink = {.ctx = end,
                                                    .accepted = accepted,
                                                    .connected = connected,
                                                    .begins = begins,
                                                    .arrived = arrived,
                                                    .sent = was_sent,
                                                    .broke = broke,
                                                    .work = work}};

    end->rt.mem = fail_alloc_make(&end->heap);
    end->rt.log = (struct qy_log){.ctx = end, .write = write_log, .level = QY_LOG_DEBUG};
    return ops->open(&params, &end->wire, err);
}

enum qy_status bed_try_open(struct bed_end *end, const char *listen, const char *device,
                            struct qy_error *err)
{
    memset(end, 0, sizeof(*end));
    end->heap.fail_at = -1;
    return open_wire(end, listen, device, err);
}

void bed_open(struct bed_end *end, const char *listen)
{
    struct qy_error err = {0};

    end->heap.fail_at = -1;
    if (open_wire(end, listen, NULL, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

void bed_close(struct bed_end *end)
{
    while (end->n_conns > 0) {
        bed_close_conn(end, end->conns[end->n_conns - 1]);
    }
    ops->close(end->wire);
    end->wire = NULL;
    assert_null(end->out);
    assert_null(end->in);
    assert_int_equal(end->heap.live, 0);
    assert_int_equal(end->n_wrong, 0);
    assert_int_equal(end->n_errors, 0);
}

const char *bed_address(const struct bed_end *end)
{
    return ops->address(end->wire);
}

struct qyi_conn *bed_connect(struct bed_end *end, const char *address)
{
    struct qy_error err = {0};
    struct qyi_conn *conn = NULL;

    assert_true(end->n_conns < BED_CONNS);
    if (ops->connect(end->wire, address, end, &conn, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    end->begun[end->n_conns] = 0;
    end->dead[end->n_conns] = 0;
    end->conns[end->n_conns++] = conn;
    return conn;
}

/* From then on the wire must not touch what it had of this connection. */
static void free_of(struct bed_memory **list, const struct qyi_conn *conn)
{
    for (struct bed_memory *memory = *list, *next; memory != NULL; memory = next) {
        next = memory->next;
        if (memory->conn == conn) {
            memory_free(list, memory);
        }
    }
}

void bed_close_conn(struct bed_end *end, struct qyi_conn *conn)
{
    const uint32_t place = place_of(end, conn);

    assert_true(place < BED_CONNS);
    end->n_conns--;
    for (uint32_t i = place; i < end->n_conns; i++) {
        end->conns[i] = end->conns[i + 1];
        end->begun[i] = end->begun[i + 1];
        end->dead[i] = end->dead[i + 1];
    }
    ops->close_conn(end->wire, conn);
    free_of(&end->out, conn);
    free_of(&end->in, conn);
}

void bed_close_broken(struct bed_end *end)
{
    for (uint32_t i = end->n_conns; i-- > 0;) {
        if (end->dead[i]) {
            bed_close_conn(end, end->conns[i]);
        }
    }
}

enum qy_status bed_send(struct bed_end *end, struct qyi_conn *conn, uint64_t id, size_t bytes)
{
    struct bed_memory *memory = memory_add(&end->out, conn, bytes);
    enum qy_status st;

    for (size_t i = 0; i < bytes; i++) {
        memory->bytes[i] = byte_of(id, i);
    }
    memory->message.head = (struct qyi_head){
        .magic = QYI_NET_MAGIC, .id = id, .payload_bytes = bytes, .head_bytes = 1};
    memory->message.head.head[0] = byte_of(id, 0);
    memory->message.payload = bytes == 0 ? NULL : memory->bytes;
    memory->message.user = memory;
    st = ops->send(end->wire, conn, &memory->message);
    if (st != QY_OK) {
        memory_free(&end->out, memory);
    }
    return st;
}

int bed_full(const struct bed_end *end)
{
    uint32_t n = 0;

    for (const struct bed_memory *memory = end->out; memory != NULL; memory = memory->next) {
        n++;
    }
    return n >= (end->depth == 0 ? 16 : end->depth);
}

uint32_t bed_poll(struct bed_end *end)
{
    uint32_t n;

    end->in_progress = 1;
    n = ops->progress(end->wire);
    end->in_progress = 0;
    if (n == 0) {
        sched_yield(); /* UCX makes connections in a thread of its own */
    }
    return n;
}

void bed_poll_for(struct bed_end *a, struct bed_end *b, uint64_t ns)
{
    for (const uint64_t begin = qy_clock_ns(); qy_clock_ns() - begin < ns;) {
        bed_poll(a);
        if (b != NULL) {
            bed_poll(b);
        }
    }
}

void bed_meet(struct bed_end *a, struct bed_end *b)
{
    const uint32_t n_accepted = a->n_accepted, n_connected = b->n_connected;

    bed_connect(b, bed_address(a));
    BED_UNTIL(a->n_accepted > n_accepted && b->n_connected > n_connected, a, b);
}

int bed_late(uint64_t begin_ns)
{
    return qy_clock_ns() - begin_ns > 60 * (uint64_t)1000000000;
}

uint32_t bed_open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint32_t n = 0;

    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}
