/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to a list of prompts, written in the order of the list, whoever gives them and whenever they come.
 * Prompt i (from 0) is given to worker i modulo the number of workers. An answer is bytes, written as they
 * are; it may come in pieces, and some of them twice. What cannot come any more, because its worker has
 * ended, is left out and named at the end. No network is known here.
 */
#ifndef QYI_SERVE_ANSWER_LIST_H
#define QYI_SERVE_ANSWER_LIST_H

#include <stdio.h>

#include "runtime/runtime.h"

/* chosen: a memory server has as many places for peers */
enum { QYI_MAX_WORKERS = 64 };

/* A plain value; zero, then opened. */
struct qyi_answer_list {
    FILE *out;                         /* kept */
    uint32_t n_workers;                /* 1 .. QYI_MAX_WORKERS */
    int json;                          /* a line for each prompt that has no answer */
    size_t n, next;                    /* prompts; the first that was not written or left out */
    uint64_t start_ns;                 /* n was known */
    int broken;                        /* out takes nothing any more */
    struct qyi_answer_item *items;     /* [n] */
    struct qyi_answer_worker *workers; /* [n_workers] */
};

struct qyi_answer_item {
    char *bytes; /* [total]; NULL: nothing came, or it was written */
    size_t got, total;
    int whole; /* stays when it was written */
};

struct qyi_answer_worker {
    int ended, code; /* exit code */
    int named;       /* what is missing of it */
    char why[320];   /* it did not give all; "": it did, or said why itself */
};

/* Before the list is known: nothing can be put. out is kept. QY_ERR_NOMEM. [alloc] */
QY_MUST enum qy_status qyi_answer_list_open(struct qyi_answer_list *list, uint32_t n_workers,
                                            FILE *out, struct qy_error *err);
/* Of n prompts, once. [alloc] */
QY_MUST enum qy_status qyi_answer_list_expect(struct qyi_answer_list *list, size_t n, int json,
                                              struct qy_error *err);
void qyi_answer_list_close(struct qyi_answer_list *list);

/* Bytes at .. at + n - 1 of the `total` of the answer to a prompt, copied; pieces come in order, what came
 * before is not looked at. QY_ERR_INVALID: not this worker's prompt, or sizes that do not fit together.
 * QY_ERR_NOT_FOUND: the list is not known, or this prompt is not waited for. QY_ERR_NOMEM. [alloc] */
QY_MUST enum qy_status qyi_answer_list_put(struct qyi_answer_list *list, uint32_t worker,
                                           size_t prompt, const char *bytes, size_t n, size_t at,
                                           size_t total);
/* Nothing more comes from the worker; the first word counts. why: as in the struct, borrowed. */
void qyi_answer_list_end(struct qyi_answer_list *list, uint32_t worker, int code, const char *why);
int qyi_answer_list_has_ended(const struct qyi_answer_list *list, uint32_t worker);
/* Writes what is next. 1: out is broken, and nothing is written any more. */
int qyi_answer_list_write(struct qyi_answer_list *list);
/* QY_OK, or the names of prompts without an answer of workers that have ended and were not named before. ranks:
 * workers are called ranks; else there is one, which has no name. */
QY_MUST enum qy_status qyi_answer_list_missing(struct qyi_answer_list *list, int ranks,
                                               struct qy_error *err);
/* The worst of the workers' exit codes; at least 1 when prompts have no answer. */
int qyi_answer_list_code(const struct qyi_answer_list *list);
/* A line for people: how many, how long. */
void qyi_answer_list_print(const struct qyi_answer_list *list, FILE *out);

#endif
