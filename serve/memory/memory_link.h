/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's way to its memory servers (net.memory, or the memory ranks of its job): its node, one peer for
 * each, and what a cache must know of them. */
#ifndef QY_SERVE_MEMORY_LINK_H
#define QY_SERVE_MEMORY_LINK_H

#include "net/net.h"
#include "serve/serve.h"

enum { QYI_MEMORY_SERVERS = 64 };

/* chosen: lists of 64 K ids a call; answers are cut by who asks. Servers and workers have the same. */
enum { QYI_MEMORY_CALL = 256 << 10, QYI_MEMORY_ANSWER = 1 << 20, QYI_MEMORY_DEPTH = 16 };

struct qyi_memory_link {
    struct qy_node *node;
    struct qy_peer *peers[QYI_MEMORY_SERVERS];
    struct qy_cache_servers servers; /* n 0: there are none */
};

/* Are there memory servers for this run? */
int qyi_memory_link_wanted(const struct qyi_app *app);
/* Begins to connect to them; nothing when there are none. link is kept in place until close.
 * QY_ERR_CONFIG: an address, the key file, or net.replicas. [setup] [alloc] */
QY_MUST enum qy_status qyi_memory_link_open(const struct qyi_app *app, struct qyi_memory_link *link,
                                            struct qy_error *err);
/* The same with a key that is known already, whatever net.key_file says. key: [QY_NET_KEY_BYTES], borrowed. */
QY_MUST enum qy_status qyi_memory_link_open_with(const struct qyi_app *app, const uint8_t *key,
                                                 struct qyi_memory_link *link,
                                                 struct qy_error *err);
/* After the cache. A link that was not opened is zeros. */
void qyi_memory_link_close(struct qyi_memory_link *link);

#endif
