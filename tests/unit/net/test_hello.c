/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake as pure functions: who knows the key is let in, and nobody else, whatever he says. */
#include "net/hello.h"
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t key[QY_NET_KEY_BYTES] = "the key of this job, 32 bytes..";
static const uint8_t other_key[QY_NET_KEY_BYTES] = "the key of this job, 32 bytes.,";

enum { N_MESSAGES = 4, PROTOCOL_AT = 4 };

/* A hello with all that was said; `change` may alter a message on its way. */
struct talk {
    struct qyi_hello asker, answerer;
    uint8_t said[N_MESSAGES][QYI_HELLO_BYTES];
    size_t bytes[N_MESSAGES];
};

struct change {
    int message; /* -1: none */
    size_t at, bit;
    int cut; /* the message ends at `at`; else the bit there is flipped */
};

static void open_talk(struct talk *talk)
{
    const struct qyi_identity asker = {.incarnation = 11, .session = "asker's session"};
    const struct qyi_identity answerer = {.incarnation = 22, .session = "unused"};
    const struct qyi_terms terms = {.call_bytes = 1000, .answer_bytes = 2000, .depth = 16};

    memset(talk, 0, sizeof(*talk));
    qyi_hello_open(&talk->asker, 1, &asker, NULL);
    qyi_hello_open(&talk->answerer, 0, &answerer, &terms);
}

/* Message i goes over; memory of exactly its size, so that a read beyond is seen. */
static size_t pass_on(struct talk *talk, int i, struct qyi_hello *to, const uint8_t *with,
                      const struct change *change, uint8_t *out)
{
    size_t bytes = talk->bytes[i];

    if (change && change->message == i && change->cut) {
        bytes = change->at;
    }
    uint8_t *copy = malloc(bytes + (bytes == 0));
    assert_non_null(copy);
    memcpy(copy, talk->said[i], bytes);
    if (change && change->message == i && !change->cut) {
        copy[change->at] ^= (uint8_t)(1U << change->bit);
    }
    const size_t answer = qyi_hello_take(to, with, copy, bytes, out);
    free(copy);
    assert_true(answer <= QYI_HELLO_BYTES);
    return answer;
}

static void run_talk(struct talk *talk, const uint8_t *askers_key, const uint8_t *answerers_key,
                     const struct change *change)
{
    uint8_t rest[QYI_HELLO_BYTES];

    open_talk(talk);
    talk->bytes[0] = qyi_hello_begin(&talk->asker, talk->said[0]);
    for (int i = 0; i < N_MESSAGES && talk->bytes[i] > 0; i++) {
        const int last = i + 1 == N_MESSAGES;
        struct qyi_hello *to = i % 2 == 0 ? &talk->answerer : &talk->asker;
        const size_t bytes = pass_on(talk, i, to, i % 2 == 0 ? answerers_key : askers_key, change,
                                     last ? rest : talk->said[i + 1]);
        if (!last) {
            talk->bytes[i + 1] = bytes;
        }
    }
}

static void hello_with_one_key_makes_both_known(void **state)
{
    struct talk talk;

    (void)state;
    run_talk(&talk, key, key, NULL);
    assert_int_equal(talk.asker.stage, QYI_HELLO_DONE);
    assert_int_equal(talk.answerer.stage, QYI_HELLO_DONE);
    assert_int_equal(talk.asker.theirs.incarnation, 22);
    assert_int_equal(talk.answerer.theirs.incarnation, 11);
    assert_memory_equal(talk.answerer.theirs.session, "asker's session", QY_NET_SESSION_BYTES);
    assert_int_equal(talk.asker.terms.depth, 16);
    assert_int_equal(talk.asker.terms.call_bytes, 1000);
    assert_int_equal(talk.asker.terms.answer_bytes, 2000);
}

static void hello_never_says_the_key(void **state)
{
    struct talk talk;

    (void)state;
    run_talk(&talk, key, key, NULL);
    for (int i = 0; i < N_MESSAGES; i++) {
        assert_null(memmem(talk.said[i], talk.bytes[i], key, 8));
    }
}

