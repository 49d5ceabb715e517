/* SPDX-License-Identifier: Apache-2.0 */
/* The key that the processes of a job and their memory servers know each other by, in a file: 64 hex
 * digits, for its owner's eyes only. */
#ifndef QY_SERVE_KEY_H
#define QY_SERVE_KEY_H

#include "net/net.h"

/* key [QY_NET_KEY_BYTES]; the caller clears it. QY_ERR_CONFIG, and err says what to do: no such file, others
 * may read it, it is somebody else's, or holds something else. */
QY_MUST enum qy_status qyi_key_read(const char *path, uint8_t *key, struct qy_error *err);
/* Writes a new random key into a new file with mode 0600. QY_ERR_CONFIG: there is a file already, or
 * none can be made there. */
QY_MUST enum qy_status qyi_key_write_new(const char *path, struct qy_error *err);

#endif
