/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Variables of the environment that belong to others: launchers and transports. Private to net/; our own
 * settings come through runtime/config_env.c.
 */
#ifndef QYI_NET_ENVIRON_H
#define QYI_NET_ENVIRON_H

/* The value, borrowed; NULL: not set, or empty. [any], while nobody changes the environment */
const char *qyi_environ(const char *name);

#endif
