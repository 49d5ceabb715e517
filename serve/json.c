/* SPDX-License-Identifier: Apache-2.0 */
/* JSON on stdout; texts of a model become valid UTF-8 first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

/* Bytes of the UTF-8 character at text (NUL-terminated), or 0 when it is not one: overlong forms,
 * surrogates and numbers past U+10FFFF are none. */
static size_t character_at(const unsigned char *text)
{
    const unsigned char c = text[0];
    const size_t n = c < 0x80                ? 1
                     : c >= 0xc2 && c < 0xe0 ? 2
                     : c >= 0xe0 && c < 0xf0 ? 3
                     : c >= 0xf0 && c < 0xf5 ? 4
                                             : 0;
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    const int bad = (c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] > 0x9f) ||
                    (c == 0xf0 && text[1] < 0x90) || (c == 0xf4 && text[1] > 0x8f);
    return bad ? 0 : n;
}

cJSON *qyi_json_add_text(cJSON *object, const char *name, const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    char *clean = malloc(3 * strlen(text) + 1);
    if (clean == NULL) {
        return NULL;
    }
    size_t used = 0;
    for (const char *at = text; *at != '\0';) {
        const size_t n = character_at((const unsigned char *)at);
        memcpy(clean + used, n > 0 ? at : replacement, n > 0 ? n : 3);
        used += n > 0 ? n : 3;
        at += n > 0 ? n : 1;
    }
    clean[used] = '\0';
    cJSON *added = cJSON_AddStringToObject(object, name, clean);
    free(clean);
    return added;
}

int qyi_print_json(cJSON *object)
{
    char *text = object != NULL ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    if (text == NULL) {
        fprintf(stderr, "quarry: error: JSON: out of memory\n");
        return 1;
    }
    const int failed = puts(text) < 0 || fflush(stdout) != 0;
    cJSON_free(text);
    if (failed) {
        fprintf(stderr, "quarry: error: stdout: %s\n", strerror(errno));
    }
    return failed;
}
