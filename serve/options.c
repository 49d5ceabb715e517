/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: one table of options and one of commands, and the parser that reads them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

#define AT(member) offsetof(struct qyi_args, member)
enum {
    ALL = QYI_GENERATE | QYI_TOKENIZE | QYI_EVAL | QYI_BENCH | QYI_DOCTOR | QYI_CONFIG |
          QYI_CALIBRATE | QYI_MEMORY
};

static const struct qyi_option options[] = {
    {"-m", "--model", "FILE", "model.file", 0, QYI_ENGINE | QYI_TOKENIZE | QYI_CALIBRATE,
     "GGUF model (default: the one that scripts/fetch-model fetched)"},
    {"-f", "--file", "FILE", NULL, AT(file), QYI_ENGINE | QYI_TOKENIZE, "text to read; - is stdin"},
    {"-p", "--prompt", "TEXT", NULL, AT(prompt), QYI_GENERATE | QYI_TOKENIZE,
     "text after the file's text: the question"},
    {NULL, "--prompts", "FILE", NULL, AT(prompts), QYI_GENERATE,
     "a list instead of -p, one a line, as text or as a JSON string; answers come in its order, "
     "with --json an "
     "object a line; - is stdin"},
    {NULL, "--workers", "W", "job.workers", 0, QYI_GENERATE,
     "of a job's ranks the first W answer the prompts of --prompts, the others keep their blocks"},
    {"-n", "--predict", "N", NULL, AT(n), QYI_GENERATE, "tokens to generate (default 128)"},
    {NULL, "--chat", NULL, NULL, AT(chat), QYI_GENERATE,
     "put file and prompt into the model's chat format (ChatML, Llama-3)"},
    {NULL, "--system", "TEXT", NULL, AT(system), QYI_GENERATE, "system message of --chat and -i"},
    {"-i", "--interactive", NULL, NULL, AT(interactive), QYI_GENERATE,
     "a conversation over one context; the cache is kept between turns"},
    {NULL, "--compare", NULL, NULL, AT(compare), QYI_GENERATE,
     "answer twice from one prefill, densely and by --policy, side by side"},
    {NULL, "--prompt-tokens", "N", NULL, AT(prompt_tokens), QYI_GENERATE | QYI_TOKENIZE,
     "read only the first N tokens of the file"},
    {NULL, "--special", NULL, NULL, AT(special), QYI_GENERATE | QYI_TOKENIZE | QYI_EVAL,
     "control tokens such as <|im_start|> in the text count as such"},
    {NULL, "--ctx", "N", NULL, AT(ctx), QYI_GENERATE | QYI_EVAL,
     "tokens of context: the most that generate may use; what eval reads before it asks"},
    {NULL, "--count", "M", NULL, AT(count), QYI_EVAL,
     "eval ppl, recall: positions after the context (ppl 0: all of the context, densely); others: "
     "cases"},
    {NULL, "--start", "S", NULL, AT(start), QYI_EVAL, "first token of the file to use"},
    {NULL, "--from", "K", NULL, AT(from), QYI_EVAL, "leave the first K positions out of the mean"},
    {NULL, "--policies", "LIST", NULL, AT(policies), QYI_EVAL,
     "several in one table, the first the yardstick: NAME[@BUDGET][/setting=value],... as in "
     "exact@0.03/cache.window=64,a2ats+/preset=fast"},
    {NULL, "--budgets", "LIST", NULL, AT(budgets), QYI_EVAL,
     "each policy without a budget of its own runs with each of these: 0.01,0.02,p0.95:0.05"},
    {NULL, "--task", "NAME", NULL, AT(task), QYI_EVAL,
     "needle: needle, copy, both (default); aggregate: common, frequent, variables, all (default)"},
    {NULL, "--dump", "FILE", NULL, AT(dump), QYI_EVAL, "write per-token log-probabilities"},
    {NULL, "--batch", "B", NULL, AT(batch), QYI_BENCH, "sequences decoded together (default 1)"},
    {NULL, "--context", "N", NULL, AT(context), QYI_BENCH,
     "tokens of each sequence (default 2048)"},
    {NULL, "--steps", "N", NULL, AT(steps), QYI_BENCH,
     "steps to time; bench net: questions of one run, for each that is under way at once (default "
     "16)"},
    {NULL, "--warm-up", "N", NULL, AT(warm_up), QYI_BENCH,
     "bench decode: steps before those timed (default 2; 32 on a discrete device, which is empty "
     "at first)"},
    {NULL, "--shape", "NAME", NULL, AT(shape), QYI_BENCH,
     "bench decode: attention of random layers without a model: llama3-8b, llama3-70b, "
     "smollm2-135m; bench net: blocks of its layers (default smollm2-135m)"},
    {NULL, "--layers", "N", NULL, AT(layers), QYI_BENCH,
     "of --shape: layers (default 1; bench net 30)"},
    {NULL, "--heads", "N", NULL, AT(heads), QYI_BENCH, "of --shape: query heads"},
    {NULL, "--kv-heads", "N", NULL, AT(kv_heads), QYI_BENCH, "of --shape: KV heads"},
    {NULL, "--head-dim", "N", NULL, AT(head_dim), QYI_BENCH, "of --shape: elements of a head"},
    {NULL, "--query-drift", "SHARE", NULL, AT(query_drift), QYI_BENCH,
     "of --shape: share of a query that is new at each step, 0 to 1 (default 0.07: at a budget of "
     "3 "
     "% of 7,680 tokens .60 of the rows were there with slots for one step; with a real model "
     ".61)"},
    {NULL, "--policy", "NAME", "retrieval.policy", 0, QYI_ENGINE | QYI_CALIBRATE,
     "which tokens a step attends to; --policy help lists them"},
    {NULL, "--budget", "B", "retrieval.budget", 0, QYI_ENGINE,
     "tokens a policy selects: 0.03 (share), 2048 (tokens), p0.95:0.10 (mass under a cap)"},
    {NULL, "--preset", "NAME", "retrieval.preset", 0, QYI_ENGINE, "of a2ats+: faithful, fast"},
    {NULL, "--codebook", "FILE", "retrieval.codebook", 0, QYI_ENGINE,
     "codebook that quarry calibrate wrote"},
    {NULL, "--audit", "RATE", "retrieval.audit_rate", 0, QYI_ENGINE,
     "share of the selections that are measured against exact attention"},
    {"-t", "--text", "FILE", NULL, AT(texts), QYI_CALIBRATE,
     "text to learn from; may be repeated; without any, the model writes its own"},
    {"-o", "--output", "FILE", NULL, AT(output), QYI_CALIBRATE,
     "codebook to write (default: into the cache folder, where runs find it); of --reuse: "
     "settings"},
    {NULL, "--reuse", NULL, NULL, AT(reuse), QYI_CALIBRATE,
     "instead of a codebook: learn which layers may take what an earlier one chose "
     "(retrieval.reuse_layers), and write it to -o as settings"},
    {NULL, "--overlap", "SHARE", NULL, AT(overlap), QYI_CALIBRATE,
     "of --reuse: share of its tokens in which a layer must agree with the other (default 0.8)"},
    {NULL, "--quality", "NAME", NULL, AT(quality), QYI_CALIBRATE,
     "how much text and effort: low, default, high"},
    {NULL, "--tokens", "N", NULL, AT(tokens), QYI_CALIBRATE,
     "tokens to learn from (--reuse: of each text, 4096)"},
    {NULL, "--metric", "NAME", NULL, AT(metric), QYI_CALIBRATE,
     "how errors are weighed: a2ats+: rotary, plain; a2ats: query-avg, query, plain"},
    {NULL, "--iterations", "N", NULL, AT(iterations), QYI_CALIBRATE, "of k-means"},
    {NULL, "--sub-vectors", "N", NULL, AT(sub_vectors), QYI_CALIBRATE,
     "codes of a key, a2ats+ (default: head dimension / 4)"},
    {NULL, "--words", "N", NULL, AT(words), QYI_CALIBRATE, "of a codebook, a2ats (default 4096)"},
    {NULL, "--device", "SPEC", "device.spec", 0, QYI_ENGINE | QYI_CALIBRATE,
     "host; or host-discrete:<bytes>, as in host-discrete:256M, which copies its rows (auto: as "
     "many "
     "bytes as it needs; host with net.memory is that)"},
    {NULL, "--side", "NAME: SETTINGS", NULL, AT(texts), QYI_BENCH,
     "of bench compare: a name and what is set for it alone, as in 'push: plan.mode=push'; twice "
     "or "
     "more"},
    {NULL, "--link-gbps", "G", "device.link_gbps", 0, QYI_BENCH,
     "slow the steps' copies to and from the device down to G GB/s, each way (0: not limited)"},
    {NULL, "--listen", "HOST:PORT", "net.listen", 0, QYI_MEMORY,
     "where to listen; port 0: any that is free, which is told"},
    {NULL, "--bytes", "SIZE", "net.bytes", 0, QYI_MEMORY, "memory for blocks, as in 8G"},
    {NULL, "--key-file", "FILE", "net.key_file", 0, QYI_MEMORY,
     "the key that those who ask must know"},
    {NULL, "--new-key", "FILE", NULL, AT(new_key), QYI_MEMORY,
     "write a new random key to FILE, for its owner's eyes only, and end"},
    {NULL, "--temp", "T", "sampling.temperature", 0, QYI_GENERATE,
     "temperature; 0 is greedy (default)"},
    {NULL, "--top-p", "P", "sampling.top_p", 0, QYI_GENERATE, "draw from this much probability"},
    {NULL, "--top-k", "K", "sampling.top_k", 0, QYI_GENERATE, "draw from so many tokens"},
    {NULL, "--min-p", "P", "sampling.min_p", 0, QYI_GENERATE,
     "drop tokens below this share of the best"},
    {NULL, "--seed", "N", "sampling.seed", 0, QYI_ENGINE | QYI_CALIBRATE,
     "seed of everything that is drawn"},
    {NULL, "--threads", "N", "runtime.threads", 0, ALL, "worker threads (default: one per core)"},
    {NULL, "--config", "FILE", NULL, AT(config), ALL, "read settings from a file"},
    {NULL, "--set", "S.NAME=V", NULL, AT(sets), ALL,
     "set one setting; may be repeated (see quarry config)"},
    {NULL, "--json", NULL, NULL, AT(json), ALL, "one JSON object on stdout"},
    {NULL, "--trace", "FILE", NULL, AT(trace), QYI_ENGINE,
     "write a trace for Perfetto: lanes of steps, threads, micro-batches, streams and links"},
    {NULL, "--report", "DIR", NULL, AT(report), QYI_BENCH,
     "bench decode: write result, trace, pictures and a page of them into DIR (needs gnuplot); "
     "runs "
     "of several --batch into one DIR are drawn together"},
    {NULL, "--man", NULL, NULL, AT(man), QYI_HELP, "the manual page, as roff"},
    {NULL, "--completion", "SHELL", NULL, AT(completion), QYI_HELP, "completion script: bash"},
};

