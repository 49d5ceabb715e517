/* SPDX-License-Identifier: Apache-2.0 */
/* See bed.h. */
#include "tests/unit/serve/bed.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/tiny_models.h"

enum { CONTEXT = 512 };

static void write_model(struct bed *bed)
{
    size_t n = 0;
    uint8_t *bytes = tiny_build(tiny_spec_find("llama_f32"), &n);

    strcpy(bed->file, "/tmp/quarry-bed-XXXXXX");
    const int fd = mkstemp(bed->file);
    assert_true(bytes && fd >= 0);
    for (size_t at = 0; at < n;) {
        const ssize_t got = write(fd, bytes + at, n - at);

        assert_true(got > 0);
        at += (size_t)got;
    }
    assert_int_equal(close(fd), 0);
    free(bytes);
}

static enum qy_status add_servers(struct bed *bed, const struct qy_cache_servers *servers)
{
    if (!servers) {
        return QY_OK;
    }
    bed->engine.memory = qy_alloc_zero(&bed->app.rt.mem, sizeof(*bed->engine.memory));
    assert_non_null(bed->engine.memory);
    bed->engine.memory->servers = *servers;
    return QY_OK;
}

void bed_open(struct bed *bed, uint32_t n_seqs, const char *const *more)
{
    bed_open_on(bed, n_seqs, more, NULL);
}

void bed_open_on(struct bed *bed, uint32_t n_seqs, const char *const *more,
                 const struct qy_cache_servers *servers)
{
    static const char *const base[] = {"quarry", "generate",
                                       "-p",     "x",
                                       "--set",  "runtime.threads=2",
                                       "--set",  "cache.block_tokens=32",
                                       "--set",  "cache.sinks=4",
                                       "--set",  "cache.window=16",
                                       "--set",  "model.chunk=64",
                                       "--set",  "retrieval.min_tokens=0",
                                       "--set",  "step.deterministic=on",
                                       "--set",  "runtime.bind=none",
                                       "-m"};
    const struct qyi_engine_params params = {.max_sequences = n_seqs,
                                             .max_tokens = CONTEXT,
                                             .max_step_tokens = 64,
                                             .max_logits = n_seqs};
    struct qy_error err = {0};
    int n = 0;

    memset(bed, 0, sizeof(*bed));
    write_model(bed);
    for (size_t i = 0; i < sizeof(base) / sizeof(base[0]); i++) {
        bed->argv[n++] = base[i];
    }
    bed->argv[n++] = bed->file;
    for (size_t i = 0; more && more[i]; i++) {
        assert_true(n < BED_WORDS);
        bed->argv[n++] = more[i];
    }
    enum qy_status st = qyi_args_parse(n, (char **)(uintptr_t)bed->argv, &bed->args, &err);
    st = st == QY_OK ? qyi_app_open(&bed->args, &bed->app, &err) : st;
    st = st == QY_OK ? qyi_engine_open_file(&bed->app, &bed->engine, &err) : st;
    st = st == QY_OK ? add_servers(bed, servers) : st;
    st = st == QY_OK ? qyi_engine_open_model(&bed->engine, &params, &err) : st;
    for (uint32_t i = 0; st == QY_OK && i < n_seqs; i++) {
        st = qy_sequence_open(bed->engine.cache, &bed->seqs[i], &err);
    }
    if (st != QY_OK) {
        fail_msg("%s", err.text);
    }
    bed->n_seqs = n_seqs;
    bed->n_vocab = qy_model_info(bed->engine.model)->n_vocab;
}

void bed_close(struct bed *bed)
{
    for (uint32_t i = 0; i < bed->n_seqs; i++) {
        qy_sequence_close(bed->seqs[i]);
    }
    qyi_engine_close(&bed->engine);
    qyi_app_close(&bed->app);
    unlink(bed->file);
}

int32_t bed_token(const struct bed *bed, uint32_t stream, uint32_t at)
{
    uint32_t x = stream * 7919 + at + 1;

    x = (x ^ (x >> 16)) * 0x7feb352dU;
    x = (x ^ (x >> 15)) * 0x846ca68bU;
    return (int32_t)((x ^ (x >> 16)) % bed->n_vocab);
}

void bed_prefill(struct bed *bed, struct qy_sequence *seq, uint32_t stream, uint32_t n)
{
    int32_t ids[CONTEXT];
    struct qy_error err = {0};
    size_t done = 0;

    const uint32_t first = qy_sequence_tokens(seq);

    assert_true(n <= CONTEXT);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = bed_token(bed, stream, first + i);
    }
    if (qyi_engine_prefill(&bed->engine, seq, ids, n, 0, NULL, &done, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

enum qy_status bed_step(struct bed *bed, struct qy_sequence *const *seqs, uint32_t n,
                        const uint32_t *streams, struct qy_error *err)
{
    struct qy_step_slice slices[BED_MAX];
    uint32_t rows[BED_MAX];
    int32_t ids[BED_MAX];
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = bed_token(bed, streams[i], qy_sequence_tokens(seqs[i]));
        slices[i] = (struct qy_step_slice){.seq = seqs[i], .n_tokens = 1, .ids = &ids[i]};
        rows[i] = i;
    }
    return qyi_engine_forward(&bed->engine, slices, n, rows, n, err);
}

void bed_hear(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    struct heard *heard = ctx;

    assert_int_equal(level, QY_LOG_WARN);
    assert_string_equal(module, "cache");
    heard->n++;
    snprintf(heard->text, sizeof(heard->text), "%s", text);
}
