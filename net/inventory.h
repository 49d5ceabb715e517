/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part of net.h, not to be included alone: what the network of this build and host is made of, for people who
 * set it up. Nothing here opens a connection.
 */
#ifndef QY_NET_INVENTORY_H
#define QY_NET_INVENTORY_H

#ifndef QY_NET_H
#error "include net/net.h"
#endif

/* The version of UCX as it is loaded, "1.13.1"; NULL: this build has none. [any] */
const char *qy_net_ucx_version(void);

/* One setting that is asked of UCX. */
struct qy_net_setting {
    const char *variable; /* the environment's, "UCX_TLS": a user's value wins over ours */
    const char *value;    /* in force; "": UCX's own choice                              */
    const char *why;      /* of ours, a literal                                          */
    int by_user;
};
/* Row i; 0: i is past the end, and a build without UCX has no row. [any] */
int qy_net_setting_at(size_t i, struct qy_net_setting *setting);

/* A way that UCX could take from this host, used or not. */
struct qy_net_transport {
    char name[16];   /* "tcp"  */
    char device[32]; /* "eth0" */
    int is_network;  /* it leads to other hosts */
};
/* Writes the first `max` to list [max], and how many there are to *n. UCX is told our settings first, so that
 * its log keeps quiet. QY_ERR_UNSUPPORTED: this build has no UCX; QY_ERR_CONFIG: UCX refuses the
 * environment; QY_ERR_DEVICE: it does not tell. [setup] [alloc] */
QY_MUST enum qy_status qy_net_transports(const struct qy_runtime *rt, struct qy_net_transport *list,
                                         uint32_t max, uint32_t *n, struct qy_error *err);

#endif