static const struct qyi_command_info commands[] = {
    {QYI_GENERATE, "generate", "[-m MODEL] [-f FILE] [-p TEXT | --prompts FILE] [-n N] [options]",
     "read text, answer; text on stdout, progress and a summary on stderr", NULL},
    {QYI_TOKENIZE, "tokenize", "[-m MODEL] [-f FILE] [-p TEXT]", "token ids, one a line", NULL},
    {QYI_EVAL, "eval",
     "ppl|recall|needle|aggregate|turns [-m MODEL] -f FILE --ctx N [--count M] [options]",
     "quality of a policy against dense attention on the same tokens",
     "ppl|recall|needle|aggregate|turns"},
    {QYI_BENCH, "bench", "decode|compare|kernels|link|net|residency [options]",
     "speed, with the ceiling beside each figure", "decode|compare|kernels|link|net|residency"},
    {QYI_CALIBRATE, "calibrate", "[-m MODEL] [-t FILE]... [-o FILE.qcb] [--policy NAME] [options]",
     "learn the codebook that a2ats+ or a2ats needs; or, with --reuse, which layers may share a "
     "choice",
     NULL},
    {QYI_MEMORY, "memory", "--listen HOST:PORT --bytes SIZE --key-file FILE | --new-key FILE",
     "a memory server: keeps blocks of other hosts' KV caches in this one's memory", NULL},
    {QYI_DOCTOR, "doctor", "",
     "what this machine and build can do, and what to fix; under mpirun also how each rank reaches "
     "every other",
     NULL},
    {QYI_CONFIG, "config", "", "every setting: value, source, range, meaning", NULL},
    {QYI_HELP, "help", "[COMMAND]", "this help; --man and --completion bash", NULL},
};

