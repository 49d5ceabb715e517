/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the real model file; see the header. */
#include "tests/support/real_model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char file_name[] = "quarry/SmolLM2-135M-Instruct.Q4_1.gguf";

/* Where the file should be; an empty text when no variable tells. */
static void look_up(char *path, size_t bytes)
{
    const char *given = getenv("QY_TEST_MODEL");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    path[0] = '\0';
    if (given != NULL && given[0] != '\0') {
        (void)snprintf(path, bytes, "%s", given);
    } else if (cache != NULL && cache[0] != '\0') {
        (void)snprintf(path, bytes, "%s/%s", cache, file_name);
    } else if (home != NULL) {
        (void)snprintf(path, bytes, "%s/.cache/%s", home, file_name);
    }
}

const char *real_model_path(void)
{
    static char path[PATH_MAX];
    static int looked;
    static int found;
    if (!looked) {
        looked = 1;
        look_up(path, sizeof(path));
        found = access(path, R_OK) == 0;
        if (!found) {
            (void)fprintf(
                stderr,
                "skipped: model file '%s': cannot be read; run scripts/fetch-model or set "
                "QY_TEST_MODEL\n",
                path);
        }
    }
    return found ? path : NULL;
}
