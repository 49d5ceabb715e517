/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting text into words: as llama.cpp cuts it (tests/data/tokenizer/splits.txt, written by
 * tests/support/make_tokenizer_data.py), and in linear time whatever the text. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pretokenize.h"
#include "tests/support/fail_alloc.h"

static struct qyi_pretokenizer *open_pre(const struct qy_allocator *mem, const char *name)
{
    struct qyi_pretokenizer *pre;
    struct qy_error err;
    struct qy_text text = {name, strlen(name)};
    assert_int_equal(qyi_pretokenizer_open(mem, text, &pre, &err), QY_OK);
    return pre;
}

static size_t split(const struct qyi_pretokenizer *pre, const char *text, size_t bytes,
                    uint32_t *ends, size_t max_ends)
{
    struct qyi_splitter splitter;
    assert_int_equal(qyi_splitter_init(&splitter, pre, NULL), QY_OK);
    assert_int_equal(qyi_split(&splitter, (const uint8_t *)text, bytes, NULL), QY_OK);
    size_t n = splitter.ends.n;
    for (size_t i = 0; i < n && i < max_ends; i++) {
        ends[i] = ((const uint32_t *)splitter.ends.data)[i];
    }
    qyi_splitter_fini(&splitter);
    return n;
}

/* Reads "word|word|..." with \xNN escapes: the joined bytes and where each word ends. */
static size_t read_words(const char *line, char *text, size_t *bytes, uint32_t *ends)
{
    size_t n = 0;
    *bytes = 0;
    for (const char *p = line; *p != '\0' && *p != '\n'; p++) {
        if (*p == '|') {
            ends[n++] = (uint32_t)*bytes;
        } else if (*p == '\\') {
            const char hex[3] = {p[2], p[3], '\0'};
            text[(*bytes)++] = (char)strtoul(hex, NULL, 16);
            p += 3;
        } else {
            text[(*bytes)++] = *p;
        }
    }
    ends[n++] = (uint32_t)*bytes;
    return n;
}

static void split_of_tricky_texts_equals_llama_cpp(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    FILE *file = fopen("tests/data/tokenizer/splits.txt", "r");
    char line[4096];
    int n_lines = 0;
    (void)state;
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        char *words = strchr(line, ' ');
        char text[1024];
        size_t bytes;
        uint32_t want[512], got[512];
        assert_non_null(words);
        *words++ = '\0';
        size_t n = read_words(words, text, &bytes, want);
        struct qyi_pretokenizer *pre = open_pre(&mem, line);
        size_t n_got = split(pre, text, bytes, got, 512);
        if (n_got != n || memcmp(want, got, n * sizeof(*want)) != 0) {
            fail_msg("%s cuts '%s' differently: %zu words, not %zu", line, words, n_got, n);
        }
        qyi_pretokenizer_close(pre);
        n_lines++;
    }
    (void)fclose(file);
    assert_true(n_lines > 200);
}

static void split_of_invalid_bytes_takes_them_as_symbols(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct qyi_pretokenizer *pre = open_pre(&mem, "gpt-2");
    static const char text[] = "ab\xff\xfe cd\xe4\xb8 \xc3\xa9\xc3";
    static const uint32_t want[] = {2, 4, 7, 9, 12, 13};
    uint32_t got[16];
    (void)state;
    assert_int_equal(split(pre, text, sizeof(text) - 1, got, 16), 6);
    assert_memory_equal(got, want, sizeof(want));
    assert_int_equal(split(pre, "", 0, got, 16), 0);
    qyi_pretokenizer_close(pre);
}

