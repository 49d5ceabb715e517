/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve: the program `quarry`. This header is what its commands share: the option table, the
 * application (settings, threads, device) and the engine (model and cache) that commands open.
 */
#ifndef QY_SERVE_H
#define QY_SERVE_H

#include <cjson/cJSON.h>
#include <stdio.h>

#include "model/model.h"

/* ---- options ------------------------------------------------------------------------------------- */

enum qyi_command {
    QYI_GENERATE = 1,
    QYI_TOKENIZE = 2,
    QYI_EVAL = 4,
    QYI_BENCH = 8,
    QYI_DOCTOR = 16,
    QYI_CONFIG = 32,
    QYI_HELP = 64,
    QYI_CALIBRATE = 128,
    QYI_MEMORY = 256
};
enum { QYI_ENGINE = QYI_GENERATE | QYI_EVAL | QYI_BENCH };

enum { QYI_MAX_SETS = 64, QYI_MAX_TEXTS = 32 };

/* What the command line said. Texts are borrowed from argv. */
struct qyi_args {
    enum qyi_command command;
    const char *topic; /* the word after eval, bench or help, or NULL */
    const char *file, *prompt, *system, *config, *trace, *dump;
    const char *report;                    /* of bench decode */
    const char *policies, *budgets, *task; /* of eval */
    const char *shape, *query_drift;       /* of bench decode */
    uint64_t heads, kv_heads, head_dim, layers;
    const char *output, *quality, *metric, *overlap; /* of calibrate */
    const char *new_key;                             /* of memory */
    const char *prompts;                             /* of generate: a list */
    const char *texts[QYI_MAX_TEXTS];
    size_t n_texts;
    uint64_t tokens, iterations, sub_vectors, words;
    int chat, interactive, json, compare, special, man, reuse;
    const char *completion;
    uint64_t n, ctx, prompt_tokens, count, start, from, batch, context, steps, warm_up;
    const char *sets[QYI_MAX_SETS];  /* "section.name=value"  */
    const char *flags[QYI_MAX_SETS]; /* the flag it came from */
    char storage[QYI_MAX_SETS][320]; /* settings that flags were turned into */
    size_t n_sets;
};

/* One option of the command line: parser, --help, man page and completion read this table. */
struct qyi_option {
    const char *flag, *alias; /* "-n", "--predict"                                             */
    const char *value;        /* name of the value in help; NULL: a switch                      */
    const char *setting;      /* sets this setting; NULL: a member of qyi_args                   */
    size_t offset;
    unsigned commands;
    const char *help;
};
const struct qyi_option *qyi_option_at(size_t i); /* NULL past the end */

struct qyi_command_info {
    enum qyi_command command;
    const char *name, *synopsis, *help;
    const char *topics; /* "ppl" | "decode|kernels|link" or NULL */
};
const struct qyi_command_info *qyi_command_at(size_t i);
const struct qyi_command_info *qyi_command_info(enum qyi_command command);

/* QY_ERR_CONFIG: usage. */
QY_MUST enum qy_status qyi_args_parse(int argc, char **argv, struct qyi_args *args,
                                      struct qy_error *err);

/* ---- settings of the program --------------------------------------------------------------------- */

struct qyi_settings {
    char model[QY_SETTING_TEXT_BYTES];
    int compute;   /* enum qy_compute */
    int64_t chunk; /* tokens of one prefill step */
    char device[QY_SETTING_TEXT_BYTES];
    double link_gbps, link_copy_us; /* 0: not limited */
    int deterministic;
    double temperature, top_p, min_p;
    int64_t top_k, seed;
};
extern const struct qy_setting qyi_setting_rows[];
extern const size_t qyi_setting_count;

/* Of the network. */
struct qyi_net_settings {
    char listen[QY_SETTING_TEXT_BYTES], device[QY_SETTING_TEXT_BYTES];
    char key_file[QY_SETTING_TEXT_BYTES];
    char memory[QY_SETTING_TEXT_BYTES]; /* addresses of memory servers */
    uint64_t bytes;                     /* of a memory server, for blocks */
    int64_t replicas, timeout_ms, silent_ms, spin_us, drain_ms;
    int64_t workers; /* of a job: its first ranks */
};
extern const struct qy_setting qyi_net_setting_rows[];
extern const size_t qyi_net_setting_count;

/* ---- application --------------------------------------------------------------------------------- */

struct qyi_job;
struct qyi_doctor_ranks;