static void hello_with_another_key_is_refused_on_both_sides(void **state)
{
    struct talk talk;

    (void)state;
    run_talk(&talk, key, other_key, NULL);
    assert_int_equal(talk.asker.stage, QYI_HELLO_REFUSED);
    assert_int_equal(talk.answerer.stage, QYI_HELLO_REFUSED);
    assert_non_null(strstr(talk.asker.why, "key"));
    assert_non_null(strstr(talk.answerer.why, "key"));
}

/* An asker who does not check the answerer's proof gets no further than his own. */
static void asker_with_another_key_is_refused_by_the_answerer(void **state)
{
    struct talk mine;
    struct talk theirs;
    uint8_t out[QYI_HELLO_BYTES];

    (void)state;
    run_talk(&mine, other_key, other_key, NULL);
    run_talk(&theirs, key, key, NULL);
    open_talk(&theirs);
    assert_true(qyi_hello_take(&theirs.answerer, key, mine.said[0], mine.bytes[0], out) > 0);
    assert_true(qyi_hello_take(&theirs.answerer, key, mine.said[2], mine.bytes[2], out) > 0);
    assert_int_equal(theirs.answerer.stage, QYI_HELLO_REFUSED);
}

static void hello_with_any_bit_flipped_is_refused(void **state)
{
    struct talk whole;
    struct talk talk;

    (void)state;
    run_talk(&whole, key, key, NULL);
    for (int message = 0; message < N_MESSAGES; message++) {
        for (size_t at = 0; at < whole.bytes[message]; at++) {
            for (size_t bit = 0; bit < 8; bit++) {
                const struct change change = {.message = message, .at = at, .bit = bit};
                run_talk(&talk, key, key, &change);
                const struct qyi_hello *taker = message == 2 ? &talk.answerer : &talk.asker;
                if (taker->stage != QYI_HELLO_REFUSED) {
                    fail_msg("message %d, byte %zu, bit %zu", message + 1, at, bit);
                }
            }
        }
    }
}

static void hello_cut_or_longer_is_refused(void **state)
{
    struct talk whole;
    struct talk talk;

    (void)state;
    run_talk(&whole, key, key, NULL);
    for (int message = 0; message < N_MESSAGES; message++) {
        for (size_t at = 0; at <= whole.bytes[message] + 1; at++) {
            const struct change change = {.message = message, .at = at, .cut = 1};
            if (at == whole.bytes[message]) {
                continue;
            }
            run_talk(&talk, key, key, &change);
            const struct qyi_hello *taker = message % 2 == 0 ? &talk.answerer : &talk.asker;
            assert_int_equal(taker->stage, QYI_HELLO_REFUSED);
        }
    }
}

static void recorded_hello_is_refused_when_played_again(void **state)
{
    struct talk recorded;
    struct talk fresh;
    uint8_t out[QYI_HELLO_BYTES];

    (void)state;
    run_talk(&recorded, key, key, NULL);
    open_talk(&fresh);
    (void)qyi_hello_take(&fresh.answerer, key, recorded.said[0], recorded.bytes[0], out);
    (void)qyi_hello_take(&fresh.answerer, key, recorded.said[2], recorded.bytes[2], out);
    assert_int_equal(fresh.answerer.stage, QYI_HELLO_REFUSED);

    open_talk(&fresh);
    (void)qyi_hello_begin(&fresh.asker, out);
    (void)qyi_hello_take(&fresh.asker, key, recorded.said[1], recorded.bytes[1], out);
    assert_int_equal(fresh.asker.stage, QYI_HELLO_REFUSED);
}

/* The answerer's proof, sent back as one's own; and the asker's own words. */
static void reflected_proofs_are_refused(void **state)
{
    struct talk talk;
    struct talk form;
    uint8_t out[QYI_HELLO_BYTES];

    (void)state;
    run_talk(&form, key, key, NULL);
    open_talk(&talk);
    const size_t first = qyi_hello_begin(&talk.asker, talk.said[0]);
    const size_t second = qyi_hello_take(&talk.answerer, key, talk.said[0], first, talk.said[1]);
    memcpy(form.said[2] + form.bytes[2] - QYI_PROOF_BYTES, talk.said[1] + second - QYI_PROOF_BYTES,
           QYI_PROOF_BYTES);
    (void)qyi_hello_take(&talk.answerer, key, form.said[2], form.bytes[2], out);
    assert_int_equal(talk.answerer.stage, QYI_HELLO_REFUSED);

    open_talk(&talk);
    (void)qyi_hello_begin(&talk.asker, talk.said[0]);
    (void)qyi_hello_take(&talk.asker, key, talk.said[0], first, out);
    assert_int_equal(talk.asker.stage, QYI_HELLO_REFUSED);
}

