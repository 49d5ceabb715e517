/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz harness without libFuzzer, so that it is built and run by every `ctest`.
 *
 *   replay_x             the seeds, and changed copies of them, the same ones each time
 *   replay_x FILE...     these inputs (what libFuzzer found)
 *   replay_x --seeds DIR writes the seeds for libFuzzer to start from
 */
#include "tests/fuzz/fuzz.h"
#include "tests/support/make_gguf_random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The input in memory of exactly its size: ASan sees a read beyond. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n + (n == 0));

    if (!copy) {
        abort();
    }
    memcpy(copy, data, n);
    (void)LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

/* One to four changes: a byte, eight bytes, or the end cut off. */
static size_t change(uint8_t *data, size_t n, uint64_t seed)
{
    static const uint64_t words[] = {0, 1, 0xff, 0x7fffffff, INT64_MAX, UINT64_MAX};
    const uint64_t changes = 1 + random_bits(seed, 0) % 4;

    for (uint64_t i = 0; i < changes && n > 8; i++) {
        const uint64_t what = random_bits(seed, 3 * i + 1);
        const size_t at = (size_t)(random_bits(seed, 3 * i + 2) % (n - 8));
        if (what % 16 == 0) {
            n = at;
        } else if (what % 4 == 1) {
            memcpy(data + at, &words[(what >> 8) % (sizeof(words) / sizeof(words[0]))], 8);
        } else {
            data[at] = (uint8_t)random_bits(seed, 3 * i + 3);
        }
    }
    return n;
}

static void replay_seeds(void)
{
    size_t n;
    uint8_t *seed;

    for (size_t i = 0; (seed = fuzz_seed(i, &n)) != NULL; i++) {
        uint8_t *copy = malloc(n + 1);
        if (!copy) {
            abort();
        }
        run(seed, n);
        for (unsigned r = 0; r < fuzz_replays; r++) {
            memcpy(copy, seed, n);
            run(copy, change(copy, n, (uint64_t)i << 32 | r));
        }
        free(copy);
        free(seed);
    }
}

static int write_seeds(const char *folder)
{
    size_t n;
    uint8_t *seed;
    int failed = 0;

    for (size_t i = 0; !failed && (seed = fuzz_seed(i, &n)) != NULL; i++) {
        char path[1024];
        (void)snprintf(path, sizeof(path), "%s/seed%zu", folder, i);
        FILE *file = fopen(path, "wb");
        failed = !file || fwrite(seed, 1, n, file) != n;
        failed |= file && fclose(file) != 0;
        if (failed) {
            perror(path);
        }
        free(seed);
    }
    return failed;
}

static int run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");

    if (!file) {
        perror(path);
        return 1;
    }
    const size_t n = fread(data, 1, sizeof(data), file);
    (void)fclose(file);
    run(data, n);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        return write_seeds(argv[2]);
    }
    if (argc == 1) {
        replay_seeds();
    }
    for (int i = 1; i < argc && !failed; i++) {
        failed = run_file(argv[i]);
    }
    return failed;
}
