/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the processor and the operating system let kernels use, and the choice among kernel sets.
 * A feature counts only when the OS saves its registers (XCR0), since a hypervisor may hide that.
 * Source: Intel SDM vol. 2A, CPUID leaves 1, 7 and 0x80000002..4; vol. 1, section 13.3 (XCR0).
 */
#include "runtime/runtime.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* State components of XCR0. */
enum {
    XCR0_AVX = 0x6,                  /* SSE and the upper halves of the ymm registers  */
    XCR0_AVX512 = 0xe0,              /* mask registers, upper zmm, zmm16..31           */
    XCR0_AMX = (1 << 17) | (1 << 18) /* tile configuration and tile data       */
};

struct leaf {
    uint32_t a, b, c, d;
};

static struct leaf read_leaf(uint32_t leaf, uint32_t subleaf)
{
    struct leaf r = {0, 0, 0, 0};

    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d); /* leaves zeros when not there */
    return r;
}

static uint64_t read_xcr0(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static int bit(uint32_t word, unsigned n)
{
    return (int)((word >> n) & 1);
}

/* The brand string, without the spaces that some processors pad it with. */
static void read_model(char *out, size_t bytes)
{
    char text[49] = {0};
    const char *p = text;
    size_t n;

    for (uint32_t i = 0; i < 3; i++) {
        struct leaf r = read_leaf(0x80000002u + i, 0);
        uint32_t words[4] = {r.a, r.b, r.c, r.d};

        memcpy(text + sizeof(words) * i, words, sizeof(words));
    }
    while (*p == ' ') {
        p++;
    }
    n = strlen(p);
    while (n > 0 && p[n - 1] == ' ') {
        n--;
    }
    snprintf(out, bytes, "%.*s", (int)n, p);
}

static void detect_features(struct qy_cpu *cpu)
{
    struct leaf one = read_leaf(1, 0);
    struct leaf seven = read_leaf(7, 0);
    struct leaf seven_1 = seven.a >= 1 ? read_leaf(7, 1) : (struct leaf){0, 0, 0, 0};
    uint64_t xcr0 = bit(one.c, 27) ? read_xcr0() : 0; /* bit 27: xgetbv may be used */

    if ((xcr0 & XCR0_AVX) == XCR0_AVX) {
        cpu->fma = bit(one.c, 12);
        cpu->f16c = bit(one.c, 29);
        cpu->avx2 = bit(seven.b, 5);
    }
    if ((xcr0 & (XCR0_AVX | XCR0_AVX512)) == (XCR0_AVX | XCR0_AVX512)) {
        cpu->avx512f = bit(seven.b, 16);
        cpu->avx512dq = bit(seven.b, 17);
        cpu->avx512bw = bit(seven.b, 30);
        cpu->avx512vl = bit(seven.b, 31);
        cpu->avx512_vnni = bit(seven.c, 11);
        cpu->avx512_bf16 = bit(seven_1.a, 5);
    }
    if ((xcr0 & XCR0_AMX) == XCR0_AMX) {
        cpu->amx_bf16 = bit(seven.d, 22) && bit(seven.d, 24);
    }
    read_model(cpu->model, sizeof(cpu->model));
}
#else
/* Other processors have the plain set only, so there is nothing to find out. */
static void detect_features(struct qy_cpu *cpu)
{
    (void)cpu;
}
#endif

void qy_cpu_detect(struct qy_cpu *cpu)
{
    memset(cpu, 0, sizeof(*cpu));
    detect_features(cpu);
    if (cpu->model[0] == '\0') {
        struct utsname name;

        snprintf(cpu->model, sizeof(cpu->model), "%.63s",
                 uname(&name) == 0 ? name.machine : "unknown");
    }
    cpu->best = QY_CPU_PLAIN;
    if (cpu->avx2 && cpu->fma && cpu->f16c) {
        cpu->best = QY_CPU_AVX2;
        if (cpu->avx512f && cpu->avx512bw && cpu->avx512vl && cpu->avx512dq) {
            cpu->best = QY_CPU_AVX512;
        }
    }
    cpu->use = cpu->best;
}

const char *qy_cpu_level_name(enum qy_cpu_level level)
{
    switch (level) {
    case QY_CPU_PLAIN:
        return "plain";
    case QY_CPU_AVX2:
        return "avx2";
    case QY_CPU_AVX512:
        return "avx512";
    }
    return "unknown";
}

enum qy_status qy_cpu_choose(struct qy_cpu *cpu, const char *name, struct qy_error *err)
{
    if (strcmp(name, "auto") == 0) {
        cpu->use = cpu->best;
        return QY_OK;
    }
    for (int level = QY_CPU_PLAIN; level <= QY_CPU_AVX512; level++) {
        if (strcmp(name, qy_cpu_level_name((enum qy_cpu_level)level)) != 0) {
            continue;
        }
        if (level > (int)cpu->best) {
            return qy_error_set(err, QY_ERR_UNSUPPORTED,
                                "kernel set '%s': this machine has at most '%s'; choose that, or "
                                "'auto'",
                                name, qy_cpu_level_name(cpu->best));
        }
        cpu->use = (enum qy_cpu_level)level;
        return QY_OK;
    }
    return qy_error_set(err, QY_ERR_CONFIG,
                        "kernel set '%s': no such set; auto, avx512, avx2 and plain are accepted",
                        name);
}
