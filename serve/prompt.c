/* SPDX-License-Identifier: Apache-2.0 */
/* From files, prompts and chat messages to token ids. Text of users is never trusted with control
 * tokens unless --special says so. */
#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

enum qy_status qyi_encode(const struct qyi_engine *engine, const char *text, size_t bytes,
                          int32_t **ids, size_t *n, struct qy_error *err)
{
    const unsigned special = engine->app->args->special ? QY_ENCODE_SPECIAL : 0;
    return qy_tokenizer_encode(engine->tokenizer, text, bytes, QY_ENCODE_BOS | special, ids, n,
                               err);
}

enum qy_status qyi_read_ids(const struct qyi_engine *engine, const char *path, int32_t **ids,
                            size_t *n, struct qy_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    enum qy_status st = qyi_read_file(path, &text, &bytes, err);
    if (st == QY_OK) {
        st = qyi_encode(engine, text, bytes, ids, n, err);
    }
    free(text);
    return st;
}

/* Cuts text to the bytes of its first max_tokens tokens, at the end of a character. */
static enum qy_status cut_text(const struct qyi_engine *engine, char *text, size_t *bytes,
                               size_t max_tokens, struct qy_error *err)
{
    const struct qy_allocator *mem = &engine->app->rt.mem;
    int32_t *ids = NULL;
    size_t n = 0, kept_bytes = 0;
    char *kept = NULL;
    enum qy_status st = qy_tokenizer_encode(engine->tokenizer, text, *bytes, 0, &ids, &n, err);
    if (st == QY_OK && n > max_tokens) {
        st = qy_tokenizer_decode(engine->tokenizer, ids, max_tokens, 1, &kept, &kept_bytes, err);
        if (st == QY_OK && kept_bytes < *bytes) {
            while (kept_bytes > 0 && ((unsigned char)text[kept_bytes] & 0xc0) == 0x80) {
                kept_bytes--;
            }
            *bytes = kept_bytes;
            text[kept_bytes] = '\0';
        }
    }
    qy_free(mem, kept);
    qy_free(mem, ids);
    return st;
}

/* --system, then the content as the user's message, then the start of the reply. */
enum qy_status qyi_prompt_message(const struct qyi_engine *engine, const char *prefix,
                                  const char *system, const char *content, size_t bytes, int first,
                                  struct qyi_prompt *prompt, struct qy_error *err)
{
    const struct qy_allocator *mem = &engine->app->rt.mem;
    const enum qy_chat_format format = qy_chat_detect(engine->gguf);
    if (format == QY_CHAT_NONE) {
        return qy_error_set(
            err, QY_ERR_UNSUPPORTED,
            "model: its chat template is neither ChatML nor Llama-3; leave --chat and "
            "-i out and write the prompt in the model's own form");
    }
    struct qy_chat_parts head = {0}, body = {0};
    struct qy_span spans[7];
    size_t n = 0;
    enum qy_status st = QY_OK;
    const int trusted = engine->app->args->special;
    if (prefix != NULL) {
        spans[n++] = (struct qy_span){prefix, strlen(prefix), 1};
    }
    if (system != NULL && first) {
        st = qy_chat_format_message(mem, engine->gguf, format, "system", system, strlen(system), 1,
                                    0, &head, err);
        if (st == QY_OK) {
            spans[n++] = (struct qy_span){head.before, strlen(head.before), 1};
            spans[n++] = (struct qy_span){head.content, head.bytes, trusted};
            spans[n++] = (struct qy_span){head.after, strlen(head.after), 1};
        }
    }
    if (st == QY_OK) {
        st = qy_chat_format_message(mem, engine->gguf, format, "user", content, bytes,
                                    first && system == NULL, 1, &body, err);
    }
    if (st == QY_OK) {
        spans[n++] = (struct qy_span){body.before, strlen(body.before), 1};
        spans[n++] = (struct qy_span){body.content, body.bytes, trusted};
        spans[n++] = (struct qy_span){body.after, strlen(body.after), 1};
        st = qy_tokenizer_encode_spans(engine->tokenizer, spans, n, first ? QY_ENCODE_BOS : 0,
                                       &prompt->ids, &prompt->n, err);
    }
    qy_chat_parts_free(mem, &head);
    qy_chat_parts_free(mem, &body);
    return st;
}