struct qyi_app {
    const struct qyi_args *args;
    struct qyi_job *job; /* whose ranks keep blocks, or work as well; NULL: there are none */
    const struct qyi_doctor_ranks *doctor; /* what doctor found of its ranks; NULL: one process */
    struct qy_runtime rt;
    struct qy_config *config;
    struct qy_runtime_settings runtime;
    struct qy_cache_settings cache;
    struct qy_retrieval_settings retrieval;
    struct qyi_settings program;
    struct qyi_net_settings net;
    uint32_t n_threads;
    uint32_t n_neighbours; /* other workers on this host, with whom cores are shared */
};

/* Settings in order, log, processor, topology, threads, trace. */
QY_MUST enum qy_status qyi_app_open(const struct qyi_args *args, struct qyi_app *app,
                                    struct qy_error *err);
/* The first half of it: settings alone, which start no thread. */
QY_MUST enum qy_status qyi_app_settings(const struct qyi_args *args, struct qyi_app *app,
                                        struct qy_error *err);
/* The second half: log, processor, topology, threads by app->runtime, which is kept. args, if any, say
 * whether there is a trace. */
QY_MUST enum qy_status qyi_app_start(struct qyi_app *app, struct qy_error *err);
/* Writes the trace file when one was asked for. */
void qyi_app_close(struct qyi_app *app);

/* Set by Ctrl-C and SIGTERM. */
int qyi_interrupted(void);
void qyi_interrupt_clear(void);
void qyi_interrupt_install(void);

/* ---- engine -------------------------------------------------------------------------------------- */

/* Tokens that were computed again: of one sequence, from a damaged block on; or of all that lost blocks
 * with memory servers. */
struct qyi_mended {
    uint64_t servers;               /* as in struct qy_lost; 0: damage */
    uint32_t block;                 /* that was damaged                */
    uint32_t n_blocks, n_sequences; /* that were lost */
    uint32_t first_token;           /* the lowest     */
    uint64_t n_tokens, ns;
};
enum { QYI_MAX_MENDED = 16 };

struct qyi_memory_link;

struct qyi_engine {
    struct qyi_app *app;
    struct qy_device *dev;
    struct qy_gguf *gguf;
    struct qy_tokenizer *tokenizer;
    struct qy_model *model;
    struct qyi_memory_link *memory; /* to memory servers; NULL: none */
    struct qy_cache *cache;
    const struct qy_policy_ops *policy;
    struct qy_budget budget;
    const char *budget_text;      /* what it was read from: retrieval.budget, or the policy's own */
    struct qy_codebook *codebook; /* NULL: the policy needs none */
    float *logits;                /* [max_logits][n_vocab] */
    uint32_t max_tokens;          /* of one sequence */
    uint64_t load_ns;
    struct qyi_mended mended[QYI_MAX_MENDED]; /* the first of them */
    uint32_t n_mended;
};

struct qyi_engine_params {
    uint32_t max_sequences;
    uint32_t max_tokens; /* of one sequence; 0: what the model was trained on, at most 32,768 */
    uint32_t max_step_tokens, max_logits;
    uint64_t total_tokens; /* of all sequences; 0: max_sequences * max_tokens */
    /* Instead of what the settings say; NULL: what they say. */
    const struct qy_policy_ops *policy;
    const struct qy_retrieval_settings *retrieval; /* kept */
    /* Of the cache: struct qy_cache_params. */
    void (*on_selection)(void *ctx, uint32_t sequence, uint32_t layer, uint32_t kv_head,
                         const uint32_t *ids, uint32_t n);
    void *selection_ctx;
};

/* The file of model.file, or the fetched one: path [path_bytes]. */
QY_MUST enum qy_status qyi_model_path(const struct qyi_app *app, char *path, size_t path_bytes,
                                      struct qy_error *err);
/* What device.link_gbps and device.link_copy_us say. */
struct qy_link qyi_link(const struct qyi_app *app);
/* File, device and tokenizer; then the text can be tokenized and the size of the rest is known. */
QY_MUST enum qy_status qyi_engine_open_file(struct qyi_app *app, struct qyi_engine *engine,
                                            struct qy_error *err);
QY_MUST enum qy_status qyi_engine_open_model(struct qyi_engine *engine,
                                             const struct qyi_engine_params *params,
                                             struct qy_error *err);
void qyi_engine_close(struct qyi_engine *engine);
/* Appends ids densely in chunks; logits of the last token are in engine->logits when want_logits.
 * progress may be NULL. QY_AGAIN is turned into a clear QY_ERR_NOMEM. An interrupt ends it early:
 * *done tells. */
struct qyi_progress;
QY_MUST enum qy_status qyi_engine_prefill(struct qyi_engine *engine, struct qy_sequence *seq,
                                          const int32_t *ids, size_t n, int want_logits,
                                          struct qyi_progress *progress, size_t *done,
                                          struct qy_error *err);