static void open_by_alias_cuts_as_the_first_name(void **state)
{
    static const char *const pairs[][2] = {{"smollm", "starcoder"},
                                           {"gpt-2", "gpt2"},
                                           {"llama-bpe", "llama3"},
                                           {"llama3", "llama-v3"},
                                           {"qwen2", "deepseek-r1-qwen"}};
    const struct qy_allocator mem = qy_allocator_system();
    static const char text[] = "It'S 1234 a\n \nb  c";
    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        uint32_t ends[2][32];
        size_t n[2];
        for (int k = 0; k < 2; k++) {
            struct qyi_pretokenizer *pre = open_pre(&mem, pairs[i][k]);
            n[k] = split(pre, text, sizeof(text) - 1, ends[k], 32);
            qyi_pretokenizer_close(pre);
        }
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(ends[0], ends[1], n[0] * sizeof(uint32_t));
    }
}

static void open_of_an_unknown_name_lists_what_is_supported(void **state)
{
    static const char *const names[] = {"viking", "", " ", "gpt-2 gpt2", "smoll", "smollm2"};
    const struct qy_allocator mem = qy_allocator_system();
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct qyi_pretokenizer *pre;
        struct qy_error err;
        struct qy_text name = {names[i], strlen(names[i])};
        assert_int_equal(qyi_pretokenizer_open(&mem, name, &pre, &err), QY_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, "smollm"));
        assert_non_null(strstr(err.text, "qwen2"));
    }
}

static void split_of_a_million_hostile_bytes_is_linear(void **state)
{
    static const char *const units[] = {" ",   "\n",       " \n",      "a",    "1",
                                        "'",   "!\n",      "\xc2\xa0", "\xff", "' ",
                                        "\t ", "\xcc\x81", " \r\n",    "'l"};
    static const char *const names[] = {"smollm", "gpt-2", "llama-bpe", "qwen2", "default"};
    const struct qy_allocator mem = qy_allocator_system();
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES);
    uint64_t slowest = 0;
    (void)state;
    assert_non_null(text);
    for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        struct qyi_pretokenizer *pre = open_pre(&mem, names[k]);
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            size_t n = strlen(units[u]);
            for (size_t i = 0; i < BYTES; i++) {
                text[i] = units[u][i % n];
            }
            text[BYTES - 1] = 'x'; /* so that a run of spaces is not the end */
            uint64_t start = qy_clock_ns();
            assert_true(split(pre, text, BYTES, NULL, 0) > 0);
            uint64_t took = qy_clock_ns() - start;
            slowest = took > slowest ? took : slowest;
        }
        qyi_pretokenizer_close(pre);
    }
    free(text);
    /* Quadratic time would be hours; this leaves room for sanitizers and busy machines. */
    assert_true(slowest < UINT64_C(5000000000));
}

static void open_and_split_without_memory_leak_nothing(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        struct fail_alloc f = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&f);
        struct qyi_pretokenizer *pre;
        struct qyi_splitter splitter;
        struct qy_text name = {"smollm", 6};
        enum qy_status st = qyi_pretokenizer_open(&mem, name, &pre, NULL);
        if (st == QY_OK) {
            st = qyi_splitter_init(&splitter, pre, NULL);
            if (st == QY_OK) {
                st = qyi_split(&splitter, (const uint8_t *)"a 12\xff b", 7, NULL);
                qyi_splitter_fini(&splitter);
            }
            qyi_pretokenizer_close(pre);
        }
        assert_int_equal(f.live, 0);
        if (f.calls <= n) {
            assert_int_equal(st, QY_OK);
            break;
        }
        /* Without memory for machine code the interpreter does the work: that is no failure. */
        assert_true(st == QY_ERR_NOMEM || st == QY_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_of_tricky_texts_equals_llama_cpp),
        cmocka_unit_test(split_of_invalid_bytes_takes_them_as_symbols),
        cmocka_unit_test(open_by_alias_cuts_as_the_first_name),
        cmocka_unit_test(open_of_an_unknown_name_lists_what_is_supported),
        cmocka_unit_test(split_of_a_million_hostile_bytes_is_linear),
        cmocka_unit_test(open_and_split_without_memory_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
