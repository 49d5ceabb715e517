/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's own engine on a tiny random model: settings, device, model and cache as `quarry
 * generate` opens them, and texts that are numbers of a stream.
 */
#ifndef QY_TESTS_SERVE_BED_H
#define QY_TESTS_SERVE_BED_H

#include "tests/support/test.h"

#include "serve/memory/memory_link.h"
#include "serve/serve.h"

enum { BED_MAX = 8, BED_WORDS = 48, BED_TEXT = 512 };

struct bed {
    const char *argv[BED_WORDS];
    char file[32];
    struct qyi_args args;
    struct qyi_app app;
    struct qyi_engine engine;
    struct qy_sequence *seqs[BED_MAX]; /* open */
    uint32_t n_seqs, n_vocab;
};

/* more: options beside those of bed.c (blocks of 32 tokens, chunks of 64, step.deterministic, two
 * threads), ended by NULL. Contexts of 512 tokens. */
void bed_open(struct bed *bed, uint32_t n_seqs, const char *const *more);
/* The same with blocks on memory servers, whose node and peers are the caller's, and outlive the bed. */
void bed_open_on(struct bed *bed, uint32_t n_seqs, const char *const *more,
                 const struct qy_cache_servers *servers);
void bed_close(struct bed *bed);
int32_t bed_token(const struct bed *bed, uint32_t stream, uint32_t at);
/* The next n tokens of a stream, in chunks. */
void bed_prefill(struct bed *bed, struct qy_sequence *seq, uint32_t stream, uint32_t n);
/* One step of one token of each of n sequences: stream + i; logits are in bed->engine.logits. As the
 * program does it: with what is mended around it. */
enum qy_status bed_step(struct bed *bed, struct qy_sequence *const *seqs, uint32_t n,
                        const uint32_t *streams, struct qy_error *err);

/* Warnings of the cache end here: log.ctx of bed_hear, which accepts no other lines. */
struct heard {
    uint32_t n;
    char text[BED_TEXT]; /* the last one */
};
void bed_hear(void *ctx, enum qy_log_level level, const char *module, const char *text);

#endif