/* qy_model_forward with logits in engine->logits, and what commands do around it. Before: as many blocks of
 * the sequences are verified as cache.verify_steps asks for, and what was changed is computed again.
 * After a failure because memory servers are gone: what only they held is computed again, and the pass is
 * made again. One warning each time. QY_ERR_CORRUPT: token ids were changed. QY_ERR_NOMEM: with memory
 * servers, all are full; QY_AGAIN: without, the cache is. Not for who counts what steps choose (bench
 * residency, calibrate --reuse): steps that are taken again would be counted twice. */
QY_MUST enum qy_status qyi_engine_forward(struct qyi_engine *engine,
                                          const struct qy_step_slice *slices, uint32_t n_slices,
                                          const uint32_t *logit_rows, uint32_t n_logits,
                                          struct qy_error *err);
/* qy_sequence_copy and qy_sequence_truncate likewise. err is not written with QY_AGAIN: no room. */
QY_MUST enum qy_status qyi_engine_copy(struct qyi_engine *engine, struct qy_sequence *dst,
                                       struct qy_sequence *src, struct qy_error *err);
QY_MUST enum qy_status qyi_engine_truncate(struct qyi_engine *engine, struct qy_sequence *seq,
                                           uint32_t n_tokens, struct qy_error *err);
/* Adds `events`: what was computed again. */
void qyi_events_json(const struct qyi_engine *engine, cJSON *object);

/* ---- small helpers ------------------------------------------------------------------------------- */

/* Of a file's size and bytes, all of them (a cold file is read once, and is then in the page cache); 0: it
 * cannot be read. */
uint64_t qyi_file_checksum(const char *path);

/* All bytes of a file ("-" is stdin); *data returned, NUL-terminated, freed with free. */
QY_MUST enum qy_status qyi_read_file(const char *path, char **data, size_t *bytes,
                                     struct qy_error *err);

/* Progress on stderr: a line that is redrawn on a terminal, one line at the end otherwise. */
struct qyi_progress {
    const char *what, *unit;
    uint64_t total, start_ns, last_ns;
    int terminal;
};
void qyi_progress_start(struct qyi_progress *progress, const char *what, const char *unit,
                        uint64_t total);
void qyi_progress_update(struct qyi_progress *progress, uint64_t done);
void qyi_progress_end(struct qyi_progress *progress, uint64_t done);

/* Prints an error the way all commands do and gives the exit code: 1, or 2 for usage and config. */
int qyi_fail(const struct qy_error *err);
/* Adds a text that may hold any bytes: what is no UTF-8 becomes U+FFFD. */
cJSON *qyi_json_add_text(cJSON *object, const char *name, const char *text);
/* Prints one JSON object on stdout and frees it. */
int qyi_print_json(cJSON *object);
/* Adds plan (null when there was none) and layers: what plans of a discrete device went by and came
 * to, and what each layer asked for, since the counters were reset. */
void qyi_plan_json(const struct qy_cache *cache, uint32_t n_layers, cJSON *object);

/* What a run took and used: shared by generate and bench. */
struct qyi_report {
    uint64_t prompt_tokens;  /* read in all                                               */
    uint64_t prefill_tokens; /* of these, before the first step of decode                  */
    uint64_t new_tokens, prefill_ns, decode_ns, n_steps;
    uint64_t stage_ns[QY_MODEL_STAGE_COUNT];
    struct qy_cache_stats cache;
};
double qyi_per_second(uint64_t count, uint64_t ns);
/* Share of the rows that policy slices attended to: in all layers, and without those that attend to
 * everything. */
double qyi_attended(const struct qy_cache_stats *stats);
double qyi_attended_sparse(const struct qy_cache_stats *stats);
/* What the audit saw in all layers since the counters were reset. */
struct qy_audit_sums qyi_audit_total(const struct qy_cache *cache, uint32_t n_layers);
/* Adds recall and mass (null when nothing was audited), and audit: what it cost, layer by layer. */
void qyi_audit_json(const struct qy_cache *cache, uint32_t n_layers, cJSON *object);
/* Adds the form of rows at home, and their bytes. */
void qyi_home_json(const struct qy_cache *cache, const struct qy_cache_stats *stats, cJSON *object);
/* What a cache did: the part of a report that needs no model. Members are borrowed. */
struct qyi_cache_report {
    const struct qy_cache *cache;
    uint32_t n_layers;
    const char *policy; /* as it was asked for */
    const struct qy_cache_stats *stats;
    uint64_t n_steps, steps_ns; /* that the stats are of; 0: nobody timed them */
};
void qyi_cache_report_print(const struct qyi_cache_report *report, FILE *out);
/* Of memory servers: a line of all and one of each; adds remote and servers. */
void qyi_remote_print(const struct qyi_cache_report *report, FILE *out);
void qyi_remote_json(const struct qyi_cache_report *report, cJSON *object);
void qyi_cache_report_json(const struct qyi_cache_report *report, cJSON *object);
/* Stages, ms per step. */
void qyi_cache_stages_print(const struct qy_cache_stats *stats, double steps, int decimals,
                            FILE *out);
