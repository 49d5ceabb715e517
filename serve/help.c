/* SPDX-License-Identifier: Apache-2.0 */
/* Help, manual page and completion, all generated from the tables of options.c. */
#include <string.h>

#include "serve/serve.h"

static const char *flag_text(const struct qyi_option *o, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s%s%s%s%s", o->flag ? o->flag : "    ", o->flag ? ", " : "",
             o->alias, o->value ? " " : "", o->value ? o->value : "");
    return out;
}

static void print_options(FILE *out, unsigned command)
{
    char flag[64];
    for (size_t i = 0; qyi_option_at(i) != NULL; i++) {
        const struct qyi_option *o = qyi_option_at(i);
        if ((o->commands & command) != 0) {
            fprintf(out, "  %-26s %s\n", flag_text(o, flag, sizeof flag), o->help);
        }
    }
}

void qyi_print_policies(FILE *out)
{
    for (size_t i = 0; qy_policy_at(i) != NULL; i++) {
        fprintf(out, "  %-10s %s\n", qy_policy_at(i)->name, qy_policy_at(i)->summary);
    }
}

/* What the words after a command mean, where its one line does not tell. */
static const struct {
    enum qyi_command command;
    const char *topic, *help;
} topics[] = {
    {QYI_EVAL, "ppl",
     "perplexity, KL, same first choice on --count tokens after --ctx of the text"},
    {QYI_EVAL, "recall", "what selections find of the best tokens and of the mass, by layer"},
    {QYI_EVAL, "needle", "facts in the text, and random keys, asked one by one"},
    {QYI_EVAL, "aggregate", "common words, frequent words, chains of variables (after RULER)"},
    {QYI_EVAL, "turns", "a conversation that asks for what was read and for what was said"},
    {QYI_BENCH, "decode",
     "steps of the model, or with --shape of layers without one. overlap: 1 - (time compute waited "
     "for movement) / (time movement takes alone, in steps between these with step.overlap=off); "
     "not "
     "clamped; - (null) when movement alone is below 2 % of a step or below the spread of the "
     "steps"},
    {QYI_BENCH, "kernels", "each kernel of a step alone"},
    {QYI_BENCH, "link", "copies between home memory and the device, by rows and by sizes"},
    {QYI_BENCH, "net",
     "questions to the memory servers of net.memory, or to one of its own: round trip, blocks put "
     "and "
     "read, rows pulled and pushed, by how many are under way at once; beside each the same work "
     "done "
     "here, and ucx_perftest's rate where it is installed"},
    {QYI_BENCH, "compare",
     "steps of sides that differ in settings (--side, twice or more), in turns: the median of "
     "their "
     "ratios, turn by turn, says what a busy machine hides"},
    {QYI_BENCH, "residency",
     "rows of a step that were attended before, by size and eviction (needs -f)"},
};
enum { N_TOPICS = sizeof topics / sizeof topics[0] };

static void print_topics(FILE *out, enum qyi_command command)
{
    for (size_t i = 0, n = 0; i < N_TOPICS; i++) {
        if (topics[i].command == command) {
            fprintf(out, "%s  %-10s %s\n", n++ == 0 ? "\nkinds\n" : "", topics[i].topic,
                    topics[i].help);
        }
    }
}

void qyi_print_help(FILE *out, enum qyi_command command)
{
    if (command != 0) {
        const struct qyi_command_info *info = qyi_command_info(command);
        fprintf(out, "quarry %s %s\n  %s\n", info->name, info->synopsis, info->help);
        print_topics(out, command);
        fprintf(out, "\noptions\n");
        print_options(out, (unsigned)command);
        if ((command & QYI_ENGINE) != 0) {
            fprintf(out, "\npolicies\n");
            qyi_print_policies(out);
        }
        return;
    }
    fprintf(out,
            "quarry %s: long contexts with the full KV cache in host memory; each step attends to "
            "the few tokens that it needs\n\ncommands\n",
            QY_VERSION);
    for (size_t i = 0; qyi_command_at(i) != NULL; i++) {
        const struct qyi_command_info *info = qyi_command_at(i);
        fprintf(out, "  quarry %-9s %s%s%s\n", info->name, info->topics ? info->topics : "",
                info->topics ? ": " : "", info->help);
    }
    fprintf(out,
            "\nquarry help COMMAND tells its options; quarry --version what this build has\n"
            "exit codes: 0 done, 1 failed, 2 usage or config, 130 interrupted\n");
}

