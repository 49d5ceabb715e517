/* SPDX-License-Identifier: Apache-2.0 */
/* Device and model when the n-th allocation fails, for every n: an error, nothing leaked. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/tiny_models.h"

enum { MOST = 20000 };

struct opened {
    struct qy_device *dev;
    struct qy_gguf *gguf;
    struct qy_model *model;
};

static enum qy_status open_all(const struct qy_runtime *rt, const uint8_t *bytes, size_t n_bytes,
                               struct opened *o, struct qy_error *err)
{
    const struct qy_device_params dev = {.spec = "host", .max_m = 300};
    memset(o, 0, sizeof *o);
    enum qy_status st = qy_device_open(rt, &dev, &o->dev, err);
    if (st == QY_OK) {
        st = qy_gguf_open_memory(&rt->mem, bytes, n_bytes, "tiny", &o->gguf, err);
    }
    if (st == QY_OK) {
        const struct qy_model_params model = {
            .rt = rt, .dev = o->dev, .max_step_tokens = 300, .max_logits = 2};
        st = qy_model_open(&model, o->gguf, &o->model, err);
    }
    return st;
}

static void close_all(struct opened *o)
{
    qy_model_close(o->model);
    qy_gguf_close(o->gguf);
    qy_device_close(o->dev);
}

static void fail_each_allocation(const char *name)
{
    size_t n_bytes = 0;
    uint8_t *bytes = tiny_build(tiny_spec_find(name), &n_bytes);
    assert_non_null(bytes);
    long n = 0;
    for (; n < MOST; n++) {
        struct fail_alloc fail = {.fail_at = n};
        struct qy_runtime rt = {.mem = fail_alloc_make(&fail)};
        struct qy_error err = {0};
        struct opened o;
        qy_cpu_detect(&rt.cpu);
        const enum qy_status st = open_all(&rt, bytes, n_bytes, &o, &err);
        close_all(&o);
        assert_int_equal(fail.live, 0);
        if (st == QY_OK) {
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
        assert_true(err.text[0] != '\0');
    }
    assert_true(n > 10 && n < MOST);
    free(bytes);
}

static void model_without_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    fail_each_allocation("llama_f32");
    fail_each_allocation("qwen2_q5_0");
    fail_each_allocation("qwen3_q8_0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_without_memory_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
