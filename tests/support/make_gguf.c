/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the tiny models of the tests as files, the same bytes each time.
 *
 *   make_gguf FOLDER [NAME]   FOLDER/<name>.gguf of every model, or of one
 *   make_gguf --text|--chat   the texts whose ids are in the references
 *   make_gguf --list          the names
 */
#include "tests/support/tiny_models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int write_model(const char *folder, const struct tiny_spec *spec)
{
    char path[1024];
    size_t n;
    uint8_t *bytes = tiny_build(spec, &n);

    (void)snprintf(path, sizeof(path), "%s/%s.gguf", folder, spec->name);
    FILE *file = fopen(path, "wb");
    int failed = !file || fwrite(bytes, 1, n, file) != n;
    if (file && fclose(file) != 0) {
        failed = 1;
    }
    if (failed) {
        perror(path);
    }
    free(bytes);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc == 2 && strcmp(argv[1], "--text") == 0) {
        return fputs(tiny_text, stdout) < 0;
    }
    if (argc == 2 && strcmp(argv[1], "--chat") == 0) {
        return fputs(tiny_chat, stdout) < 0;
    }
    const int list = argc == 2 && strcmp(argv[1], "--list") == 0;
    if (!list && (argc < 2 || argc > 3 || argv[1][0] == '-')) {
        (void)fprintf(stderr, "usage: make_gguf FOLDER [NAME] | --list | --text | --chat\n");
        return 2;
    }
    if (argc == 3 && !tiny_spec_find(argv[2])) {
        (void)fprintf(stderr, "model '%s': no such tiny model; --list names them\n", argv[2]);
        return 2;
    }
    for (size_t i = 0; tiny_spec_at(i) && !failed; i++) {
        const struct tiny_spec *spec = tiny_spec_at(i);
        if (list) {
            (void)printf("%s\n", spec->name);
        } else if (argc == 2 || strcmp(argv[2], spec->name) == 0) {
            failed = write_model(argv[1], spec);
        }
    }
    return failed;
}
