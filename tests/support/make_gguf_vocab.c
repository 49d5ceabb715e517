/* SPDX-License-Identifier: Apache-2.0 */
/* The small vocabularies of the tiny models; see the header. */
#include "tests/support/make_gguf_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_BYTE = 6 };

/* Tokens as they are collected; the texts lie in `store`. */
struct vocab {
    struct qy_text texts[VOCAB_SPM_SIZE];
    float scores[VOCAB_SPM_SIZE];
    int32_t types[VOCAB_SPM_SIZE];
    size_t n;
    char store[8192];
    size_t used;
};

static struct qy_text keep(struct vocab *v, const char *data, size_t n)
{
    if (sizeof(v->store) - v->used < n) {
        abort();
    }
    char *at = memcpy(v->store + v->used, data, n);
    v->used += n;
    return (struct qy_text){at, n};
}

static void add(struct vocab *v, const char *text, int32_t type, float score)
{
    if (v->n >= VOCAB_SPM_SIZE) {
        abort();
    }
    v->texts[v->n] = keep(v, text, strlen(text));
    v->scores[v->n] = score;
    v->types[v->n] = type;
    v->n++;
}

/* Up to size, with tokens that no text gives. */
static void fill(struct vocab *v, size_t size, float score)
{
    while (v->n < size) {
        char text[32];
        (void)snprintf(text, sizeof(text), "[UNUSED%zu]", v->n);
        add(v, text, TYPE_NORMAL, score);
    }
}

/* ---- byte-level BPE ---- */

/* In order of rank; bytes as they are in text. Each side is a byte or an earlier result. */
static const char *const merges[][2] = {
    {" ", "t"},           {"h", "e"},       {"i", "n"},           {" ", "a"},   {"e", "r"},
    {"o", "n"},           {" t", "he"},     {"r", "e"},           {" ", " "},   {"n", "d"},
    {"a", "t"},           {"\n", "\n"},     {"e", "n"},           {" a", "nd"}, {"\xc3", "\xa9"},
    {"1", "2"},           {"2", "0"},       {"20", "2"},          {"l", "l"},   {"'", "s"},
    {"\xe2", "\x80"},     {"o", "r"},       {"  ", "  "},         {"f", "o"},   {"fo", "o"},
    {"\xe2\x80", "\x99"}, {"4", "5"},       {"12", "3"},          {" ", "s"},   {"T", "h"},
    {"Th", "e"},          {"\xe4", "\xbd"}, {"\xe4\xbd", "\xa0"}, {"3", "."},
};

/* The characters that stand for bytes in such vocabularies: printable Latin-1 for itself, the
 * others from U+0100 on (Radford et al. 2019, the published encoder). */
