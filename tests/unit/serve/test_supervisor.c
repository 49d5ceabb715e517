/* SPDX-License-Identifier: Apache-2.0 */
/* What a supervisor makes of what its child does. */
#include "tests/unit/serve/supervisor_bed.h"

#include <signal.h>
#include <string.h>

#include "tests/support/fail_alloc.h"

static void child_listens_lives_and_ends(void **state)
{
    (void)state;
    struct bed bed;
    const unsigned before = descriptors();
    bed_open(&bed, "good" SECRET);
    reach(&bed, QYI_CHILD_LISTENING);
    assert_string_equal(bed.child.address, "first:1");
    assert_int_equal(bed.child.incarnation, 1);
    assert_int_equal(bed.child.restarts, 0);
    assert_string_equal(bed.child.why, "");
    const int pid = bed.child.pid;
    /* Its clock passes far more than a silence may last; each look hears a beat before. */
    for (int i = 0; i < 30; i++) {
        qyi_supervisor_wait(bed.supervisor, MS(30000));
        bed.now += bed.params.silence_ns - 1;
        assert_int_equal(look(&bed), QY_OK);
    }
    assert_int_equal(bed.child.pid, pid);
    assert_int_equal(bed_close(&bed), 0);
    assert_int_equal(descriptors(), before);
}

static void child_that_is_killed_comes_back_where_it_was(void **state)
{
    (void)state;
    struct bed bed;
    const unsigned before = descriptors();
    bed_open(&bed, "good");
    reach(&bed, QYI_CHILD_LISTENING);
    const int pid = bed.child.pid;
    kill(pid, SIGKILL);
    reach(&bed, QYI_CHILD_WAITING);
    assert_string_equal(bed.child.why, "ended by signal 9");
    assert_int_equal(bed.child.pid, 0);
    assert_int_equal(look(&bed), QY_PENDING); /* not before its time */
    assert_int_equal(bed.child.state, QYI_CHILD_WAITING);
    bed.now += bed.params.back_off_ns;
    assert_int_equal(look(&bed), QY_PENDING);
    assert_int_equal(bed.child.state, QYI_CHILD_STARTING);
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_not_equal(bed.child.pid, pid);
    assert_string_equal(bed.child.address, "first:1"); /* as it was told */
    assert_int_equal(bed.child.incarnation, 2);
    assert_int_equal(bed.child.restarts, 1);
    /* The second restart of a minute waits twice as long. */
    kill(bed.child.pid, SIGKILL);
    reach(&bed, QYI_CHILD_WAITING);
    bed.now += 2 * bed.params.back_off_ns - 1;
    (void)!look(&bed);
    assert_int_equal(bed.child.state, QYI_CHILD_WAITING);
    bed.now += 1;
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_equal(bed.child.restarts, 2);
    assert_int_equal(bed_close(&bed), 0);
    assert_int_equal(descriptors(), before);
}

static void child_that_is_stopped_is_killed_and_started_again(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "good");
    reach(&bed, QYI_CHILD_LISTENING);
    const int pid = bed.child.pid;
    kill(pid, SIGSTOP);
    bed.now += 1000 * bed.params.silence_ns; /* in which nobody listened either */
    assert_int_equal(look(&bed), QY_OK);
    for (int i = 0; bed.child.state == QYI_CHILD_LISTENING; i++) {
        assert_true(i < 3000); /* what it said before may still be heard */
        qyi_supervisor_wait(bed.supervisor, MS(10));
        pass(&bed, bed.params.silence_ns);
    }
    pass_back_off(&bed);
    assert_non_null(strstr(bed.child.why, "did not answer"));
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_not_equal(bed.child.pid, pid);
    assert_int_equal(bed.child.restarts, 1);
    assert_int_equal(bed_close(&bed), 0);
}

