/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chat formats: ChatML and Llama-3. The template of the file (a Jinja program) is not run, only
 * looked at: which format it writes, and which default system message it names.
 */
#include <string.h>

#include "model/model.h"

static const char template_key[] = "tokenizer.chat_template";

enum qy_chat_format qy_chat_detect(const struct qy_gguf *gguf)
{
    static const char chatml[] = "<|im_start|>";
    static const char llama3[] = "<|start_header_id|>";
    struct qy_text text;
    if (qy_gguf_get_text(gguf, template_key, &text) != 0) {
        return QY_CHAT_NONE;
    }
    if (memmem(text.data, text.bytes, chatml, sizeof(chatml) - 1) != NULL) {
        return QY_CHAT_CHATML;
    }
    if (memmem(text.data, text.bytes, llama3, sizeof(llama3) - 1) != NULL) {
        return QY_CHAT_LLAMA3;
    }
    return QY_CHAT_NONE;
}

const char *qy_chat_reply_end(enum qy_chat_format format)
{
    switch (format) {
    case QY_CHAT_CHATML:
        return "<|im_end|>\n";
    case QY_CHAT_LLAMA3:
        return "<|eot_id|>";
    case QY_CHAT_NONE:
        break;
    }
    return "";
}

/* A text being put together; out NULL only counts. */
struct writer {
    char *out;
    size_t n;
};

static void put_bytes(struct writer *w, const char *text, size_t bytes)
{
    if (w->out != NULL && bytes > 0) {
        memcpy(w->out + w->n, text, bytes);
    }
    w->n += bytes;
}

static void put(struct writer *w, const char *text)
{
    put_bytes(w, text, strlen(text));
}

/* Reads a default system message out of p [left], which follows "<|im_start|>system" inside a
 * string of the template that opened with quote: up to "<|im_end|>". Writes it, without escapes,
 * into w and returns 1; 0 when the string ends first or a character of Jinja stands there. */
static int put_literal(const char *p, size_t left, char quote, struct writer *w)
{
    static const char end[] = "<|im_end|>";
    struct writer text = {w->out == NULL ? NULL : w->out + w->n, 0};
    int line_end = 0;
    for (size_t i = 0; i < left; i++) {
        char c = p[i];
        if (left - i >= sizeof(end) - 1 && memcmp(p + i, end, sizeof(end) - 1) == 0) {
            w->n += line_end ? text.n : 0;
            return line_end;
        }
        if ((quote != 0 && c == quote) || c == '{' || c == '}') {
            return 0;
        }
        if (quote != 0 && c == '\\' && i + 1 < left) {
            i++;
            c = p[i] == 'n' ? '\n' : p[i] == 't' ? '\t' : p[i];
        }
        if (!line_end) { /* the role's line must end here */
            if (c != '\n') {
                return 0;
            }
            line_end = 1;
            continue;
        }
        put_bytes(&text, &c, 1);
    }
    return 0;
}

/* Writes the default system message that a ChatML template names; 0 when it names none. */
static int put_default_system(const struct qy_gguf *gguf, struct writer *w)
{
    static const char start[] = "<|im_start|>system";
    struct qy_text text;
    if (qy_gguf_get_text(gguf, template_key, &text) != 0) {
        return 0;
    }
    const char *p = text.data;
    const char *end = text.data + text.bytes;
    while ((p = memmem(p, (size_t)(end - p), start, sizeof(start) - 1)) != NULL) {
        char quote = p > text.data && (p[-1] == '\'' || p[-1] == '"') ? p[-1] : 0;
        p += sizeof(start) - 1;
        if (put_literal(p, (size_t)(end - p), quote, w)) {
            return 1;
        }
    }
    return 0;
}

static void put_header(struct writer *w, enum qy_chat_format format, const char *role)
{
    put(w, format == QY_CHAT_CHATML ? "<|im_start|>" : "<|start_header_id|>");
    put(w, role);
    put(w, format == QY_CHAT_CHATML ? "\n" : "<|end_header_id|>\n\n");
}

static void put_before(struct writer *w, const struct qy_gguf *gguf, enum qy_chat_format format,
                       const char *role, int first)
{
    if (format == QY_CHAT_NONE) {
        return;
    }
    if (first && format == QY_CHAT_LLAMA3) {
        put(w, "<|begin_of_text|>");
    }
    if (first && format == QY_CHAT_CHATML && strcmp(role, "system") != 0) {
        size_t start = w->n;
        put_header(w, format, "system");
        if (put_default_system(gguf, w)) {
            put(w, qy_chat_reply_end(format));
        } else {
            w->n = start;
        }
    }
    put_header(w, format, role);
}

static void put_after(struct writer *w, enum qy_chat_format format, int open_reply)
{
    put(w, qy_chat_reply_end(format));
    if (open_reply && format != QY_CHAT_NONE) {
        put_header(w, format, "assistant");
    }
}

/* A role stands in a trusted span, so it must not be able to spell a control token. */
static int role_is_word(const char *role)
{
    size_t n = strspn(role, "abcdefghijklmnopqrstuvwxyz_");
    return n > 0 && n <= 32 && role[n] == '\0';
}

static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

enum qy_status qy_chat_format_message(const struct qy_allocator *mem, const struct qy_gguf *gguf,
                                      enum qy_chat_format format, const char *role,
                                      const char *content, size_t bytes, int first, int open_reply,
                                      struct qy_chat_parts *parts, struct qy_error *err)
{
    if (!role_is_word(role)) {
        return qy_error_set(err, QY_ERR_INVALID,
                            "chat role '%.40s': not a word of lower-case letters; use system, user "
                            "or assistant",
                            role);
    }
    struct writer before = {NULL, 0}, after = {NULL, 0};
    put_before(&before, gguf, format, role, first);
    put_after(&after, format, open_reply);
    /* The default message is written before it is known to be one: room for a whole template. */
    struct qy_text template = {NULL, 0};
    if (qy_gguf_get_text(gguf, template_key, &template) != 0) {
        template.bytes = 0;
    }
    before.out = qy_alloc_zero(mem, before.n + template.bytes + 128);
    after.out = qy_alloc_zero(mem, after.n + 1);
    if (before.out == NULL || after.out == NULL) {
        qy_free(mem, before.out);
        qy_free(mem, after.out);
        return qy_error_set(err, QY_ERR_NOMEM, "chat: no memory for a message");
    }
    before.n = after.n = 0;
    put_before(&before, gguf, format, role, first);
    put_after(&after, format, open_reply);
    before.out[before.n] = '\0';
    after.out[after.n] = '\0';
    /* Llama-3's template trims; ChatML's keeps every byte. */
    while (format == QY_CHAT_LLAMA3 && bytes > 0 && is_space(content[0])) {
        content++;
        bytes--;
    }
    while (format == QY_CHAT_LLAMA3 && bytes > 0 && is_space(content[bytes - 1])) {
        bytes--;
    }
    struct qy_chat_parts result = {before.out, after.out, content, bytes};
    *parts = result;
    return QY_OK;
}

void qy_chat_parts_free(const struct qy_allocator *mem, struct qy_chat_parts *parts)
{
    qy_free(mem, parts->before);
    qy_free(mem, parts->after);
    memset(parts, 0, sizeof(*parts));
}
