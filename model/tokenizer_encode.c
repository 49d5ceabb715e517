/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to ids: special tokens are found first, then the text between them goes through the
 * vocabulary's own method.
 *
 *   spans -> joined text -> [ordinary][special][ordinary]... -> words (BPE) -> merges -> ids
 */
#include <string.h>

#include "model/tokenizer.h"

enum { MAX_TEXT_BYTES = 1 << 30 };

/* Everything one call needs. */
struct encoding {
    const struct qy_tokenizer *tokenizer;
    struct qyi_array ids;      /* int32_t             */
    struct qyi_array specials; /* struct qyi_special  */
    struct qyi_array scratch;  /* uint8_t             */
    struct qyi_splitter splitter;
    struct qyi_merger merger;
};

static enum qy_status no_memory(size_t bytes, struct qy_error *err)
{
    return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory to encode %zu bytes", bytes);
}

static enum qy_status encode_words(struct encoding *e, const uint8_t *text, size_t bytes,
                                   struct qy_error *err)
{
    const struct qy_tokenizer *t = e->tokenizer;
    const int whole_words = qyi_pretokenizer_whole_words(t->pre);
    enum qy_status st = qyi_split(&e->splitter, text, bytes, err);
    if (st != QY_OK) {
        return st;
    }
    const uint32_t *ends = e->splitter.ends.data;
    size_t begin = 0;
    for (size_t i = 0; i < e->splitter.ends.n; i++) {
        size_t n = ends[i] - begin;
        int32_t whole = whole_words ? qyi_bpe_whole_word(&t->vocab, text + begin, n) : -1;
        int failed = whole >= 0
                         ? qyi_array_add_i32(&e->ids, whole)
                         : qyi_bpe_encode_word(&t->bpe, &e->merger, text + begin, n, &e->ids);
        if (failed) {
            return no_memory(bytes, err);
        }
        begin = ends[i];
    }
    return QY_OK;
}

/* Text between special tokens, or between one and an end of the whole text. */
static enum qy_status encode_ordinary(struct encoding *e, const uint8_t *text, size_t bytes,
                                      struct qy_error *err)
{
    const struct qy_tokenizer *t = e->tokenizer;
    if (bytes == 0) {
        return QY_OK;
    }
    if (t->vocab.kind == QYI_VOCAB_BPE) {
        return encode_words(e, text, bytes, err);
    }
    if (qyi_spm_encode(&t->spm, &e->merger, &e->scratch, text, bytes, t->vocab.add_space_prefix,
                       &e->ids) != 0) {
        return no_memory(bytes, err);
    }
    return QY_OK;
}

static enum qy_status encode_text(struct encoding *e, const uint8_t *text, size_t bytes,
                                  const struct qyi_trusted *trusted, size_t n_trusted,
                                  struct qy_error *err)
{
    const struct qyi_vocab *vocab = &e->tokenizer->vocab;
    if (qyi_vocab_find_specials(vocab, text, bytes, trusted, n_trusted, &e->specials) != 0) {
        return no_memory(bytes, err);
    }
    size_t at = 0;
    for (size_t i = 0; i < e->specials.n; i++) {
        const struct qyi_special *special = (const struct qyi_special *)e->specials.data + i;
        enum qy_status st = encode_ordinary(e, text + at, special->begin - at, err);
        if (st != QY_OK) {
            return st;
        }
        if (qyi_array_add_i32(&e->ids, special->id) != 0) {
            return no_memory(bytes, err);
        }
        at = special->begin + special->bytes;
    }
    return encode_ordinary(e, text + at, bytes - at, err);
}

/* BOS in front and EOS behind, where the file asks for them and the text has no BOS of its own. */
static int add_ends(struct encoding *e)
{
    const struct qyi_vocab *vocab = &e->tokenizer->vocab;
    const int32_t *first = e->ids.data;
    if (vocab->add_bos && vocab->bos >= 0 && (e->ids.n == 0 || first[0] != vocab->bos)) {
        if (qyi_array_reserve(&e->ids, 1) != 0) {
            return -1;
        }
        int32_t *ids = e->ids.data;
        memmove(ids + 1, ids, e->ids.n * sizeof(*ids));
        ids[0] = vocab->bos;
        e->ids.n++;
    }
    return vocab->add_eos && vocab->eos >= 0 ? qyi_array_add_i32(&e->ids, vocab->eos) : 0;
}