const struct qyi_option *qyi_option_at(size_t i)
{
    return i < sizeof options / sizeof options[0] ? &options[i] : NULL;
}

const struct qyi_command_info *qyi_command_at(size_t i)
{
    return i < sizeof commands / sizeof commands[0] ? &commands[i] : NULL;
}

const struct qyi_command_info *qyi_command_info(enum qyi_command command)
{
    for (size_t i = 0; qyi_command_at(i) != NULL; i++) {
        if (commands[i].command == command) {
            return &commands[i];
        }
    }
    return NULL;
}

static enum qy_status parse_count(const char *flag, const char *text, uint64_t *out,
                                  struct qy_error *err)
{
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || text[0] == '-' || value > UINT32_MAX) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "option '%s': value '%s' refused; whole numbers from 0 to %u are accepted", flag, text,
            UINT32_MAX);
    }
    *out = value;
    return QY_OK;
}

/* Keeps "name=value" for the settings, with the flag for messages. */
static enum qy_status keep_setting(struct qyi_args *args, const char *flag, const char *setting,
                                   const char *value, struct qy_error *err)
{
    if (args->n_sets == QYI_MAX_SETS) {
        return qy_error_set(err, QY_ERR_CONFIG, "option '%s': more than %d settings on one line",
                            flag, QYI_MAX_SETS);
    }
    char *text = args->storage[args->n_sets];
    const int n = setting == NULL
                      ? snprintf(text, sizeof args->storage[0], "%s", value)
                      : snprintf(text, sizeof args->storage[0], "%s=%s", setting, value);
    if (n < 0 || (size_t)n >= sizeof args->storage[0]) {
        return qy_error_set(err, QY_ERR_CONFIG, "option '%s': the value is longer than %zu bytes",
                            flag, sizeof args->storage[0] - 32);
    }
    args->sets[args->n_sets] = text;
    args->flags[args->n_sets++] = flag;
    return QY_OK;
}