/* Text with roff's special characters escaped. */
static void roff(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '-' || *text == '\\') {
            putchar('\\');
        }
        putchar(*text);
    }
}

static void print_man(void)
{
    printf(
        ".TH QUARRY 1 \"\" \"quarry %s\" \"User Commands\"\n.SH NAME\nquarry \\- long contexts "
        "with the full KV cache in host memory\n.SH SYNOPSIS\n.B quarry\n.I command\n[options]\n"
        ".SH COMMANDS\n",
        QY_VERSION);
    for (size_t i = 0; qyi_command_at(i) != NULL; i++) {
        const struct qyi_command_info *info = qyi_command_at(i);
        printf(".TP\n.B quarry %s\n", info->name);
        roff(info->synopsis);
        printf("\n.br\n");
        roff(info->help);
        printf("\n");
        for (size_t t = 0; t < N_TOPICS; t++) {
            if (topics[t].command == info->command) {
                printf(".br\n%s: ", topics[t].topic);
                roff(topics[t].help);
                printf("\n");
            }
        }
    }
    printf(".SH OPTIONS\n");
    for (size_t i = 0; qyi_option_at(i) != NULL; i++) {
        const struct qyi_option *o = qyi_option_at(i);
        printf(".TP\n.B ");
        if (o->flag != NULL) {
            roff(o->flag);
            printf(", ");
        }
        roff(o->alias);
        if (o->value != NULL) {
            printf(" \\fI%s\\fR", o->value);
        }
        printf("\n");
        roff(o->help);
        printf("\n.br\nof:");
        for (size_t c = 0; qyi_command_at(c) != NULL; c++) {
            if ((o->commands & (unsigned)qyi_command_at(c)->command) != 0) {
                printf(" %s", qyi_command_at(c)->name);
            }
        }
        printf("\n");
    }
    printf(
        ".SH EXIT STATUS\n0 done, 1 failed, 2 usage or config, 130 interrupted\n"
        ".SH ENVIRONMENT\nQY_SECTION_NAME sets section.name; quarry config lists all settings.\n");
}

static void print_completion(void)
{
    printf(
        "# bash completion of quarry\n_quarry() {\n  local cur=${COMP_WORDS[COMP_CWORD]} words=\n"
        "  if [ \"$COMP_CWORD\" = 1 ]; then\n    words='");
    for (size_t i = 0; qyi_command_at(i) != NULL; i++) {
        printf("%s%s", i ? " " : "", qyi_command_at(i)->name);
    }
    printf(" --help --version'\n  else\n    case ${COMP_WORDS[1]} in\n");
    for (size_t c = 0; qyi_command_at(c) != NULL; c++) {
        const struct qyi_command_info *info = qyi_command_at(c);
        printf("    %s) words='", info->name);
        for (const char *t = info->topics; t != NULL && *t != '\0'; t++) {
            putchar(*t == '|' ? ' ' : *t);
        }
        for (size_t i = 0; qyi_option_at(i) != NULL; i++) {
            if ((qyi_option_at(i)->commands & (unsigned)info->command) != 0) {
                printf(" %s", qyi_option_at(i)->alias);
            }
        }
        printf("' ;;\n");
    }
    printf(
        "    esac\n  fi\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
        "  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
        "complete -F _quarry quarry\n");
}

int qyi_cmd_help(const struct qyi_args *args)
{
    if (args->man) {
        print_man();
        return 0;
    }
    if (args->completion != NULL) {
        if (strcmp(args->completion, "bash") != 0) {
            fprintf(stderr,
                    "quarry: error: option '--completion': '%s' refused; bash is accepted\n",
                    args->completion);
            return 2;
        }
        print_completion();
        return 0;
    }
    for (size_t i = 0; args->topic != NULL && qyi_command_at(i) != NULL; i++) {
        if (strcmp(args->topic, qyi_command_at(i)->name) == 0) {
            qyi_print_help(stdout, qyi_command_at(i)->command);
            return 0;
        }
    }
    if (args->topic != NULL && strcmp(args->topic, "policies") == 0) {
        qyi_print_policies(stdout);
        return 0;
    }
    if (args->topic != NULL) {
        fprintf(stderr, "quarry: error: help '%s': no such command; see quarry help\n",
                args->topic);
        return 2;
    }
    qyi_print_help(stdout, 0);
    return 0;
}
