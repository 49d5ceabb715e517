/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts text into words with PCRE2. A pre-tokenizer is a list of patterns: the first cuts the text,
 * the next cuts each piece of that, seeing nothing around the piece; what a pattern does not match
 * is a piece too.
 *
 * The patterns follow those of GPT-2, StarCoder, Llama 3 and Qwen2 (their tokenizer.json), written
 * so that a failed attempt never goes back more than one character: time is linear in the text.
 */
#include "model/pretokenize.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "model/utf8.h"

/* White space of Unicode, with and without the ends of lines. PCRE2's \s has U+180E besides. */
#define SPACE_BUT_CR_LF                                                                            \
    "\\t\\x0b\\x0c\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"      \
    "\\x{205f}\\x{3000}"
#define SPACE "\\r\\n" SPACE_BUT_CR_LF
/* A run of white space leaves its last character to the word that follows. */
#define SPACES "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]"
#define SYMBOLS "[^" SPACE "\\p{L}\\p{N}]++"

#define GPT2 "'(?:s|t|re|ve|m|ll|d)|\\x20?\\p{L}++|\\x20?\\p{N}++|\\x20?" SYMBOLS "|" SPACES
/* digits: how many digits one word holds. */
#define LLAMA3(digits)                                                                             \
    "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}++|"          \
    "\\p{N}" digits "|\\x20?" SYMBOLS "[\\r\\n]*+|(?:[" SPACE_BUT_CR_LF "]*+[\\r\\n]++)++|" SPACES

enum { MAX_PATTERNS = 4 };

struct kind {
    const char *names; /* of tokenizer.ggml.pre, each between spaces */
    int whole_words;
    const char *patterns[MAX_PATTERNS];
};

static const struct kind kinds[] = {
    {" smollm starcoder refact command-r codeshell ", 0, {"\\p{N}", GPT2}},
    {" gpt-2 gpt2 phi-2 mpt olmo jais ", 0, {GPT2}},
    {" llama-bpe llama3 llama-v3 falcon3 ", 1, {LLAMA3("{1,3}+")}},
    {" qwen2 deepseek-r1-qwen stablelm2 megrez ", 0, {LLAMA3("")}},
    {" default ", 0, {"[\\p{P}$+<=>^~|]++", GPT2, "\\p{N}++", "[0-9][0-9][0-9]"}},
};

struct qyi_pretokenizer {
    struct qy_allocator mem;
    pcre2_general_context *general;
    const struct kind *kind;
    pcre2_code *codes[MAX_PATTERNS];
    int jit[MAX_PATTERNS];
};

static void *pcre_alloc(size_t bytes, void *ctx)
{
    const struct qy_allocator *mem = ctx;
    return mem->alloc(mem->ctx, bytes, 16);
}

static void pcre_free(void *ptr, void *ctx)
{
    qy_free(ctx, ptr);
}

static const struct kind *find_kind(struct qy_text name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        for (const char *word = kinds[i].names + 1; *word != '\0';) {
            size_t n = strcspn(word, " ");
            if (n == name.bytes && memcmp(word, name.data, n) == 0) {
                return &kinds[i];
            }
            word += n + 1;
        }
    }
    return NULL;
}

static enum qy_status compile(struct qyi_pretokenizer *pre, int i, struct qy_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(pre->general);
    if (context == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for the pre-tokenizer");
    }
    int code = 0;
    size_t at = 0;
    pre->codes[i] = pcre2_compile((PCRE2_SPTR)pre->kind->patterns[i], PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &at, context);
    pcre2_compile_context_free(context);
    if (pre->codes[i] == NULL) {
        return qy_error_set(err,
                            code == PCRE2_ERROR_HEAP_FAILED ? QY_ERR_NOMEM : QY_ERR_UNSUPPORTED,
                            "tokenizer: PCRE2 refuses pattern %d at %zu with code %d; it must be "
                            "built with Unicode support",
                            i, at, code);
    }
    /* Where machine code is not allowed, the interpreter does the same more slowly. */
    pre->jit[i] = pcre2_jit_compile(pre->codes[i], PCRE2_JIT_COMPLETE) == 0;
    return QY_OK;
}

enum qy_status qyi_pretokenizer_open(const struct qy_allocator *mem, struct qy_text name,
                                     struct qyi_pretokenizer **pre, struct qy_error *err)
{
    const struct kind *kind = find_kind(name);
    if (kind == NULL) {
        return qy_error_set(err, QY_ERR_UNSUPPORTED,
                            "pre-tokenizer '%.*s': not supported; supported: smollm (starcoder, "
                            "refact, command-r, codeshell), gpt-2 (phi-2, mpt, olmo, jais), "
                            "llama-bpe (llama3, llama-v3, falcon3), qwen2 (deepseek-r1-qwen, "
                            "stablelm2, megrez), default",
                            (int)(name.bytes < 40 ? name.bytes : 40), name.data);
    }
    struct qyi_pretokenizer *p = qy_alloc_zero(mem, sizeof(*p));
    if (p == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for the pre-tokenizer");
    }
    p->mem = *mem;
    p->kind = kind;
    p->general = pcre2_general_context_create(pcre_alloc, pcre_free, &p->mem);
    enum qy_status st = QY_OK;
    if (p->general == NULL) {
        st = qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for the pre-tokenizer");
    }
    for (int i = 0; st == QY_OK && i < MAX_PATTERNS && kind->patterns[i] != NULL; i++) {
        st = compile(p, i, err);
    }
    if (st != QY_OK) {
        qyi_pretokenizer_close(p);
        return st;
    }
    *pre = p;
    return QY_OK;
}

