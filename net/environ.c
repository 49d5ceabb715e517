/* SPDX-License-Identifier: Apache-2.0 */
/* The one place of net/ that looks at the environment. */
#include "net/environ.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

const char *qyi_environ(const char *name)
{
    const size_t n = strlen(name);

    for (char **p = environ; p != NULL && *p != NULL; p++) {
        if (strncmp(*p, name, n) == 0 && (*p)[n] == '=' && (*p)[n + 1] != '\0') {
            return *p + n + 1;
        }
    }
    return NULL;
}