static const struct qyi_option *find_option(const char *word)
{
    for (size_t i = 0; qyi_option_at(i) != NULL; i++) {
        if ((options[i].flag != NULL && strcmp(word, options[i].flag) == 0) ||
            (options[i].alias != NULL && strcmp(word, options[i].alias) == 0)) {
            return &options[i];
        }
    }
    return NULL;
}

static enum qy_status unknown_option(const char *word, unsigned command, struct qy_error *err)
{
    const char *names[2 * sizeof options / sizeof options[0]];
    size_t n = 0;
    for (size_t i = 0; qyi_option_at(i) != NULL; i++) {
        if ((options[i].commands & command) != 0 && options[i].alias != NULL) {
            names[n++] = options[i].alias;
        }
    }
    const char *near = qy_nearest(word, names, n);
    const struct qyi_command_info *info = qyi_command_info((enum qyi_command)command);
    return qy_error_set(err, QY_ERR_CONFIG,
                        "option '%s': quarry %s has no such option%s%s%s; see quarry help %s", word,
                        info->name, near ? "; did you mean '" : "", near ? near : "",
                        near ? "'?" : "", info->name);
}

/* Stores one option; *used_value says whether the next word was its value. */
static enum qy_status take_option(struct qyi_args *args, const struct qyi_option *option,
                                  const char *word, const char *value, struct qy_error *err)
{
    if (option->value != NULL && value == NULL) {
        return qy_error_set(err, QY_ERR_CONFIG, "option '%s': needs a value: %s", word,
                            option->value);
    }
    if (option->setting != NULL) {
        return keep_setting(args, word, option->setting, value, err);
    }
    if (option->offset == AT(sets)) {
        if (strchr(value, '=') == NULL) {
            return qy_error_set(err, QY_ERR_CONFIG,
                                "option '--set': '%s' refused; section.name=value is accepted",
                                value);
        }
        return keep_setting(args, word, NULL, value, err);
    }
    if (option->offset == AT(texts)) {
        if (args->n_texts == QYI_MAX_TEXTS) {
            return qy_error_set(err, QY_ERR_CONFIG, "option '%s': at most %d texts are accepted",
                                word, QYI_MAX_TEXTS);
        }
        args->texts[args->n_texts++] = value;
        return QY_OK;
    }
    void *member = (char *)args + option->offset;
    if (option->value == NULL) {
        *(int *)member = 1;
        return QY_OK;
    }
    if (strlen(option->value) == 1) { /* N, M, S, K, B: a count */
        return parse_count(word, value, member, err);
    }
    *(const char **)member = value;
    return QY_OK;
}