static void child_that_never_listens_is_given_up(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "mute");
    for (uint32_t i = 0; i <= bed.params.max_restarts; i++) {
        pass(&bed, bed.params.listen_ns - 1);
        assert_int_equal(bed.child.state, QYI_CHILD_STARTING);
        pass(&bed, 1);
        assert_int_equal(bed.child.state, QYI_CHILD_ENDING);
        if (i < bed.params.max_restarts) {
            pass_back_off(&bed);
        }
    }
    reach(&bed, QYI_CHILD_GIVEN_UP);
    assert_int_equal(look(&bed), QY_ERR_PEER);
    assert_non_null(strstr(bed.err.text, "did not listen within 1000 ms"));
    assert_int_equal(bed.child.restarts, 3);
    assert_int_equal(bed_close(&bed), 0);
}

static void child_that_ends_at_once_is_given_up(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "exits");
    for (uint32_t i = 0; i < bed.params.max_restarts; i++) {
        pass_back_off(&bed);
    }
    reach(&bed, QYI_CHILD_GIVEN_UP);
    assert_int_equal(look(&bed), QY_ERR_PEER); /* and stays so */
    assert_non_null(strstr(bed.err.text, "'" CHILD_NAME "': started again 3 times"));
    assert_non_null(strstr(bed.err.text, "ended with exit code 3"));
    assert_int_equal(bed.child.restarts, 3);
    assert_int_equal(bed.lines, 3);
    assert_int_equal(bed_close(&bed), 0);
}

static void child_that_ends_now_and_then_is_not_given_up(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "good");
    for (uint32_t i = 0; i < 6; i++) {
        reach(&bed, QYI_CHILD_LISTENING);
        assert_int_equal(bed.child.restarts, i);
        kill(bed.child.pid, SIGKILL);
        reach(&bed, QYI_CHILD_WAITING);
        bed.now += MS(31000);
    }
    bed_close(&bed);
}

static void child_that_ends_before_it_listened_is_tried_again(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "again");
    pass_back_off(&bed);
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_equal(bed.child.restarts, 1);
    assert_string_equal(bed.child.why, "ended with exit code 3");
    assert_int_equal(bed_close(&bed), 0);
}

static void child_that_says_why_it_cannot_is_believed(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "fails");
    reach(&bed, QYI_CHILD_GIVEN_UP);
    assert_int_equal(look(&bed), QY_ERR_CONFIG);
    assert_non_null(strstr(bed.err.text, "port '1': is in use"));
    assert_int_equal(bed.child.restarts, 0);
    assert_int_equal(bed_close(&bed), 0);
}

static void no_end(int number)
{
    (void)number;
}

static void brief_that_comes_later_is_waited_for(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, NULL);
    pass(&bed, 3 * bed.params.listen_ns); /* it is not to blame */
    assert_int_equal(bed.child.state, QYI_CHILD_STARTING);
    assert_int_equal(bed.child.restarts, 0);
    const int pid = bed.child.pid;
    assert_int_equal(
        qyi_supervisor_brief(bed.supervisor, "good", QYI_CHILD_BRIEF_BYTES + 1, bed.now, &bed.err),
        QY_ERR_INVALID);
    assert_int_equal(qyi_supervisor_brief(bed.supervisor, "good", 4, bed.now, &bed.err), QY_OK);
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_equal(bed.child.pid, pid);
    assert_int_equal(qyi_supervisor_brief(bed.supervisor, "good", 4, bed.now, &bed.err),
                     QY_ERR_INVALID);
    kill(pid, SIGKILL);
    pass_back_off(&bed);
    reach(&bed, QYI_CHILD_LISTENING); /* the next start has it, too */
    assert_int_equal(bed.child.incarnation, 2);
    assert_int_equal(bed_close(&bed), 0);
    /* One that died before. */
    bed_open(&bed, NULL);
    (void)!look(&bed);
    kill(bed.child.pid, SIGKILL);
    reach(&bed, QYI_CHILD_WAITING);
    assert_int_equal(qyi_supervisor_brief(bed.supervisor, "mute", 4, bed.now, &bed.err), QY_OK);
    bed.now += bed.params.back_off_ns;
    (void)!look(&bed);
    assert_int_equal(bed.child.state, QYI_CHILD_STARTING);
    pass(&bed, bed.params.listen_ns); /* now it is */
    assert_int_equal(bed.child.state, QYI_CHILD_ENDING);
    bed_close(&bed);
    /* One that never hears of anything. */
    bed_open(&bed, NULL);
    (void)!look(&bed);
    assert_int_equal(bed_close(&bed), 0);
}