static size_t put_byte(uint8_t byte, char *out)
{
    static const struct {
        uint32_t first, last;
    } plain[] = {{33, 126}, {161, 172}, {174, 255}};
    uint32_t code = 256;

    for (uint32_t b = 0; b <= byte; b++) {
        int printable = 0;
        for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
            printable |= b >= plain[i].first && b <= plain[i].last;
        }
        if (b == byte && printable) {
            code = b;
        } else if (b < byte && !printable) {
            code++;
        }
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

/* bytes of text in those characters, NUL-terminated. */
static size_t put_mapped(const char *text, char *out)
{
    size_t n = 0;

    for (; *text; text++) {
        n += put_byte((uint8_t)*text, out + n);
    }
    out[n] = '\0';
    return n;
}

static void add_bytes(struct vocab *v)
{
    for (int printable = 1; printable >= 0; printable--) {
        for (int b = 0; b < 256; b++) {
            char text[3] = "";
            const size_t n = put_byte((uint8_t)b, text);
            const int is_plain = n == 1 || (uint8_t)text[0] < 0xc4;
            text[n] = '\0';
            if (is_plain == printable) {
                add(v, text, TYPE_NORMAL, 0.0F);
            }
        }
    }
}

void vocab_put_bpe(struct gguf_writer *w, const char *pre, int add_bos)
{
    enum { N_MERGES = sizeof(merges) / sizeof(merges[0]) };
    struct qy_text pairs[N_MERGES];
    struct vocab *v = calloc(1, sizeof(*v));

    if (!v) {
        abort();
    }
    add_bytes(v);
    for (size_t i = 0; i < N_MERGES; i++) {
        char pair[64];
        char token[64];
        size_t n = put_mapped(merges[i][0], pair);
        (void)memcpy(token, pair, n);
        pair[n] = ' ';
        const size_t right = put_mapped(merges[i][1], pair + n + 1);
        (void)memcpy(token + n, pair + n + 1, right + 1);
        pairs[i] = keep(v, pair, n + 1 + right);
        add(v, token, TYPE_NORMAL, 0.0F);
    }
    const uint32_t first_special = (uint32_t)v->n;
    add(v, "<|endoftext|>", TYPE_CONTROL, 0.0F);
    add(v, "<|im_start|>", TYPE_CONTROL, 0.0F);
    add(v, "<|im_end|>", TYPE_CONTROL, 0.0F);
    add(v, "<tool>", TYPE_USER, 0.0F);
    fill(v, VOCAB_BPE_SIZE, 0.0F);

    gguf_put_text(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(w, "tokenizer.ggml.pre", pre);
    gguf_put_texts(w, "tokenizer.ggml.tokens", v->texts, v->n);
    gguf_put_array(w, "tokenizer.ggml.token_type", QY_GGUF_I32, v->n, v->types, 4 * v->n);
    gguf_put_texts(w, "tokenizer.ggml.merges", pairs, N_MERGES);
    gguf_put_u32(w, "tokenizer.ggml.bos_token_id", first_special);
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", first_special + 2);
    gguf_put_u32(w, "tokenizer.ggml.padding_token_id", first_special);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", add_bos);
    gguf_put_text(w, "tokenizer.chat_template",
                  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                  "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
                  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
    free(v);
}

/* ---- SentencePiece ---- */

#define SPACE "\xe2\x96\x81" /* U+2581, which stands for the space */

/* Longer pieces, best first. */
static const char *const pieces[] = {
    SPACE SPACE, SPACE "t", "he",  "in",  SPACE "a", "er",        "on",
    SPACE "the", "re",      "nd",  "at",  "en",      SPACE "and", "12",
    "20",        "202",     "ll",  "or",  "fo",      "foo",       SPACE SPACE SPACE SPACE,
    SPACE "s",   "Th",      "The", "n't", "45",      "\xc3\xa9s",
};

void vocab_put_spm(struct gguf_writer *w, int add_space_prefix)
{
    static const char singles[] = "etaoinshrdlucmfwypvbgkjqxzTHOEK0123456789.,;'()_=+-!?";
    struct vocab *v = calloc(1, sizeof(*v));
    float score = -1.0F;

    if (!v) {
        abort();
    }
    add(v, "<unk>", TYPE_UNKNOWN, 0.0F);
    add(v, "<s>", TYPE_CONTROL, 0.0F);
    add(v, "</s>", TYPE_CONTROL, 0.0F);
    for (int b = 0; b < 256; b++) {
        char text[8];
        (void)snprintf(text, sizeof(text), "<0x%02X>", b);
        add(v, text, TYPE_BYTE, 0.0F);
    }
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++, score -= 1.0F) {
        add(v, pieces[i], TYPE_NORMAL, score);
    }
    add(v, SPACE, TYPE_NORMAL, score -= 1.0F);
    add(v, "\xc3\xa9", TYPE_NORMAL, score -= 1.0F);
    for (size_t i = 0; singles[i]; i++) {
        const char text[2] = {singles[i], '\0'};
        add(v, text, TYPE_NORMAL, score -= 1.0F);
    }
    add(v, "<tool>", TYPE_USER, 0.0F);
    fill(v, VOCAB_SPM_SIZE, score - 1.0F);

    gguf_put_text(w, "tokenizer.ggml.model", "llama");
    gguf_put_text(w, "tokenizer.ggml.pre", "default");
    gguf_put_texts(w, "tokenizer.ggml.tokens", v->texts, v->n);
    gguf_put_array(w, "tokenizer.ggml.scores", QY_GGUF_F32, v->n, v->scores, 4 * v->n);
    gguf_put_array(w, "tokenizer.ggml.token_type", QY_GGUF_I32, v->n, v->types, 4 * v->n);
    gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", 1);
    gguf_put_bool(w, "tokenizer.ggml.add_eos_token", 0);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", add_space_prefix);
    free(v);
}
