/* SPDX-License-Identifier: Apache-2.0 */
/* A memory server when the n-th allocation fails: nothing leaked, nothing half open; and none once a
 * worker's session is open. */
#include "tests/unit/offload/memory_rig.h"

#include "tests/support/fail_alloc.h"

#include <string.h>

static const struct memory_form form = {.codec = "4bit+0:f16", .index_bytes = 64};

/* Static: answers are large. */
static struct memory_rig rig;
static struct memory_direct line;
static struct memory_worker worker;

/* The server alone, by another allocator than the rig's. */
static enum qy_status open_server(struct qy_runtime *rt, const struct fail_alloc *f,
                                  struct qy_memory **memory)
{
    const struct qy_memory_params params = {.rt = rt,
                                            .bytes = 1 << 20,
                                            .grace_ns = 1,
                                            .call_bytes = MR_CALL,
                                            .answer_bytes = MR_ANSWER,
                                            .max_sessions = 2};
    struct qy_error err = {0};
    const enum qy_status st = qy_memory_open(&params, memory, &err);

    if (st != QY_OK) {
        assert_int_equal(st, QY_ERR_NOMEM);
        assert_true(strlen(err.text) > 0);
        assert_int_equal(f->live, 0);
    }
    return st;
}

static void open_survives_every_failing_allocation(void **state)
{
    uint16_t code = QYI_REMOTE_FAILED;
    long refused = 0;
    (void)state;

    memory_rig_open(&rig, &(struct memory_options){0});
    for (long n = 0; code != QYI_REMOTE_DONE; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_runtime rt = rig.rt;
        struct qy_memory *memory;

        assert_true(n < 100);
        rt.mem = fail_alloc_make(&f);
        if (open_server(&rt, &f, &memory) != QY_OK) {
            continue;
        }
        line = (struct memory_direct){.memory = memory};
        memory_worker_init(&worker, &rig, 1, &form, memory_ask_direct, &line);
        code = memory_open(&worker);
        if (code != QYI_REMOTE_DONE) {
            assert_int_equal(code, QYI_REMOTE_FAILED);
            assert_null(line.session);
            refused++;
            assert_int_equal(memory_open(&worker), QYI_REMOTE_DONE); /* as if nothing had been */
            memory_fill(&worker, 0, 2);
            assert_true(memory_holds(&worker, 0, 1));
        }
        memory_worker_free(&worker);
        qy_memory_close(memory);
        assert_int_equal(f.live, 0);
    }
    assert_true(refused >= 6);
    memory_rig_close(&rig);
}

static void open_session_allocates_nothing(void **state)
{
    static struct memory_list list;
    struct fail_alloc f = {.fail_at = -1};
    struct qy_memory *memory;
    (void)state;

    memory_rig_open(&rig, &(struct memory_options){.threads = 2});
    struct qy_runtime rt = rig.rt;
    rt.mem = fail_alloc_make(&f);
    assert_int_equal(open_server(&rt, &f, &memory), QY_OK);
    line = (struct memory_direct){.memory = memory};
    memory_worker_init(&worker, &rig, 1, &form, memory_ask_direct, &line);
    assert_int_equal(memory_open(&worker), QYI_REMOTE_DONE);
    const long before = f.calls;

    memory_fill(&worker, 0, 12);
    list = (struct memory_list){.layer = 1};
    memory_list_add(&worker, &list, 0, 0, 384, 12, 1);
    memory_list_add(&worker, &list, 0, 1, 300, 12, 0);
    assert_int_equal(memory_rows(&worker, &list), QYI_REMOTE_DONE);
    assert_int_equal(memory_attend(&worker, &list), QYI_REMOTE_DONE);
    assert_true(memory_holds(&worker, 0, 3));
    assert_int_equal(memory_drop(&worker, 0, 1, UINT32_MAX, 0), QYI_REMOTE_DONE);
    assert_int_equal(memory_state(&worker), QYI_REMOTE_DONE);
    (void)qy_memory_tend(memory, 5);
    assert_int_equal(f.calls, before);

    memory_worker_free(&worker);
    qy_memory_close(memory);
    assert_int_equal(f.live, 0);
    memory_rig_close(&rig);
}

static void params_that_make_no_sense_are_refused(void **state)
{
    struct qy_device_params discrete = {.spec = "host-discrete:1M", .max_m = 1};
    struct qy_memory *memory;
    struct qy_error err;
    (void)state;

    memory_rig_open(&rig, &(struct memory_options){0});
    const struct qy_memory_params good = {.rt = &rig.rt,
                                          .bytes = 1 << 20,
                                          .call_bytes = MR_CALL,
                                          .answer_bytes = MR_ANSWER,
                                          .max_sessions = 2};
    struct qy_memory_params bad[6] = {good, good, good, good, good, good};
    struct qy_device *dev;

    assert_int_equal(qy_device_open(&rig.rt, &discrete, &dev, NULL), QY_OK);
    bad[0].bytes = 0;
    bad[1].max_sessions = 0;
    bad[2].call_bytes = 100;
    bad[3].answer_bytes = 0;
    bad[4].dev = dev;
    bad[5].rt = NULL;
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(qy_memory_open(&bad[i], &memory, &err), QY_ERR_INVALID);
        assert_true(strlen(err.text) > 0);
    }
    qy_memory_close(NULL);
    qy_device_close(dev);
    memory_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_survives_every_failing_allocation),
        cmocka_unit_test(open_session_allocates_nothing),
        cmocka_unit_test(params_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests_name("fault.offload.memory", tests, NULL, NULL);
}