static void child_that_is_ended_before_it_is_a_program_ends(void **state)
{
    (void)state;
    struct bed bed;
    /* A handler that a copy of this process has, too, until it is another program. */
    signal(SIGTERM, no_end);
    bed_open(&bed, "good");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(bed_close(&bed), 0);
        bed_start(&bed);
    }
    assert_int_equal(bed_close(&bed), 0);
    signal(SIGTERM, SIG_DFL);
}

static void child_that_hangs_is_killed_at_close(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "good");
    bed_close(&bed);
    bed.params.end_ns = MS(50);
    bed_start(&bed);
    reach(&bed, QYI_CHILD_LISTENING);
    kill(bed.child.pid, SIGSTOP);
    assert_int_equal(bed_close(&bed), 1);
    bed.params.brief = "stubborn";
    bed.params.brief_bytes = strlen("stubborn");
    bed_start(&bed);
    reach(&bed, QYI_CHILD_LISTENING);
    assert_int_equal(bed_close(&bed), 1);
}

static void program_that_is_not_there_is_one_clear_error(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "");
    bed_close(&bed);
    bed.params.program = "/nothere/quarry";
    bed_start(&bed);
    reach(&bed, QYI_CHILD_GIVEN_UP);
    assert_int_equal(look(&bed), QY_ERR_NOT_FOUND);
    assert_non_null(strstr(bed.err.text, "'/nothere/quarry': cannot be started: No such file"));
    bed_close(&bed);
    bed.params.max_restarts = QYI_MAX_RESTARTS + 1;
    assert_int_equal(qyi_supervisor_open(&bed.params, bed.now, &bed.supervisor, &bed.err),
                     QY_ERR_INVALID);
}

static void open_without_memory_starts_nothing(void **state)
{
    (void)state;
    struct bed bed;
    bed_open(&bed, "good");
    bed_close(&bed);
    struct fail_alloc fail = {.fail_at = 0};
    bed.rt.mem = fail_alloc_make(&fail);
    bed.supervisor = NULL;
    assert_int_equal(qyi_supervisor_open(&bed.params, bed.now, &bed.supervisor, &bed.err),
                     QY_ERR_NOMEM);
    assert_null(bed.supervisor);
    bed_close(&bed);
    fail.fail_at = -1;
    bed_start(&bed);
    reach(&bed, QYI_CHILD_LISTENING);
    bed_close(&bed);
    assert_int_equal(fail.live, 0);
}

int main(int argc, char **argv)
{
    if (argc == 1 && strcmp(argv[0], CHILD_NAME) == 0) {
        return child_main();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_listens_lives_and_ends),
        cmocka_unit_test(child_that_is_killed_comes_back_where_it_was),
        cmocka_unit_test(child_that_is_stopped_is_killed_and_started_again),
        cmocka_unit_test(child_that_never_listens_is_given_up),
        cmocka_unit_test(child_that_ends_at_once_is_given_up),
        cmocka_unit_test(child_that_ends_now_and_then_is_not_given_up),
        cmocka_unit_test(child_that_ends_before_it_listened_is_tried_again),
        cmocka_unit_test(child_that_says_why_it_cannot_is_believed),
        cmocka_unit_test(brief_that_comes_later_is_waited_for),
        cmocka_unit_test(child_that_is_ended_before_it_is_a_program_ends),
        cmocka_unit_test(child_that_hangs_is_killed_at_close),
        cmocka_unit_test(program_that_is_not_there_is_one_clear_error),
        cmocka_unit_test(open_without_memory_starts_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
