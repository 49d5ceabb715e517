/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory server: memory of this process for the blocks of others, behind a listener. It runs in two
 * ways that differ only in who starts and ends it: by hand (`quarry memory`), and as the child of a
 * supervisor (`quarry-memory-server`), of which it dies.
 */
#ifndef QY_SERVE_MEMORY_SERVER_H
#define QY_SERVE_MEMORY_SERVER_H

#include "net/net.h"
#include "serve/job/supervisor.h"
#include "serve/serve.h"

/* argv[0] of the child. */
#define QYI_MEMORY_CHILD_NAME "quarry-memory-server"

/* What a supervisor tells the child: its brief, as it is. */
struct qyi_memory_brief {
    uint32_t bytes; /* of this struct */
    uint8_t key[QY_NET_KEY_BYTES];
    struct qy_runtime_settings runtime;
    struct qyi_net_settings net;
};

struct qyi_memory_server_params {
    const struct qy_runtime *rt;        /* kept                                              */
    const struct qyi_net_settings *net; /* kept                                              */
    const char *listen;                 /* borrowed                                          */
    const uint8_t *key;                 /* [QY_NET_KEY_BYTES], borrowed                      */
    struct qyi_supervised *supervised;  /* kept; NULL: run by hand                           */
};

struct qyi_memory_server {
    const struct qy_runtime *rt;
    struct qyi_supervised *supervised;
    struct qy_memory *memory;
    struct qy_node *node;
    const struct qy_service *answers; /* the memory's own */
    struct qy_service service;        /* that, and the lines of the log */
    uint64_t opened_ns, drain_ns;
    uint64_t joined, left; /* peers */
};

/* Reserves memory and listens. server is kept in place until close. QY_ERR_CONFIG: net.listen or net.bytes
 * cannot be. QY_ERR_UNSUPPORTED: this build has no network. [setup] [alloc] */
QY_MUST enum qy_status qyi_memory_server_open(struct qyi_memory_server *server,
                                              const struct qyi_memory_server_params *params,
                                              struct qy_error *err);
/* Answers until Ctrl-C or SIGTERM, and then until its blocks are at other servers, or nobody is connected whose
 * they are, for net.drain_ms at most; or until the supervisor is gone. [owner] */
void qyi_memory_server_run(struct qyi_memory_server *server);
/* Ends all connections at once. A server that was not opened is zeros. */
void qyi_memory_server_close(struct qyi_memory_server *server);
/* What it holds: a line, an object's members. Before close. */
void qyi_memory_server_print(const struct qyi_memory_server *server, FILE *out);
void qyi_memory_server_json(const struct qyi_memory_server *server, cJSON *object);

/* The child's main: the exit code. */
int qyi_memory_child_main(void);

#endif