static enum qy_status take_topic(struct qyi_args *args, const char *word, struct qy_error *err)
{
    const struct qyi_command_info *info = qyi_command_info(args->command);
    if (args->topic != NULL || (info->topics == NULL && args->command != QYI_HELP)) {
        return qy_error_set(
            err, QY_ERR_CONFIG,
            "word '%s': not expected here; options start with -; usage: quarry %s %s", word,
            info->name, info->synopsis);
    }
    args->topic = word;
    return QY_OK;
}

/* Splits "--flag=value"; name holds the flag. */
static const char *split_value(const char *word, char *name, size_t name_bytes)
{
    const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    if (equals == NULL || (size_t)(equals - word) >= name_bytes) {
        return NULL;
    }
    memcpy(name, word, (size_t)(equals - word));
    name[equals - word] = '\0';
    return equals + 1;
}

static enum qy_status check_topic(const struct qyi_args *args, struct qy_error *err)
{
    const struct qyi_command_info *info = qyi_command_info(args->command);
    if (info->topics == NULL) {
        return QY_OK;
    }
    const size_t n = args->topic == NULL ? 0 : strlen(args->topic);
    for (const char *at = info->topics; n > 0 && at != NULL; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, args->topic, n) == 0 && (at[n] == '|' || at[n] == '\0')) {
            return QY_OK;
        }
    }
    return qy_error_set(err, QY_ERR_CONFIG, "quarry %s '%s': no such kind; accepted: %s",
                        info->name, args->topic == NULL ? "" : args->topic, info->topics);
}

enum qy_status qyi_args_parse(int argc, char **argv, struct qyi_args *args, struct qy_error *err)
{
    memset(args, 0, sizeof *args);
    args->n = 128;
    args->batch = 1;
    args->context = 2048;
    args->steps = 16;
    args->warm_up = UINT64_MAX;
    const char *names[sizeof commands / sizeof commands[0]];
    for (size_t i = 0; qyi_command_at(i) != NULL; i++) {
        names[i] = commands[i].name;
        if (argc > 1 && strcmp(argv[1], commands[i].name) == 0) {
            args->command = commands[i].command;
        }
    }
    if (args->command == 0) {
        const char *near =
            argc > 1 ? qy_nearest(argv[1], names, sizeof names / sizeof names[0]) : NULL;
        return qy_error_set(err, QY_ERR_CONFIG,
                            "command '%s': no such command%s%s%s; see quarry help",
                            argc > 1 ? argv[1] : "", near ? "; did you mean '" : "",
                            near ? near : "", near ? "'?" : "");
    }
    for (int i = 2; i < argc; i++) {
        char name[64];
        const char *attached = split_value(argv[i], name, sizeof name);
        enum qy_status st;
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            st = take_topic(args, argv[i], err);
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            args->topic = qyi_command_info(args->command)->name;
            args->command = QYI_HELP;
            return QY_OK;
        } else {
            const struct qyi_option *option = find_option(attached ? name : argv[i]);
            if (option == NULL || (option->commands & (unsigned)args->command) == 0) {
                return unknown_option(attached ? name : argv[i], args->command, err);
            }
            if (attached != NULL && option->value == NULL) {
                return qy_error_set(err, QY_ERR_CONFIG, "option '%s': takes no value", name);
            }
            const char *value = attached != NULL ? attached : i + 1 < argc ? argv[i + 1] : NULL;
            st = take_option(args, option, attached ? option->alias : argv[i], value, err);
            i += option->value != NULL && attached == NULL;
            if (st == QY_OK && option->setting != NULL && strcmp(value, "help") == 0 &&
                strcmp(option->setting, "retrieval.policy") == 0) {
                args->topic = "policies";
                args->command = QYI_HELP;
                return QY_OK;
            }
        }
        if (st != QY_OK) {
            return st;
        }
    }
    return check_topic(args, err);
}
