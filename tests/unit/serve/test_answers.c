/* SPDX-License-Identifier: Apache-2.0 */
/* The way of answers from a worker to rank 0, both ends in one process, over the network's loopback. Whole jobs are
 * tests/dist/workers.py's. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/job/job_answers_internal.h"

enum { PROMPTS = 4 };

struct pair {
    struct qyi_app app;
    struct qyi_job first, other; /* ranks 0 and 1, of two workers */
    char *text;                  /* what rank 0 has written, after a look */
    size_t bytes;
    FILE *out;
};

static void say_nothing(void *ctx, enum qy_log_level level, const char *module, const char *text)
{
    (void)ctx;
    (void)level;
    (void)module;
    (void)text;
}

static void open_job(struct pair *p, struct qyi_job *job, int rank)
{
    job->rt.mem = qy_allocator_system();
    job->rt.log.write = say_nothing;
    job->app = &p->app;
    job->rank = rank;
    job->count = job->workers = 2;
    job->one_host = 1;
    memset(job->key, 'k', sizeof job->key);
}

static void poll_both(struct pair *p)
{
    qyi_job_answers_poll(p->first.answers);
    if (p->other.answers != NULL) {
        qyi_job_answers_poll(p->other.answers);
    }
}

/* 1: it came to be, before long. */
static int until(struct pair *p, int (*is)(const struct pair *p))
{
    const uint64_t limit = qy_clock_ns() + 20000000000u;
    while (!is(p) && qy_clock_ns() < limit) {
        poll_both(p);
    }
    return is(p);
}

static int is_up(const struct pair *p)
{
    return qy_peer_state(p->other.answers->first) == QY_PEER_UP;
}

static int has_come(const struct pair *p)
{
    return p->first.answers->senders[1].came && p->other.answers->parcels == NULL;
}

static int has_ended(const struct pair *p)
{
    return qyi_answer_list_has_ended(&p->first.answers->list, 1);
}

static int is_away(const struct pair *p)
{
    return qy_peer_state(p->other.answers->first) != QY_PEER_UP;
}

static void say(struct pair *p, uint16_t op, const struct qyi_answers_head *head, const char *bytes,
                size_t n)
{
    assert_int_equal(qyi_send_give(p->other.answers, op, head, bytes, n), QY_OK);
}

static void open_pair(struct pair *p)
{
    const struct qyi_answers_head nothing = {0};
    struct qy_error err = {0};
    char address[QY_NET_ADDRESS_BYTES];
    memset(p, 0, sizeof *p);
    open_job(p, &p->first, 0);
    open_job(p, &p->other, 1);
    if (qyi_job_answers_listen(&p->first, address, &err) != QY_OK ||
        qyi_job_answers_connect(&p->other, address, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    p->out = open_memstream(&p->text, &p->bytes);
    p->first.answers->list.out = p->out;
    assert_int_equal(qyi_job_answers_expect(p->first.answers, PROMPTS, 0, NULL), QY_OK);
    assert_true(until(p, is_up));
    say(p, QYI_ANSWERS_HELLO, &nothing, NULL, 0);
    assert_true(until(p, has_come));
}

static void close_pair(struct pair *p)
{
    qyi_job_answers_close(p->other.answers);
    qyi_job_answers_close(p->first.answers);
    fclose(p->out);
    free(p->text);
}

static void answers_of_many_pieces_arrive_in_the_order_of_the_list(void **state)
{
    enum { LONG = 3 * QYI_ANSWERS_PIECE_BYTES + 77 };
    const struct qyi_answers_head end = {.code = 3};
    struct pair p;
    char *text = malloc(LONG);
    (void)state;
    assert_non_null(text);
    for (int i = 0; i < LONG; i++) {
        text[i] = (char)('a' + i % 23);
    }
    open_pair(&p);
    assert_int_equal(qyi_job_answers_give(p.other.answers, 1, text, LONG), QY_OK);
    assert_int_equal(qyi_job_answers_give(p.other.answers, 3, "last", 4), QY_OK);
    say(&p, QYI_ANSWERS_END, &end, "tired", 5);
    assert_true(until(&p, has_ended));
    assert_int_equal(qyi_job_answers_give(p.first.answers, 0, "<", 1), QY_OK);
    assert_int_equal(p.bytes, 1 + LONG);
    assert_memory_equal(p.text + 1, text, LONG);
    assert_int_equal(qyi_job_answers_give(p.first.answers, 2, ">", 1), QY_OK);
    assert_string_equal(p.text + 1 + LONG, ">last");
    assert_int_equal(qyi_job_answers_end(p.first.answers, 0), 3); /* the worst of all codes */
    assert_string_equal(p.first.answers->list.workers[1].why, "tired");
    close_pair(&p);
    free(text);
}

static void worker_whose_connection_breaks_is_given_up(void **state)
{
    struct pair p;
    (void)state;
    open_pair(&p);
    assert_int_equal(qyi_job_answers_give(p.other.answers, 1, "b", 1), QY_OK);
    assert_true(until(&p, has_come));
    qyi_job_answers_close(p.other.answers);
    p.other.answers = NULL;
    assert_true(until(&p, has_ended));
    assert_int_equal(strncmp(p.first.answers->list.workers[1].why, "gone: ", 6), 0);
    assert_int_equal(qyi_job_answers_give(p.first.answers, 0, "a", 1), QY_OK);
    assert_int_equal(qyi_job_answers_give(p.first.answers, 2, "c", 1), QY_OK);
    assert_string_equal(p.text, "abc");
    assert_int_equal(qyi_job_answers_end(p.first.answers, 0), 1);
    close_pair(&p);
}

/* Each time the one who breaks the rules is sent away. */
static void worker_that_breaks_the_rules_is_sent_away(void **state)
{
    const struct {
        uint16_t op;
        struct qyi_answers_head head;
    } cases[] = {
        {QYI_ANSWERS_PIECE, {.prompt = 2, .total = 1}},           /* another one's prompt */
        {QYI_ANSWERS_PIECE, {.prompt = PROMPTS + 1, .total = 1}}, /* there is none */
        {QYI_ANSWERS_PIECE, {.prompt = 1, .total = UINT64_MAX}},  /* more than can be */
        {QYI_ANSWERS_END, {.code = 256}},
        {QYI_ANSWERS_BEAT + 1, {0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair p;
        open_pair(&p);
        say(&p, cases[i].op, &cases[i].head, "x", 1);
        assert_true(until(&p, is_away));
        assert_int_equal(p.bytes, 0);
        close_pair(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_of_many_pieces_arrive_in_the_order_of_the_list),
        cmocka_unit_test(worker_whose_connection_breaks_is_given_up),
        cmocka_unit_test(worker_that_breaks_the_rules_is_sent_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
