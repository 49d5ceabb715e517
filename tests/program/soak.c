/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker whose sequences come and go: the driver of soak.py.
 *
 * usage: soak FILE SEED ANSWERS [options of quarry generate]
 *
 * Questions are cut from the file, and have numbers. They come at random times, are answered greedily, all that are
 * open as one batch, and leave when their answer is done; some are copied half way, and both go on; some leave before
 * they are done. Ends after ANSWERS answers, 0: with SIGTERM. SEED 0: every question once, alone.
 * A line for each answer, "answer 7 0123456789abcdef": a checksum of all its logits; at the end one object.
 */
#include <stdlib.h>
#include <string.h>

#include "net/net.h"
#include "serve/serve.h"

enum { N_QUESTIONS = 24, MOST_OPEN = 6, MOST_TOKENS = 320, MOST_WORDS = 96 };

struct talk {
    struct qy_sequence *seq;
    uint32_t question, n_said;
    int32_t next;
    uint64_t sum;
};

struct soak {
    struct qyi_engine engine;
    int32_t *text;
    size_t n_text;
    struct talk talks[MOST_OPEN];
    uint32_t n;
    uint64_t random, n_answers, n_copies, n_left;
};

static uint32_t below(struct soak *s, uint32_t n)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return (uint32_t)(s->random >> 33) % n;
}

static uint32_t prompt_tokens(uint32_t question)
{
    return 40 + question * 53 % 211;
}

static uint32_t answer_tokens(uint32_t question)
{
    return 4 + question * 29 % 61;
}

static void leave(struct soak *s, uint32_t i)
{
    qy_sequence_close(s->talks[i].seq);
    s->talks[i] = s->talks[--s->n];
}

/* A question that is read, alone; an interrupt may end that early. */
static enum qy_status ask(struct soak *s, uint32_t question, struct qy_error *err)
{
    const uint32_t n = prompt_tokens(question);
    const int32_t *ids = s->text + question * ((s->n_text - MOST_TOKENS) / N_QUESTIONS);
    struct talk *t = &s->talks[s->n];
    size_t done = 0;

    *t = (struct talk){.question = question, .next = ids[n - 1]};
    enum qy_status st = qy_sequence_open(s->engine.cache, &t->seq, err);
    if (st == QY_OK) {
        s->n++;
        st = qyi_engine_prefill(&s->engine, t->seq, ids, n - 1, 0, NULL, &done, err);
    }
    return st;
}

/* A talk that goes on twice. */
static enum qy_status copy(struct soak *s, uint32_t i, struct qy_error *err)
{
    struct talk *t = &s->talks[s->n];

    *t = s->talks[i];
    enum qy_status st = qy_sequence_open(s->engine.cache, &t->seq, err);
    if (st == QY_OK) {
        s->n++;
        s->n_copies++;
        st = qyi_engine_copy(&s->engine, t->seq, s->talks[i].seq, err);
    }
    return st;
}

/* The next token of each. */
static enum qy_status say(struct soak *s, struct qy_error *err)
{
    const uint32_t n_vocab = qy_model_info(s->engine.model)->n_vocab;
    struct qy_step_slice slices[MOST_OPEN];
    uint32_t rows[MOST_OPEN];

    for (uint32_t i = 0; i < s->n; i++) {
        slices[i] =
            (struct qy_step_slice){.seq = s->talks[i].seq, .n_tokens = 1, .ids = &s->talks[i].next};
        rows[i] = i;
    }
    const enum qy_status st = qyi_engine_forward(&s->engine, slices, s->n, rows, s->n, err);
    for (uint32_t i = 0; st == QY_OK && i < s->n; i++) {
        const float *logits = s->engine.logits + (size_t)i * n_vocab;
        struct talk *t = &s->talks[i];
        uint32_t best = 0;

        for (uint32_t v = 1; v < n_vocab; v++) {
            best = logits[v] > logits[best] ? v : best;
        }
        t->next = (int32_t)best;
        t->sum = qy_checksum(logits, n_vocab * sizeof *logits, t->sum);
        t->n_said++;
    }
    return st;
}

static void tell(struct soak *s)
{
    for (uint32_t i = s->n; i-- > 0;) {
        const struct talk *t = &s->talks[i];

        if (t->n_said == answer_tokens(t->question)) {
            printf("answer %u %016llx\n", t->question, (unsigned long long)t->sum);
            s->n_answers++;
            leave(s, i);
        }
    }
    fflush(stdout);
}