static void another_protocol_is_refused_in_words(void **state)
{
    const struct change asked = {.message = 0, .at = PROTOCOL_AT, .bit = 1};
    const struct change answered = {.message = 1, .at = PROTOCOL_AT, .bit = 1};
    struct talk talk;

    (void)state;
    run_talk(&talk, key, key, &asked);
    assert_non_null(strstr(talk.answerer.why, "protocol 3"));
    assert_non_null(strstr(talk.asker.why, "protocol"));
    assert_int_equal(talk.asker.stage, QYI_HELLO_REFUSED);
    run_talk(&talk, key, key, &answered);
    assert_non_null(strstr(talk.asker.why, "protocol 3"));
}

static void hello_out_of_order_is_refused(void **state)
{
    struct talk whole;
    struct talk talk;
    uint8_t out[QYI_HELLO_BYTES];

    (void)state;
    run_talk(&whole, key, key, NULL);
    for (int message = 0; message < N_MESSAGES; message++) {
        open_talk(&talk);
        if (message != 0) {
            (void)qyi_hello_take(&talk.answerer, key, whole.said[message], whole.bytes[message],
                                 out);
            assert_int_equal(talk.answerer.stage, QYI_HELLO_REFUSED);
        }
        (void)qyi_hello_take(&talk.asker, key, whole.said[message], whole.bytes[message], out);
        assert_int_equal(talk.asker.stage, QYI_HELLO_REFUSED);
        /* After that nothing is said any more. */
        assert_int_equal(qyi_hello_take(&talk.asker, key, whole.said[1], whole.bytes[1], out), 0);
    }
    (void)qyi_hello_take(&whole.answerer, key, whole.said[2], whole.bytes[2], out);
    assert_int_equal(whole.answerer.stage, QYI_HELLO_REFUSED);
}

static void any_bytes_are_refused(void **state)
{
    uint8_t out[QYI_HELLO_BYTES];
    struct talk talk;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        uint8_t bytes[QYI_HELLO_BYTES];
        uint32_t n;
        qyi_random(&n, sizeof(n));
        n %= QYI_HELLO_BYTES + 1;
        qyi_random(bytes, n);
        if (n > 4 && i % 2 == 0) { /* a type that exists */
            memcpy(bytes, &(uint32_t){(uint32_t)i / 2 % 6}, 4);
        }
        uint8_t *copy = malloc(n + (n == 0));
        assert_non_null(copy);
        memcpy(copy, bytes, n);
        open_talk(&talk);
        (void)qyi_hello_begin(&talk.asker, out);
        (void)qyi_hello_take(&talk.asker, key, copy, n, out);
        assert_int_not_equal(talk.asker.stage, QYI_HELLO_DONE);
        (void)qyi_hello_take(&talk.answerer, key, copy, n, out);
        assert_int_not_equal(talk.answerer.stage, QYI_HELLO_DONE);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_with_one_key_makes_both_known),
        cmocka_unit_test(hello_never_says_the_key),
        cmocka_unit_test(hello_with_another_key_is_refused_on_both_sides),
        cmocka_unit_test(asker_with_another_key_is_refused_by_the_answerer),
        cmocka_unit_test(hello_with_any_bit_flipped_is_refused),
        cmocka_unit_test(hello_cut_or_longer_is_refused),
        cmocka_unit_test(recorded_hello_is_refused_when_played_again),
        cmocka_unit_test(reflected_proofs_are_refused),
        cmocka_unit_test(another_protocol_is_refused_in_words),
        cmocka_unit_test(hello_out_of_order_is_refused),
        cmocka_unit_test(any_bytes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
