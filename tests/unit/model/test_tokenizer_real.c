/* SPDX-License-Identifier: Apache-2.0 */
/* The real model's tokenizer: ids of two texts and of a chat prompt equal llama.cpp's. The texts in
 * tests/data/reference begin the King James Bible and GPL-3. text1.bin and text2.bin begin with the
 * number of ids, two more numbers (u32) and the ids (u16); tests/support/make_real_reference.py. */
#include "tests/unit/model/vocab_file.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/real_model.h"

static void real_open(struct vocab_file *f)
{
    memset(f, 0, sizeof(*f));
    f->mem = qy_allocator_system();
    assert_int_equal(qy_gguf_open(&f->mem, real_model_path(), &f->gguf, NULL), QY_OK);
    assert_int_equal(qy_tokenizer_open(&f->mem, f->gguf, &f->tokenizer, NULL), QY_OK);
}

/* A whole file, freed with free(). */
static char *read_file(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *data = malloc(1 << 20);
    assert_non_null(data);
    *bytes = fread(data, 1, 1 << 20, file);
    assert_in_range(*bytes, 1, (1 << 20) - 1);
    (void)fclose(file);
    return data;
}

static void assert_text(const struct vocab_file *f, const char *text_path, const char *ids_path)
{
    enum { HEADER_BYTES = 12 };
    size_t bytes, ids_bytes, n_back;
    char *text = read_file(text_path, &bytes);
    char *reference = read_file(ids_path, &ids_bytes);
    uint32_t n_want;
    int32_t *ids;
    char *back;
    memcpy(&n_want, reference, sizeof(n_want));
    assert_int_equal(n_want, 8192);
    size_t n = vocab_file_encode(f, text, bytes, 0, &ids);
    assert_true(n >= n_want);
    for (uint32_t i = 0; i < n_want; i++) {
        uint16_t want;
        memcpy(&want, reference + HEADER_BYTES + 2 * (size_t)i, sizeof(want));
        if (ids[i] != want) {
            fail_msg("%s: token %u is %d, not %u", text_path, i, (int)ids[i], want);
        }
    }
    assert_int_equal(qy_tokenizer_decode(f->tokenizer, ids, n, 0, &back, &n_back, NULL), QY_OK);
    assert_int_equal(n_back, bytes);
    assert_memory_equal(back, text, bytes);
    qy_free(&f->mem, back);
    qy_free(&f->mem, ids);
    free(reference);
    free(text);
}

static void encode_of_both_texts_equals_llama_cpp(void **state)
{
    struct vocab_file f;
    (void)state;
    real_open(&f);
    assert_text(&f, "tests/data/reference/text1.txt", "tests/data/reference/text1.bin");
    assert_text(&f, "tests/data/reference/text2.txt", "tests/data/reference/text2.bin");
    vocab_file_close(&f);
}

static void chat_prompt_equals_the_reference(void **state)
{
    static const int32_t want[] = {1,    9690, 198,   2683, 359,  253, 5356, 5646,  11173, 3365,
                                   3511, 308,  34519, 28,   7018, 411, 407,  19712, 8182,  2,
                                   198,  1,    4093,  198,  1780, 314, 260,  3995,  3925,  281,
                                   260,  3693, 817,   47,   2,    198, 1,    520,   9531,  198};
    static const char question[] = "What is the largest planet in the solar system?";
    struct vocab_file f;
    struct qy_chat_parts parts;
    int32_t *ids;
    size_t n;
    (void)state;
    real_open(&f);
    assert_int_equal(qy_chat_format_message(&f.mem, f.gguf, qy_chat_detect(f.gguf), "user",
                                            question, sizeof(question) - 1, 1, 1, &parts, NULL),
                     QY_OK);
    const struct qy_span spans[] = {{parts.before, strlen(parts.before), 1},
                                    {parts.content, parts.bytes, 0},
                                    {parts.after, strlen(parts.after), 1}};
    assert_int_equal(
        qy_tokenizer_encode_spans(f.tokenizer, spans, 3, QY_ENCODE_BOS, &ids, &n, NULL), QY_OK);
    assert_int_equal(n, sizeof(want) / sizeof(want[0]));
    assert_memory_equal(ids, want, sizeof(want));
    qy_free(&f.mem, ids);
    qy_chat_parts_free(&f.mem, &parts);
    assert_true(qy_tokenizer_is_end(f.tokenizer, 2)); /* <|im_end|> */
    assert_true(qy_tokenizer_is_end(f.tokenizer, 0)); /* <|endoftext|> */
    assert_false(qy_tokenizer_is_end(f.tokenizer, 1));
    vocab_file_close(&f);
}

/* This vocabulary lacks tokens for 21 bytes; U+FFFD is token 24211. */
static void byte_that_the_vocabulary_lacks_becomes_the_replacement(void **state)
{
    static const uint8_t missing[] = {0x04, 0x06, 0x13, 0x14, 0x16, 0x1d, 0xc0,
                                      0xc1, 0xf1, 0xf2, 0xf5, 0xf6, 0xf7, 0xf8,
                                      0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
    struct vocab_file f;
    (void)state;
    real_open(&f);
    for (unsigned byte = 0; byte < 256; byte++) {
        const char text[1] = {(char)byte};
        int32_t *ids;
        char out[8];
        size_t n = vocab_file_encode(&f, text, 1, 0, &ids);
        assert_int_equal(n, 1);
        int bytes = qy_tokenizer_piece(f.tokenizer, ids[0], 0, out, sizeof(out));
        if (memchr(missing, (int)byte, sizeof(missing)) != NULL) {
            assert_int_equal(ids[0], 24211);
            assert_int_equal(bytes, 3);
            assert_memory_equal(out, "\xef\xbf\xbd", 3);
        } else {
            assert_int_equal(bytes, 1);
            assert_int_equal((uint8_t)out[0], byte);
        }
        qy_free(&f.mem, ids);
    }
    vocab_file_close(&f);
}

int main(void)
{
    if (real_model_path() == NULL) {
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_of_both_texts_equals_llama_cpp),
        cmocka_unit_test(chat_prompt_equals_the_reference),
        cmocka_unit_test(byte_that_the_vocabulary_lacks_becomes_the_replacement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
