/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SentencePiece's byte-pair encoding (Kudo and Richardson 2018, arXiv:1808.06226): a space is
 * written as U+2581, the pair with the highest score joins first, and a character that is no piece
 * becomes its bytes.
 *
 * differs: a U+2581 in the text itself becomes its bytes, where SentencePiece makes it a space,
 * because decoding must give back what was encoded; and text never becomes a control token, however
 * its pieces join.
 */
#include "model/spm.h"

#include <string.h>

static const uint8_t space_char[3] = {0xe2, 0x96, 0x81}; /* U+2581 */

int qyi_spm_byte(struct qy_text text)
{
    if (text.bytes != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>') {
        return -1;
    }
    int value = 0;
    for (int i = 3; i < 5; i++) {
        char c = text.data[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

void qyi_spm_init(struct qyi_spm *spm, const struct qyi_vocab *vocab)
{
    spm->vocab = vocab;
    memset(spm->byte_ids, 0xff, sizeof(spm->byte_ids));
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        int byte = vocab->types[i] == QYI_TOKEN_BYTE ? qyi_spm_byte(vocab->texts[i]) : -1;
        if (byte >= 0) {
            spm->byte_ids[byte] = (int32_t)i;
        }
    }
}

/* Bytes of the character at p by its first byte alone, as SentencePiece cuts; at least 1. */
static uint32_t char_bytes(const uint8_t *p, size_t left)
{
    static const uint8_t by_high_bits[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    uint32_t n = by_high_bits[*p >> 4];
    return n <= left ? n : (uint32_t)left;
}

/* Larger scores first: maps a score to a number that falls as the score rises. */
static uint32_t score_priority(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are one score */
    memcpy(&bits, &score, sizeof(bits));
    return bits >> 31 ? bits : 0x7fffffff - bits;
}

struct pass {
    const struct qyi_spm *spm;
    const uint8_t *text; /* escaped */
};

static int find_merge(const void *ctx, const struct qyi_symbol *left,
                      const struct qyi_symbol *right, uint32_t *priority, int32_t *id)
{
    const struct pass *pass = ctx;
    const struct qyi_vocab *vocab = pass->spm->vocab;
    *id =
        qyi_vocab_find_normal(vocab, pass->text + left->begin, (size_t)left->bytes + right->bytes);
    if (*id < 0) {
        return 0;
    }
    *priority = score_priority(vocab->scores[*id]);
    return 1;
}

/* Cuts text into characters, writing spaces as U+2581 into escaped. Returns their number. */
static size_t cut(const struct qyi_spm *spm, const uint8_t *text, size_t bytes, int space_before,
                  uint8_t *escaped, struct qyi_symbol *symbols)
{
    size_t n = 0;
    uint32_t to = 0;
    for (size_t from = 0; from < bytes || space_before;) {
        int is_space = space_before || text[from] == ' ';
        uint32_t step = is_space ? 3 : char_bytes(text + from, bytes - from);
        const uint8_t *source = is_space ? space_char : text + from;
        memcpy(escaped + to, source, step);
        symbols[n].begin = to;
        symbols[n].bytes = step;
        symbols[n].id = qyi_vocab_find_normal(spm->vocab, source, step);
        if (!is_space && step == 3 && memcmp(source, space_char, 3) == 0) {
            symbols[n].id = QYI_SYMBOL_LONE;
        }
        from += space_before ? 0 : is_space ? 1 : step;
        space_before = 0;
        to += step;
        n++;
    }
    return n;
}

static void add_bytes(const struct qyi_spm *spm, const uint8_t *text, uint32_t bytes,
                      struct qyi_array *ids)
{
    for (uint32_t i = 0; i < bytes; i++) {
        int32_t id = spm->byte_ids[text[i]];
        id = id < 0 ? spm->vocab->unknown : id;
        if (id >= 0) {
            ((int32_t *)ids->data)[ids->n++] = id;
        }
    }
}

int qyi_spm_encode(const struct qyi_spm *spm, struct qyi_merger *merger, struct qyi_array *escaped,
                   const uint8_t *text, size_t bytes, int space_before, struct qyi_array *ids)
{
    size_t most = bytes + (space_before != 0);
    escaped->n = 0;
    struct qyi_symbol *symbols = qyi_merger_begin(merger, most);
    if (symbols == NULL || qyi_array_reserve(escaped, 3 * most) != 0 ||
        qyi_array_reserve(ids, most) != 0) {
        return -1;
    }
    struct pass pass = {spm, escaped->data};
    size_t n = cut(spm, text, bytes, space_before, escaped->data, symbols);
    merger->symbols.n = n;
    qyi_merger_run(merger, find_merge, &pass);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *at = pass.text + symbols[i].begin;
        int escaped_space = symbols[i].bytes == 3 && memcmp(at, space_char, 3) == 0;
        if (symbols[i].bytes == 0) {
            continue;
        }
        if (symbols[i].id >= 0) {
            ((int32_t *)ids->data)[ids->n++] = symbols[i].id;
        } else if (escaped_space && symbols[i].id == QYI_SYMBOL_NONE) {
            add_bytes(spm, (const uint8_t *)" ", 1, ids);
        } else {
            add_bytes(spm, at, symbols[i].bytes, ids);
        }
    }
    return 0;
}

size_t qyi_spm_decode(struct qy_text text, char *out, size_t out_bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < text.bytes; n++) {
        int is_space = text.bytes - i >= 3 && memcmp(text.data + i, space_char, 3) == 0;
        if (n < out_bytes) {
            out[n] = is_space ? ' ' : text.data[i];
        }
        i += is_space ? 3 : 1;
    }
    return n;
}
