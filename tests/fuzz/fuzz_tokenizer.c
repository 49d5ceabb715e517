/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as text, over the small vocabularies: encoding gives ids of the vocabulary, decoding
 * gives the bytes back exactly, and a stream that holds back incomplete characters adds up to the
 * same. The first byte of the input chooses the vocabulary and the flags.
 */
#include "tests/fuzz/fuzz.h"

#include "model/model.h"
#include "tests/support/make_gguf_vocab.h"
#include "tests/support/make_gguf_writer.h"

#include <stdlib.h>
#include <string.h>

const unsigned fuzz_replays = 3000;

enum { N_VOCABS = 6, N_BPE = 4 };

/* Opened at the first input and kept: the vocabularies never change. */
static struct vocab {
    uint8_t *bytes;
    struct qy_gguf *gguf;
    struct qy_tokenizer *tokenizer;
} vocabs[N_VOCABS];

static void close_vocabs(void)
{
    for (size_t i = 0; i < N_VOCABS; i++) {
        qy_tokenizer_close(vocabs[i].tokenizer);
        qy_gguf_close(vocabs[i].gguf);
        free(vocabs[i].bytes);
    }
}

static void open_vocabs(const struct qy_allocator *mem)
{
    static const char *const pre[N_BPE] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};

    for (size_t i = 0; i < N_VOCABS; i++) {
        struct gguf_writer w;
        struct qy_error err;
        size_t n;
        gguf_writer_init(&w, 3, 32);
        if (i < N_BPE) {
            vocab_put_bpe(&w, pre[i], 0);
        } else {
            vocab_put_spm(&w, i == N_BPE);
        }
        vocabs[i].bytes = gguf_writer_finish(&w, &n);
        if (qy_gguf_open_memory(mem, vocabs[i].bytes, n, "vocab", &vocabs[i].gguf, &err) != QY_OK ||
            qy_tokenizer_open(mem, vocabs[i].gguf, &vocabs[i].tokenizer, &err) != QY_OK) {
            abort();
        }
    }
    (void)atexit(close_vocabs);
}

/* The pieces one by one through the stream give what decoding them together gives. */
static void check_stream(const struct qy_tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                         int special, const char *text, size_t n)
{
    struct qy_utf8_stream stream = {0};
    size_t at = 0;

    for (size_t i = 0; i <= n_ids; i++) {
        char piece[64];
        char out[sizeof(piece) + 4];
        const int last = i == n_ids;
        const int bytes =
            last ? 0 : qy_tokenizer_piece(tokenizer, ids[i], special, piece, sizeof(piece));
        if (bytes < 0) {
            abort();
        }
        const size_t written = qy_utf8_push(&stream, piece, (size_t)bytes, last, out);
        if (written > n - at || memcmp(text + at, out, written) != 0) {
            abort();
        }
        at += written;
    }
    if (at != n) {
        abort();
    }
}

/* The same text as two spans, cut anywhere, gives the same ids when no control token may be in it;
 * as one trusted span it gives them when they may. */
static void check_spans(const struct qy_tokenizer *tokenizer, const char *text, size_t n,
                        int special, const int32_t *expected, size_t n_expected)
{
    const struct qy_allocator mem = qy_allocator_system();
    const size_t cut = special || n == 0 ? n : (size_t)(uint8_t)text[n / 2] % (n + 1);
    const struct qy_span spans[2] = {{text, cut, special}, {text + cut, n - cut, special}};
    struct qy_error err;
    int32_t *ids = NULL;
    size_t n_ids;

    if (qy_tokenizer_encode_spans(tokenizer, spans, 2, 0, &ids, &n_ids, &err) != QY_OK ||
        n_ids != n_expected || (n_ids && memcmp(ids, expected, n_ids * sizeof(*ids)) != 0)) {
        abort();
    }
    qy_free(&mem, ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_error err;
    int32_t *ids = NULL;
    char *text = NULL;
    size_t n_ids;
    size_t n_text;

    if (n == 0) {
        return 0;
    }
    if (!vocabs[0].bytes) {
        open_vocabs(&mem);
    }
    const int spm = data[0] % N_VOCABS >= N_BPE;
    const unsigned flags = data[0] & 0x40 ? QY_ENCODE_SPECIAL : 0;
    const int special = flags != 0;
    const struct qy_tokenizer *tokenizer = vocabs[data[0] % N_VOCABS].tokenizer;
    const char *input = (const char *)data + 1;
    if (qy_tokenizer_encode(tokenizer, input, n - 1, flags, &ids, &n_ids, &err) != QY_OK ||
        qy_tokenizer_decode(tokenizer, ids, n_ids, special, &text, &n_text, &err) != QY_OK) {
        abort();
    }
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= qy_tokenizer_size(tokenizer)) {
            abort();
        }
    }
    /* A SentencePiece vocabulary puts a space behind special tokens, which decoding keeps. */
    const int exact = !(spm && special);
    if (exact && (n_text != n - 1 || memcmp(text, input, n_text) != 0)) {
        abort();
    }
    check_spans(tokenizer, input, n - 1, special, ids, n_ids);
    if (!spm) {
        check_stream(tokenizer, ids, n_ids, special, text, n_text);
    }
    qy_free(&mem, text);
    qy_free(&mem, ids);
    return 0;
}

uint8_t *fuzz_seed(size_t i, size_t *n)
{
    static const char *const texts[] = {
        "Hello, the 2024 caf\xc3\xa9s' sun isn't there;  and 12345 \xf0\x9f\x99\x82 end.\n\n\tx",
        "<|im_start|>user\nThe end?<|im_end|>\n<s> <tool>and </s>",
        "\xff\xfe\xc3\x28 \xe4\xbd\xa0\xed\xa0\x80 \xc2\x85\xe2\x80\x99s I'LL\r\n \n  ",
    };
    enum { N_TEXTS = sizeof(texts) / sizeof(texts[0]) };

    if (i >= (size_t)2 * N_VOCABS * N_TEXTS) {
        return NULL;
    }
    const size_t bytes = strlen(texts[i % N_TEXTS]);
    uint8_t *seed = malloc(bytes + 1);
    if (!seed) {
        abort();
    }
    const size_t vocab = i / N_TEXTS % N_VOCABS;
    seed[0] = (uint8_t)vocab; /* 66 and on: the same vocabulary with bit 0x40 set */
    if (i / N_TEXTS >= N_VOCABS) {
        seed[0] = (uint8_t)(66 + vocab);
    }
    memcpy(seed + 1, texts[i % N_TEXTS], bytes);
    *n = bytes + 1;
    return seed;
}
