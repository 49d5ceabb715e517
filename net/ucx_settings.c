/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of UCX, one row each, with the reason. It is set on UCX's configuration, never in the
 * environment: that is the user's, and what it sets wins.
 */
#include "net/ucx.h"

#include "net/environ.h"

#include <string.h>

struct row {
    const char *variable;
    const char *key;   /* the same for ucp_config_modify: the prefixes of its tables are left out */
    const char *value; /* NULL: the chosen device, if there is one */
    const char *why;
    int own; /* belongs to our choice of transports: not asked for when the user makes it */
};

/* The first names the transports. */
static const struct row rows[] = {
    {"UCX_TLS", "TLS", "tcp,self",
     "a process that dies must be noticed, and shared memory does not tell; networks with RDMA are "
     "named here by the user",
     0},
    {"UCX_NET_DEVICES", "NET_DEVICES", NULL,
     "transports listen too, and only the chosen device is to be open", 0},
    {"UCX_KEEPALIVE_INTERVAL", "KEEPALIVE_INTERVAL", "inf",
     "UCX 1.13 can crash when one fires while a connection to a stopped peer is closed; requests "
     "have deadlines of ours",
     0},
    {"UCX_TCP_AF_PRIO", "AF_PRIO", "inet",
     "data goes over one family, and UCX 1.13 damages memory when an address is of the other", 0},
    {"UCX_TCP_PUT_ENABLE", "PUT_ENABLE", "n",
     "UCX 1.13 ends the process when a peer dies while payloads are put into its memory", 0},
    {"UCX_ZCOPY_THRESH", "ZCOPY_THRESH", "inf",
     "UCX 1.13 ends the process when a peer dies while a payload is sent from where it lies; with "
     "tcp a copy costs nothing that shows",
     1},
    {"UCX_TCP_TX_SEG_SIZE", "TX_SEG_SIZE", "64k", "copies are sent in few system calls", 1},
    {"UCX_TCP_RX_SEG_SIZE", "RX_SEG_SIZE", "64k", "what comes is not longer than this", 1},
    {"UCX_RNDV_THRESH", "RNDV_THRESH", "200k",
     "with tcp, up to there a copy costs less than asking the receiver first (64 KiB: 37 us "
     "instead of 62)",
     1},
    {"UCX_CM_REUSEADDR", "CM_REUSEADDR", "y",
     "a server that is started again takes its port at once", 0},
    {"UCX_LOG_LEVEL", "LOG_LEVEL", "fatal",
     "UCX writes its log to stdout, where results go; what fails is told by us", 0},
    {"UCX_WARN_UNUSED_ENV_VARS", "WARN_UNUSED_ENV_VARS", "n",
     "variables of other versions of UCX are no matter of ours", 0},
};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };

static int is_asked(const struct row *row)
{
    return !row->own || qyi_environ(rows[0].variable) == NULL;
}

int qy_net_setting_at(size_t i, struct qy_net_setting *setting)
{
    const char *by_user;

    if (i >= N_ROWS) {
        return 0;
    }
    by_user = qyi_environ(rows[i].variable);
    *setting =
        (struct qy_net_setting){.variable = rows[i].variable, .value = "", .why = rows[i].why};
    if (by_user != NULL) {
        setting->value = by_user;
        setting->by_user = 1;
    } else if (rows[i].value != NULL && is_asked(&rows[i])) {
        setting->value = rows[i].value;
    }
    return 1;
}

int qyi_ucx_family(void)
{
    const char *by_user = qyi_environ("UCX_TCP_AF_PRIO");

    return by_user != NULL && strncmp(by_user, "inet6", strlen("inet6")) == 0 ? AF_INET6 : AF_INET;
}

/* A variable that is set but empty counts as not set with us, and UCX would read it: ours goes over it. */
static enum qy_status apply(const struct qy_runtime *rt, const struct row *row, const char *value,
                            ucp_config_t *config, struct qy_error *err)
{
    const char *by_user = qyi_environ(row->variable);
    ucs_status_t status;

    if (by_user != NULL) {
        qy_log_write(&rt->log, QY_LOG_DEBUG, "net",
                     "%s: '%s' from the environment instead of '%s' (%s)", row->variable, by_user,
                     value, row->why);
        return QY_OK;
    }
    status = ucp_config_modify(config, row->key, value);
    if (status != UCS_OK) {
        return qy_error_set(err, QY_ERR_CONFIG,
                            "transport setting '%s': value '%s' refused by UCX %s (%s); set the "
                            "variable %s to a value that it takes",
                            row->variable, value, ucp_get_version_string(),
                            ucs_status_string(status), row->variable);
    }
    return QY_OK;
}

enum qy_status qyi_ucx_config(const struct qy_runtime *rt, const char *device,
                              ucp_config_t **config, struct qy_error *err)
{
    ucp_config_t *made = NULL;
    const ucs_status_t status = ucp_config_read(NULL, NULL, &made);

    if (status != UCS_OK) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "environment variables 'UCX_...': refused by UCX %s (%s); unset them, or "
            "set UCX_LOG_LEVEL to error to see which",
            ucp_get_version_string(), ucs_status_string(status));
    }
    for (size_t i = 0; i < N_ROWS; i++) {
        const char *value = rows[i].value != NULL ? rows[i].value : device;

        if (value[0] != '\0' && is_asked(&rows[i])) {
            const enum qy_status st = apply(rt, &rows[i], value, made, err);

            if (st != QY_OK) {
                ucp_config_release(made);
                return st;
            }
        }
    }
    *config = made;
    return QY_OK;
}
