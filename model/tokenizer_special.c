/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds control and user-defined tokens in a text before it is cut into words. The longest texts
 * claim their places first, whatever stands to the left, as llama.cpp does; a control token counts
 * only where the caller trusts the text.
 */
#include <stdlib.h>
#include <string.h>

#include "model/grow.h"
#include "model/vocab.h"

struct search {
    const struct qyi_vocab *vocab;
    const uint8_t *text;
    size_t bytes;
    const struct qyi_trusted *trusted;
    size_t n_trusted;
    uint8_t *claimed; /* [bytes] 1 = part of a special token */
    struct qyi_array *found;
};

/* Whether one trusted range holds [begin, end); *range moves along with begin. */
static int is_trusted(const struct search *s, size_t *range, size_t begin, size_t end)
{
    while (*range < s->n_trusted && s->trusted[*range].end <= begin) {
        (*range)++;
    }
    return *range < s->n_trusted && s->trusted[*range].begin <= begin &&
           end <= s->trusted[*range].end;
}

/* Claims every free place of the special tokens [first, last), which all have n bytes. */
static int claim_length(const struct search *s, uint32_t first, uint32_t last, uint32_t n)
{
    const struct qyi_vocab *vocab = s->vocab;
    uint8_t starts[256] = {0};
    for (uint32_t i = first; i < last; i++) {
        starts[(uint8_t)vocab->texts[vocab->specials[i]].data[0]] = 1;
    }
    size_t range = 0;
    size_t at = 0;
    while (at + n <= s->bytes) {
        /* A longer or equal claim that overlaps must hold one of the two ends. */
        if (!starts[s->text[at]] || s->claimed[at] || s->claimed[at + n - 1]) {
            at++;
            continue;
        }
        int32_t id = qyi_vocab_find(vocab, s->text + at, n);
        uint8_t type = id < 0 ? QYI_TOKEN_NORMAL : vocab->types[id];
        int counts = type == QYI_TOKEN_USER;
        if (type == QYI_TOKEN_CONTROL || type == QYI_TOKEN_UNKNOWN) {
            counts = is_trusted(s, &range, at, at + n);
        }
        if (!counts) {
            at++;
            continue;
        }
        if (qyi_array_reserve(s->found, 1) != 0) {
            return -1;
        }
        struct qyi_special special = {at, n, id};
        ((struct qyi_special *)s->found->data)[s->found->n++] = special;
        memset(s->claimed + at, 1, n);
        at += n;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct qyi_special *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

int qyi_vocab_find_specials(const struct qyi_vocab *vocab, const uint8_t *text, size_t bytes,
                            const struct qyi_trusted *trusted, size_t n_trusted,
                            struct qyi_array *found)
{
    size_t any = 0;
    while (any < bytes && !vocab->special_first[text[any]]) {
        any++;
    }
    if (any == bytes) {
        return 0;
    }
    struct search s = {vocab, text, bytes, trusted, n_trusted, NULL, found};
    s.claimed = qy_alloc_zero(&vocab->mem, bytes);
    if (s.claimed == NULL) {
        return -1;
    }
    int failed = 0;
    for (uint32_t first = 0, last; first < vocab->n_specials && !failed; first = last) {
        size_t n = vocab->texts[vocab->specials[first]].bytes;
        for (last = first; last < vocab->n_specials; last++) {
            if (vocab->texts[vocab->specials[last]].bytes != n) {
                break;
            }
        }
        failed = claim_length(&s, first, last, (uint32_t)n) != 0;
    }
    qy_free(&vocab->mem, s.claimed);
    if (!failed && found->n > 1) {
        qsort(found->data, found->n, sizeof(struct qyi_special), by_place);
    }
    return failed ? -1 : 0;
}