static enum qy_status encode(const struct qy_tokenizer *t, const uint8_t *text, size_t bytes,
                             const struct qyi_trusted *trusted, size_t n_trusted, unsigned flags,
                             int32_t **ids, size_t *n_ids, struct qy_error *err)
{
    struct encoding e = {.tokenizer = t};
    e.ids.mem = e.specials.mem = e.scratch.mem = &t->mem;
    e.ids.element_bytes = sizeof(int32_t);
    e.specials.element_bytes = sizeof(struct qyi_special);
    e.scratch.element_bytes = 1;
    qyi_merger_init(&e.merger, &t->mem);
    enum qy_status st = QY_OK;
    if (t->pre != NULL) {
        st = qyi_splitter_init(&e.splitter, t->pre, err);
        if (st != QY_OK) {
            return st;
        }
    }
    /* About four bytes to a token; the result is never NULL, not even when it is empty. */
    if (qyi_array_reserve(&e.ids, bytes / 4 + 8) != 0) {
        st = no_memory(bytes, err);
    }
    if (st == QY_OK) {
        st = encode_text(&e, text, bytes, trusted, n_trusted, err);
    }
    if (st == QY_OK && (flags & QY_ENCODE_BOS) != 0 && add_ends(&e) != 0) {
        st = no_memory(bytes, err);
    }
    if (t->pre != NULL) {
        qyi_splitter_fini(&e.splitter);
    }
    qyi_merger_fini(&e.merger);
    qyi_array_free(&e.scratch);
    qyi_array_free(&e.specials);
    if (st != QY_OK) {
        qyi_array_free(&e.ids);
        return st;
    }
    *ids = e.ids.data;
    *n_ids = e.ids.n;
    return QY_OK;
}

static enum qy_status check_bytes(size_t bytes, struct qy_error *err)
{
    if (bytes <= MAX_TEXT_BYTES) {
        return QY_OK;
    }
    return qy_error_set(err, QY_ERR_INVALID,
                        "text of %zu bytes: too long; at most %d bytes are encoded at once", bytes,
                        MAX_TEXT_BYTES);
}

enum qy_status qy_tokenizer_encode(const struct qy_tokenizer *tokenizer, const char *text,
                                   size_t bytes, unsigned flags, int32_t **ids, size_t *n_ids,
                                   struct qy_error *err)
{
    struct qyi_trusted all = {0, bytes};
    enum qy_status st = check_bytes(bytes, err);
    if (st != QY_OK) {
        return st;
    }
    return encode(tokenizer, bytes > 0 ? (const uint8_t *)text : (const uint8_t *)"", bytes, &all,
                  (flags & QY_ENCODE_SPECIAL) != 0, flags, ids, n_ids, err);
}

/* Joins the spans in text and lists the trusted ones. Returns how many those are. */
static size_t join(const struct qy_span *spans, size_t n_spans, uint8_t *text,
                   struct qyi_trusted *trusted)
{
    size_t n_trusted = 0;
    size_t at = 0;
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].bytes > 0) {
            memcpy(text + at, spans[i].text, spans[i].bytes);
        }
        if (spans[i].trusted) {
            trusted[n_trusted].begin = at;
            trusted[n_trusted++].end = at + spans[i].bytes;
        }
        at += spans[i].bytes;
    }
    return n_trusted;
}

enum qy_status qy_tokenizer_encode_spans(const struct qy_tokenizer *tokenizer,
                                         const struct qy_span *spans, size_t n_spans,
                                         unsigned flags, int32_t **ids, size_t *n_ids,
                                         struct qy_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n_spans; i++) {
        bytes = spans[i].bytes > MAX_TEXT_BYTES ? SIZE_MAX / 2 : bytes + spans[i].bytes;
        enum qy_status st = check_bytes(bytes, err);
        if (st != QY_OK) {
            return st;
        }
    }
    uint8_t *text = qy_alloc_zero(&tokenizer->mem, bytes + 1);
    struct qyi_trusted *trusted = qy_alloc_zero(&tokenizer->mem, (n_spans + 1) * sizeof(*trusted));
    enum qy_status st;
    if (text == NULL || trusted == NULL) {
        st = no_memory(bytes, err);
    } else {
        size_t n_trusted = join(spans, n_spans, text, trusted);
        st = encode(tokenizer, text, bytes, trusted, n_trusted, flags, ids, n_ids, err);
    }
    qy_free(&tokenizer->mem, trusted);
    qy_free(&tokenizer->mem, text);
    return st;
}
