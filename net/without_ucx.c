/* SPDX-License-Identifier: Apache-2.0 */
/* What the network is made of in a build without UCX: nothing. */
#include "net/net.h"

const char *qy_net_ucx_version(void)
{
    return NULL;
}

int qy_net_setting_at(size_t i, struct qy_net_setting *setting)
{
    (void)i;
    (void)setting;
    return 0;
}

enum qy_status qy_net_transports(const struct qy_runtime *rt, struct qy_net_transport *list,
                                 uint32_t max, uint32_t *n, struct qy_error *err)
{
    (void)rt;
    (void)list;
    (void)max;
    (void)n;
    return qy_error_set(
        err, QY_ERR_UNSUPPORTED,
        "transports: this build has no UCX; install UCX and Open MPI (scripts/setup "
        "net) and configure with -DQY_NET=ON");
}