/* Something that may happen between two steps. */
static enum qy_status happen(struct soak *s, struct qy_error *err)
{
    if (s->n < MOST_OPEN && (s->n == 0 || below(s, 8) == 0)) {
        return ask(s, below(s, N_QUESTIONS), err);
    }
    if (s->n < MOST_OPEN && below(s, 32) == 0) {
        return copy(s, below(s, s->n), err);
    }
    if (s->n > 1 && below(s, 64) == 0) {
        s->n_left++;
        leave(s, below(s, s->n));
    }
    return QY_OK;
}

static enum qy_status talk(struct soak *s, uint64_t most, struct qy_error *err)
{
    const int alone = s->random == 0;
    enum qy_status st = QY_OK;

    most = alone ? N_QUESTIONS : most;
    while (st == QY_OK && !qyi_interrupted() && (most == 0 || s->n_answers < most)) {
        st = !alone ? happen(s, err) : s->n == 0 ? ask(s, (uint32_t)s->n_answers, err) : QY_OK;
        if (st == QY_OK && !qyi_interrupted()) {
            st = say(s, err);
            tell(s);
        }
    }
    return st;
}

static void print(struct soak *s)
{
    cJSON *object = cJSON_CreateObject();
    struct qyi_report report = {0};

    cJSON_AddNumberToObject(object, "answers", (double)s->n_answers);
    cJSON_AddNumberToObject(object, "copies", (double)s->n_copies);
    cJSON_AddNumberToObject(object, "left", (double)s->n_left);
    qyi_report_read(&s->engine, &report);
    qyi_report_json(&s->engine, &report, object);
    qyi_events_json(&s->engine, object);
    qyi_print_json(object);
}

static enum qy_status run(struct soak *s, struct qyi_app *app, const char *file, uint64_t most,
                          struct qy_error *err)
{
    const uint32_t chunk = (uint32_t)app->program.chunk;
    const struct qyi_engine_params params = {.max_sequences = MOST_OPEN,
                                             .max_tokens = MOST_TOKENS,
                                             .max_step_tokens =
                                                 chunk > MOST_OPEN ? chunk : MOST_OPEN,
                                             .max_logits = MOST_OPEN};
    enum qy_status st = qyi_engine_open_file(app, &s->engine, err);

    if (st == QY_OK) {
        st = qyi_engine_open_model(&s->engine, &params, err);
    }
    if (st == QY_OK) {
        st = qyi_read_ids(&s->engine, file, &s->text, &s->n_text, err);
    }
    if (st == QY_OK && s->n_text < 2 * MOST_TOKENS) {
        st = qy_error_set(err, QY_ERR_CONFIG, "file '%s': %zu tokens; at least %d are needed", file,
                          s->n_text, 2 * MOST_TOKENS);
    }
    if (st == QY_OK) {
        st = talk(s, most, err);
    }
    if (st == QY_OK) {
        print(s);
    }
    while (s->n > 0) {
        leave(s, s->n - 1);
    }
    qy_free(&app->rt.mem, s->text);
    qyi_engine_close(&s->engine);
    return st;
}

int main(int argc, char **argv)
{
    static struct soak soak;
    char *words[MOST_WORDS] = {"quarry", "generate", "-p", "x"};
    struct qyi_args args;
    struct qyi_app app;
    struct qy_error err = {0};
    int n = 4;

    if (argc < 4) {
        fprintf(stderr, "usage: soak FILE SEED ANSWERS [options of quarry generate]\n");
        return 2;
    }
    for (int i = 4; i < argc && n < MOST_WORDS - 1; i++) {
        words[n++] = argv[i];
    }
    qy_net_give_signals_back();
    qyi_interrupt_install();
    soak.random = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15u;
    if (qyi_args_parse(n, words, &args, &err) != QY_OK ||
        qyi_app_open(&args, &app, &err) != QY_OK) {
        return qyi_fail(&err);
    }
    const enum qy_status st = run(&soak, &app, argv[1], strtoull(argv[3], NULL, 10), &err);
    qyi_app_close(&app);
    return st == QY_OK ? 0 : qyi_fail(&err);
}
