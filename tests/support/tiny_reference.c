/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the references of the tiny models. A file, little-endian:
 *
 *   "QYTR"  u32 version (1)  u32 n_text n_chat n_ids first_position n_positions n_vocab
 *   i32 text_ids [n_text]  i32 chat_ids [n_chat]  i32 ids [n_ids]
 *   f32 logits [n_positions][n_vocab]
 */
#include "tests/support/tiny_models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_WORDS = 8 };

static int read_file(const char *path, uint32_t header[HEADER_WORDS], uint32_t **store,
                     size_t *n_words)
{
    FILE *file = fopen(path, "rb");
    int ok = 0;

    if (!file) {
        return 0;
    }
    if (fread(header, 4, HEADER_WORDS, file) == HEADER_WORDS && memcmp(header, "QYTR", 4) == 0 &&
        header[1] == 1) {
        *n_words = (size_t)header[2] + header[3] + header[4] + (size_t)header[6] * header[7];
        *store = malloc(4 * *n_words);
        ok = *store && fread(*store, 4, *n_words, file) == *n_words && fgetc(file) == EOF;
        if (!ok) {
            free(*store);
        }
    }
    (void)fclose(file);
    return ok;
}

int tiny_reference_load(const char *directory, const char *name, struct tiny_reference *out)
{
    char path[512];
    uint32_t header[HEADER_WORDS];
    uint32_t *words;
    size_t n_words;

    (void)snprintf(path, sizeof(path), "%s/%s.bin", directory, name);
    if (!read_file(path, header, &words, &n_words)) {
        (void)fprintf(stderr,
                      "reference '%s': missing or damaged; write it again with "
                      "tests/support/make_reference.py\n",
                      path);
        return -1;
    }
    out->n_text = header[2];
    out->n_chat = header[3];
    out->n_ids = header[4];
    out->first_position = header[5];
    out->n_positions = header[6];
    out->n_vocab = header[7];
    out->text_ids = (const int32_t *)words;
    out->chat_ids = out->text_ids + out->n_text;
    out->ids = out->chat_ids + out->n_chat;
    out->logits = (const float *)(const void *)(out->ids + out->n_ids);
    out->store = words;
    return 0;
}

void tiny_reference_free(struct tiny_reference *reference)
{
    free(reference->store);
    memset(reference, 0, sizeof(*reference));
}