void qyi_pretokenizer_close(struct qyi_pretokenizer *pre)
{
    if (pre == NULL) {
        return;
    }
    for (int i = 0; i < MAX_PATTERNS; i++) {
        pcre2_code_free(pre->codes[i]);
    }
    pcre2_general_context_free(pre->general);
    struct qy_allocator mem = pre->mem;
    qy_free(&mem, pre);
}

int qyi_pretokenizer_whole_words(const struct qyi_pretokenizer *pre)
{
    return pre->kind->whole_words;
}

enum qy_status qyi_splitter_init(struct qyi_splitter *splitter, const struct qyi_pretokenizer *pre,
                                 struct qy_error *err)
{
    memset(splitter, 0, sizeof(*splitter));
    splitter->pre = pre;
    splitter->ends.mem = splitter->next.mem = splitter->masked.mem = &pre->mem;
    splitter->ends.element_bytes = splitter->next.element_bytes = sizeof(uint32_t);
    splitter->masked.element_bytes = 1;
    splitter->match = pcre2_match_data_create(1, pre->general);
    splitter->limits = pcre2_match_context_create(pre->general);
    if (splitter->match == NULL || splitter->limits == NULL) {
        qyi_splitter_fini(splitter);
        return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory to cut words");
    }
    return QY_OK;
}

void qyi_splitter_fini(struct qyi_splitter *splitter)
{
    pcre2_match_data_free(splitter->match);
    pcre2_match_context_free(splitter->limits);
    splitter->match = splitter->limits = NULL;
    qyi_array_free(&splitter->ends);
    qyi_array_free(&splitter->next);
    qyi_array_free(&splitter->masked);
}

/* The next match of pattern i at or after from: 1 found, 0 none, below 0 a code of PCRE2. */
static int match(const struct qyi_splitter *s, int i, const uint8_t *text, size_t bytes,
                 size_t from)
{
    const struct qyi_pretokenizer *pre = s->pre;
    int n = PCRE2_ERROR_JIT_STACKLIMIT;
    if (pre->jit[i]) {
        n = pcre2_jit_match(pre->codes[i], text, bytes, from, 0, s->match, s->limits);
    }
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) {
        n = pcre2_match(pre->codes[i], text, bytes, from, PCRE2_NO_JIT | PCRE2_NO_UTF_CHECK,
                        s->match, s->limits);
    }
    return n == PCRE2_ERROR_NOMATCH ? 0 : n < 0 ? n : 1;
}

/* Cuts the piece [begin, end) of text with pattern i and adds the ends to s->next. */
static enum qy_status cut(struct qyi_splitter *s, int i, const uint8_t *text, uint32_t begin,
                          uint32_t end, struct qy_error *err)
{
    const size_t *offsets = pcre2_get_ovector_pointer(s->match);
    size_t at = 0;
    size_t bytes = end - begin;
    while (at < bytes) {
        int found = match(s, i, text + begin, bytes, at);
        if (found < 0 || (found > 0 && offsets[1] <= at)) {
            return qy_error_set(err,
                                found == PCRE2_ERROR_NOMEMORY ? QY_ERR_NOMEM : QY_ERR_UNSUPPORTED,
                                "tokenizer: cutting %zu bytes into words failed with PCRE2 code %d",
                                bytes - at, found);
        }
        size_t first = found == 0 ? bytes : offsets[0];
        int failed = 0;
        if (first > at) {
            failed = qyi_array_add_u32(&s->next, begin + (uint32_t)first);
        }
        if (found > 0 && !failed) {
            failed = qyi_array_add_u32(&s->next, begin + (uint32_t)offsets[1]);
        }
        if (failed) {
            return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for %zu bytes of text",
                                bytes);
        }
        at = found == 0 ? bytes : offsets[1];
    }
    return QY_OK;
}

/* text itself where it is valid UTF-8; else a copy in which U+0001, a symbol of one byte, stands
 * for each byte that is not. NULL: no memory. */
static const uint8_t *mask_invalid(struct qyi_splitter *s, const uint8_t *text, size_t bytes)
{
    size_t at = qyi_utf8_scan(text, bytes);
    if (at == bytes) {
        return text;
    }
    s->masked.n = 0;
    if (qyi_array_reserve(&s->masked, bytes) != 0) {
        return NULL;
    }
    uint8_t *copy = s->masked.data;
    memcpy(copy, text, bytes);
    for (; at < bytes; at += 1 + qyi_utf8_scan(text + at + 1, bytes - at - 1)) {
        copy[at] = 1;
    }
    return copy;
}

enum qy_status qyi_split(struct qyi_splitter *s, const uint8_t *text, size_t bytes,
                         struct qy_error *err)
{
    /* Steps grow with the text at most linearly and need no depth: more is a fault, so it stops. */
    pcre2_set_match_limit(s->limits, (uint32_t)bytes + 10000);
    pcre2_set_depth_limit(s->limits, 1000);
    pcre2_set_heap_limit(s->limits, 1024);
    s->ends.n = 0;
    text = bytes == 0 ? text : mask_invalid(s, text, bytes);
    if (bytes > 0 && (text == NULL || qyi_array_add_u32(&s->ends, (uint32_t)bytes) != 0)) {
        return qy_error_set(err, QY_ERR_NOMEM, "tokenizer: no memory for %zu bytes of text", bytes);
    }
    for (int i = 0; i < MAX_PATTERNS && s->pre->kind->patterns[i] != NULL; i++) {
        s->next.n = 0;
        uint32_t begin = 0;
        for (size_t k = 0; k < s->ends.n; k++) {
            uint32_t end = ((const uint32_t *)s->ends.data)[k];
            enum qy_status st = cut(s, i, text, begin, end, err);
            if (st != QY_OK) {
                return st;
            }
            begin = end;
        }
        struct qyi_array swap = s->ends;
        s->ends = s->next;
        s->next = swap;
    }
    return QY_OK;
}
