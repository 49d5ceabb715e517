/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quarry generate -i: a conversation over one context. What was said stays in the cache: a turn
 * prefills only its own message. The first message carries the file's text when one is given.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/serve.h"

/* How long nobody looks after blocks on memory servers while a line is waited for: as qy_cache_tend says. */
enum { IDLE_MS = 100, BUSY_MS = 2 };

struct talk {
    struct qyi_engine *engine;
    struct qy_sequence *seq;
    char *file; /* joins the first message; NULL afterwards */
    size_t file_bytes;
    int first;
    int32_t pending; /* the reply's last token, not in the cache yet; -1: none */
    int pending_end;
};

/* Ids of this turn: what the last reply left open, then the message. */
static enum qy_status turn_ids(struct talk *talk, const char *line, size_t bytes,
                               struct qyi_prompt *prompt, struct qy_error *err)
{
    const struct qyi_engine *engine = talk->engine;
    const struct qy_allocator *mem = &engine->app->rt.mem;
    struct qyi_prompt said = {0};
    const char *close = talk->first ? NULL : qy_chat_reply_end(qy_chat_detect(engine->gguf));
    char *text = malloc(talk->file_bytes + bytes + 3);
    if (text == NULL) {
        return qy_error_set(err, QY_ERR_NOMEM, "message: out of memory");
    }
    size_t n = 0;
    if (talk->file_bytes > 0) {
        memcpy(text, talk->file, talk->file_bytes);
        memcpy(text + talk->file_bytes, "\n\n", 2);
        n = talk->file_bytes + 2;
    }
    memcpy(text + n, line, bytes);
    enum qy_status st = qyi_prompt_message(engine, close, engine->app->args->system, text,
                                           n + bytes, talk->first, &said, err);
    free(text);
    /* The reply's end token opens `close`; a reply that was cut short still needs its last token.
     */
    const size_t extra = st == QY_OK && talk->pending >= 0 && !talk->pending_end ? 1 : 0;
    if (st == QY_OK) {
        prompt->ids = qy_alloc_zero(mem, (said.n + extra) * sizeof *prompt->ids);
        prompt->n = said.n + extra;
        if (prompt->ids == NULL) {
            st = qy_error_set(err, QY_ERR_NOMEM, "message: out of memory");
        } else {
            prompt->ids[0] = talk->pending;
            memcpy(prompt->ids + extra, said.ids, said.n * sizeof *said.ids);
        }
    }
    qy_free(mem, said.ids);
    return st;
}

/* One message and its reply. QY_AGAIN: the context is full. */
static enum qy_status turn(struct talk *talk, const char *line, size_t bytes, struct qy_error *err)
{
    struct qyi_engine *engine = talk->engine;
    const uint32_t have = qy_sequence_tokens(talk->seq);
    struct qyi_prompt prompt = {0};
    struct qyi_answer answer = {0};
    uint64_t prefill_ns = 0;
    enum qy_status st = turn_ids(talk, line, bytes, &prompt, err);
    const uint64_t room = engine->max_tokens;
    if (st == QY_OK && have + prompt.n + 1 > room) {
        st = qy_error_set(
            err, QY_AGAIN,
            "context full: %u tokens are kept, the message has %zu, --ctx is %llu; start "
            "again with a larger --ctx",
            have, prompt.n, (unsigned long long)room);
    }
    uint64_t n = engine->app->args->n;
    if (st == QY_OK) {
        n = n < room - have - prompt.n ? n : room - have - prompt.n;
        st = qyi_prompt_prefill(engine, talk->seq, &prompt, &prefill_ns, err);
    }
    if (st == QY_OK && !qyi_interrupted()) {
        st = qyi_answer_open(&answer, n, stdout, err);
        if (st == QY_OK) {
            st = qyi_answer_generate(engine, talk->seq, prompt.ids[prompt.n - 1], QY_ATTEND_POLICY,
                                     &answer, err);
        }
    }
    if (st == QY_OK && qyi_interrupted() && answer.n == 0) { /* nothing was said: take it back */
        st = qyi_engine_truncate(engine, talk->seq, have, err);
    } else if (st == QY_OK) {
        talk->first = 0;
        talk->file_bytes = 0;
        talk->pending = answer.n > 0 ? answer.ids[answer.n - 1] : -1;
        talk->pending_end = answer.ended;
        printf("\n");
        fflush(stdout);
        fprintf(stderr, "[%u tokens kept, %.1f tokens/s]\n", qy_sequence_tokens(talk->seq),
                qyi_per_second(answer.n, answer.ns));
    }
    qyi_answer_close(&answer);
    qy_free(&engine->app->rt.mem, prompt.ids);
    return st;
}

/* Until there is something to read, or Ctrl-C. */
static void wait_for_input(const struct talk *talk)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = 0;
    while (ready == 0 && !qyi_interrupted()) {
        ready = poll(&in, 1, qy_cache_tend(talk->engine->cache) ? BUSY_MS : IDLE_MS);
    }
}

static enum qy_status converse(struct talk *talk, struct qy_error *err)
{
    char *line = NULL;
    size_t room = 0;
    enum qy_status st = QY_OK;
    const char *given = talk->engine->app->args->prompt; /* -p is the first message */
    const int terminal = isatty(STDIN_FILENO);
    const int remote = talk->engine->memory != NULL;
    if (remote) {
        setvbuf(stdin, NULL, _IONBF, 0); /* what poll does not see is not there */
    }
    while (st == QY_OK) {
        if (given != NULL) {
            st = turn(talk, given, strlen(given), err);
            given = NULL;
        } else {
            if (terminal) {
                fprintf(stderr, "> ");
            }
            if (remote) {
                wait_for_input(talk);
            }
            errno = 0;
            const ssize_t got = qyi_interrupted() ? -1 : getline(&line, &room, stdin);
            if (got < 0) {
                break; /* end of input, or Ctrl-C at the prompt */
            }
            const size_t bytes = (size_t)got - (line[got - 1] == '\n');
            if (bytes == 0) {
                continue;
            }
            st = turn(talk, line, bytes, err);
        }
        qyi_interrupt_clear();
    }
    free(line);
    return st;
}

enum qy_status qyi_conversation(struct qyi_engine *engine, struct qy_error *err)
{
    struct talk talk = {.engine = engine, .first = 1, .pending = -1};
    const char *path = engine->app->args->file;
    enum qy_status st = qy_sequence_open(engine->cache, &talk.seq, err);
    if (st == QY_OK && path != NULL) {
        st = qyi_read_file(path, &talk.file, &talk.file_bytes, err);
    }
    if (st == QY_OK) {
        st = converse(&talk, err);
        struct qy_cache_stats stats;
        qy_cache_stats(engine->cache, &stats);
        char size[32];
        fprintf(stderr, "\nsummary: %u tokens in the context, %s of KV\n",
                qy_sequence_tokens(talk.seq), qy_format_size(stats.host_bytes, size, sizeof size));
    }
    free(talk.file);
    qy_sequence_close(talk.seq);
    return st == QY_AGAIN ? QY_ERR_NOMEM : st;
}