void qyi_cache_stages_json(const struct qy_cache_stats *stats, double steps, cJSON *stages);
void qyi_report_read(const struct qyi_engine *engine, struct qyi_report *report);
void qyi_report_print(const struct qyi_engine *engine, const struct qyi_report *report, FILE *out);
void qyi_report_json(const struct qyi_engine *engine, const struct qyi_report *report,
                     cJSON *object);

/* ---- prompt, answer, conversation ------------------------------------------------------------ */

/* One text as ids (freed with qy_free), with BOS where the file says so; --special decides about
 * control tokens. */
QY_MUST enum qy_status qyi_encode(const struct qyi_engine *engine, const char *text, size_t bytes,
                                  int32_t **ids, size_t *n, struct qy_error *err);
/* The same of a whole file. */
QY_MUST enum qy_status qyi_read_ids(const struct qyi_engine *engine, const char *path,
                                    int32_t **ids, size_t *n, struct qy_error *err);
/* Token ids of a prompt; ids freed with qy_free. */
struct qyi_prompt {
    int32_t *ids;
    size_t n;
};
/* File of the command line (cut to --prompt-tokens) and question behind it, in the chat format with --chat. */
QY_MUST enum qy_status qyi_prompt_build(const struct qyi_engine *engine, const char *question,
                                        struct qyi_prompt *prompt, struct qy_error *err);
/* One chat message as ids. prefix (may be NULL) is trusted text in front of it. */
QY_MUST enum qy_status qyi_prompt_message(const struct qyi_engine *engine, const char *prefix,
                                          const char *system, const char *content, size_t bytes,
                                          int first, struct qyi_prompt *prompt,
                                          struct qy_error *err);

/* An answer as it grows. */
struct qyi_answer {
    FILE *stream; /* text goes here as it comes; NULL: nowhere                            */
    int32_t *ids; /* [room]; the end token included                                        */
    float *gaps;  /* [room]                                                               */
    size_t n, room;
    char *text; /* NUL-terminated                                                       */
    size_t text_bytes, text_room;
    uint64_t ns;
    uint64_t steps;
    int ended; /* by an end token                                                      */
    struct qy_utf8_stream utf8;
};
QY_MUST enum qy_status qyi_answer_open(struct qyi_answer *answer, size_t room, FILE *stream,
                                       struct qy_error *err);
void qyi_answer_close(struct qyi_answer *answer);
/* Feeds id to seq, then token after token until an end token, room tokens, or an interrupt. */
QY_MUST enum qy_status qyi_answer_generate(struct qyi_engine *engine, struct qy_sequence *seq,
                                           int32_t id, enum qy_attend_mode mode,
                                           struct qyi_answer *answer, struct qy_error *err);
void qyi_answer_json(const struct qyi_answer *answer, cJSON *object);

/* Two answers side by side, each in half of the width of the terminal. */
void qyi_print_columns(FILE *out, const char *left_title, const char *left, const char *right_title,
                       const char *right);
QY_MUST enum qy_status qyi_compare(struct qyi_engine *engine, const struct qyi_prompt *prompt,
                                   struct qy_error *err);
QY_MUST enum qy_status qyi_conversation(struct qyi_engine *engine, struct qy_error *err);
/* Prefills all but the last token of the prompt and resets the counters; ns receives the time. */
QY_MUST enum qy_status qyi_prompt_prefill(struct qyi_engine *engine, struct qy_sequence *seq,
                                          const struct qyi_prompt *prompt, uint64_t *ns,
                                          struct qy_error *err);

/* ---- commands: each returns the exit code -------------------------------------------------------- */

int qyi_cmd_generate(struct qyi_app *app);
int qyi_cmd_tokenize(struct qyi_app *app);
int qyi_cmd_eval(struct qyi_app *app);
int qyi_cmd_bench(struct qyi_app *app);
int qyi_cmd_doctor(struct qyi_app *app);
int qyi_cmd_calibrate(struct qyi_app *app);
int qyi_cmd_memory(struct qyi_app *app);
int qyi_cmd_config(struct qyi_app *app);
int qyi_cmd_help(const struct qyi_args *args);
void qyi_print_version(void);
void qyi_print_help(FILE *out, enum qyi_command command); /* 0: the program */
void qyi_print_policies(FILE *out);

#endif