/* file + "\n\n" + prompt as one text; freed with free. */
static char *join(const char *file, size_t file_bytes, const char *prompt, size_t *bytes)
{
    const size_t prompt_bytes = strlen(prompt), gap = file_bytes > 0 && prompt_bytes > 0 ? 2 : 0;
    char *text = malloc(file_bytes + gap + prompt_bytes + 1);
    if (text != NULL) {
        if (file_bytes > 0) {
            memcpy(text, file, file_bytes);
        }
        memcpy(text + file_bytes, "\n\n", gap);
        memcpy(text + file_bytes + gap, prompt, prompt_bytes + 1);
        *bytes = file_bytes + gap + prompt_bytes;
    }
    return text;
}

enum qy_status qyi_prompt_build(const struct qyi_engine *engine, const char *question,
                                struct qyi_prompt *prompt, struct qy_error *err)
{
    const struct qyi_args *args = engine->app->args;
    char *file = NULL, *text = NULL;
    size_t file_bytes = 0, bytes = 0;
    enum qy_status st = QY_OK;
    prompt->ids = NULL;
    prompt->n = 0;
    if (args->file != NULL) {
        st = qyi_read_file(args->file, &file, &file_bytes, err);
        if (st == QY_OK && args->prompt_tokens > 0) {
            st = cut_text(engine, file, &file_bytes, args->prompt_tokens, err);
        }
    }
    if (st == QY_OK && args->chat) {
        text = join(file, file_bytes, question, &bytes);
        st = text == NULL
                 ? qy_error_set(err, QY_ERR_NOMEM, "prompt: out of memory")
                 : qyi_prompt_message(engine, NULL, args->system, text, bytes, 1, prompt, err);
    } else if (st == QY_OK) {
        const struct qy_span spans[] = {{file != NULL ? file : "", file_bytes, args->special},
                                        {question, strlen(question), args->special}};
        st = qy_tokenizer_encode_spans(engine->tokenizer, spans, 2, QY_ENCODE_BOS, &prompt->ids,
                                       &prompt->n, err);
    }
    free(text);
    free(file);
    if (st == QY_OK && prompt->n == 0) {
        const int32_t bos = qy_tokenizer_bos(engine->tokenizer);
        qy_free(&engine->app->rt.mem, prompt->ids);
        prompt->ids = qy_alloc_zero(&engine->app->rt.mem, sizeof(int32_t));
        if (bos < 0 || prompt->ids == NULL) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "prompt: empty; give text with -f FILE or -p TEXT");
        }
        prompt->ids[0] = bos; /* nothing to say: the model begins by itself */
        prompt->n = 1;
    }
    return st;
}

enum qy_status qyi_prompt_prefill(struct qyi_engine *engine, struct qy_sequence *seq,
                                  const struct qyi_prompt *prompt, uint64_t *ns,
                                  struct qy_error *err)
{
    const int told = engine->app->args->prompts == NULL; /* a list has one line for all */
    struct qyi_progress progress;
    size_t done = 0;
    const uint64_t begin = qy_clock_ns();
    qyi_progress_start(&progress, "reading", "tokens", prompt->n - 1);
    const enum qy_status st = qyi_engine_prefill(engine, seq, prompt->ids, prompt->n - 1, 0,
                                                 told ? &progress : NULL, &done, err);
    if (st == QY_OK && prompt->n > 1 && told) {
        qyi_progress_end(&progress, done);
    }
    *ns = qy_clock_ns() - begin;
    qy_model_times_reset(engine->model);
    qy_cache_stats_reset(engine->cache);
    return st;
}
