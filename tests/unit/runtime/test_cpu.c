/* SPDX-License-Identifier: Apache-2.0 */
/* Detection against the kernel's own view, and the choice of a kernel set. */
#include "runtime/runtime.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void cpu_detect_agrees_with_the_kernel(void **state)
{
    struct qy_cpu cpu;
    const struct {
        const char *flag;
        size_t offset;
    } flags[] = {
        {" avx2 ", offsetof(struct qy_cpu, avx2)},
        {" fma ", offsetof(struct qy_cpu, fma)},
        {" f16c ", offsetof(struct qy_cpu, f16c)},
        {" avx512f ", offsetof(struct qy_cpu, avx512f)},
        {" avx512bw ", offsetof(struct qy_cpu, avx512bw)},
        {" avx512vl ", offsetof(struct qy_cpu, avx512vl)},
        {" avx512dq ", offsetof(struct qy_cpu, avx512dq)},
        {" avx512_bf16 ", offsetof(struct qy_cpu, avx512_bf16)},
        {" avx512_vnni ", offsetof(struct qy_cpu, avx512_vnni)},
        {" amx_bf16 ", offsetof(struct qy_cpu, amx_bf16)},
    };
    char *line = NULL;
    size_t bytes = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    int found = 0;

    (void)state;
    qy_cpu_detect(&cpu);
    assert_true(cpu.model[0] != '\0');
    if (file == NULL) {
        skip();
    }
    while (!found && getline(&line, &bytes, file) > 0) {
        found = strncmp(line, "flags", 5) == 0;
    }
    fclose(file);
    if (!found) { /* not an x86 processor: the plain set is all there is */
        free(line);
        assert_int_equal(cpu.best, QY_CPU_PLAIN);
        skip();
    }
    line[strcspn(line, "\n")] = ' ';
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int ours = *(const int *)(const void *)((const char *)&cpu + flags[i].offset);

        assert_int_equal(ours, strstr(line, flags[i].flag) != NULL);
    }
    free(line);
}

static void cpu_best_needs_every_feature_of_its_set(void **state)
{
    struct qy_cpu cpu;

    (void)state;
    qy_cpu_detect(&cpu);
    assert_int_equal(cpu.use, cpu.best);
    assert_int_equal(cpu.best >= QY_CPU_AVX2, cpu.avx2 && cpu.fma && cpu.f16c);
    assert_int_equal(cpu.best >= QY_CPU_AVX512, cpu.avx2 && cpu.fma && cpu.f16c && cpu.avx512f &&
                                                    cpu.avx512bw && cpu.avx512vl && cpu.avx512dq);
}

static void cpu_choose_lowers_and_restores(void **state)
{
    struct qy_cpu cpu = {.best = QY_CPU_AVX512, .use = QY_CPU_AVX512};

    (void)state;
    assert_int_equal(qy_cpu_choose(&cpu, "plain", NULL), QY_OK);
    assert_int_equal(cpu.use, QY_CPU_PLAIN);
    assert_int_equal(qy_cpu_choose(&cpu, "avx2", NULL), QY_OK);
    assert_int_equal(cpu.use, QY_CPU_AVX2);
    assert_int_equal(qy_cpu_choose(&cpu, "auto", NULL), QY_OK);
    assert_int_equal(cpu.use, QY_CPU_AVX512);
    assert_int_equal(cpu.best, QY_CPU_AVX512);
}

static void cpu_choose_refuses_what_is_not_there(void **state)
{
    struct qy_cpu cpu = {.best = QY_CPU_AVX2, .use = QY_CPU_PLAIN};
    struct qy_error err;

    (void)state;
    assert_int_equal(qy_cpu_choose(&cpu, "avx512", &err), QY_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'avx512'"));
    assert_non_null(strstr(err.text, "'avx2'"));
    assert_int_equal(qy_cpu_choose(&cpu, "sse9", &err), QY_ERR_CONFIG);
    assert_int_equal(cpu.use, QY_CPU_PLAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_detect_agrees_with_the_kernel),
        cmocka_unit_test(cpu_best_needs_every_feature_of_its_set),
        cmocka_unit_test(cpu_choose_lowers_and_restores),
        cmocka_unit_test(cpu_choose_refuses_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
