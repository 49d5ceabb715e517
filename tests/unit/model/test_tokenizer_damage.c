/* SPDX-License-Identifier: Apache-2.0 */
/* Vocabularies that are wrong: each is refused with its reason, or works without the wrong part. */
#include "tests/unit/model/vocab_file.h"

#include <string.h>

/* A BPE file: tokens and merges as NULL-terminated lists; types may be NULL. */
static void put_bpe(struct gguf_writer *w, const char *const *tokens, const int32_t *types,
                    const char *const *merges)
{
    struct qy_text texts[64];
    size_t n = 0, n_merges = 0;
    gguf_writer_init(w, 3, 32);
    gguf_put_text(w, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(w, "tokenizer.ggml.pre", "gpt-2");
    for (; tokens[n] != NULL; n++) {
        texts[n].data = tokens[n];
        texts[n].bytes = strlen(tokens[n]);
    }
    gguf_put_texts(w, "tokenizer.ggml.tokens", texts, n);
    if (types != NULL) {
        gguf_put_array(w, "tokenizer.ggml.token_type", QY_GGUF_I32, n, types, 4 * n);
    }
    for (; merges != NULL && merges[n_merges] != NULL; n_merges++) {
        texts[n_merges].data = merges[n_merges];
        texts[n_merges].bytes = strlen(merges[n_merges]);
    }
    gguf_put_texts(w, "tokenizer.ggml.merges", texts, n_merges);
}

static void assert_refused(struct gguf_writer *w, enum qy_status status, const char *word)
{
    struct vocab_file f;
    struct qy_error err;
    assert_int_equal(vocab_file_open(&f, w, &err), status);
    if (strstr(err.text, word) == NULL) {
        fail_msg("'%s' does not say '%s'", err.text, word);
    }
    vocab_file_close(&f);
}

static void assert_ids(const struct vocab_file *f, const char *text, const int32_t *want,
                       size_t n_want)
{
    int32_t *ids;
    size_t n = vocab_file_encode(f, text, strlen(text), 0, &ids);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof(*ids));
    qy_free(&f->mem, ids);
}

static const char *const abc[] = {"a", "b", "c", "ab", "abc", "bc", NULL};

static void merge_without_two_parts_is_refused(void **state)
{
    static const char *const bad[][2] = {{"ab", NULL}, {"a ", NULL}, {" b", NULL},
                                         {"", NULL},   {" ", NULL},  {"  ", NULL}};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct gguf_writer w;
        put_bpe(&w, abc, NULL, bad[i]);
        assert_refused(&w, QY_ERR_CORRUPT, "merge 0");
    }
}

static void merge_of_missing_tokens_is_left_out(void **state)
{
    static const char *const merges[] = {"a z", "z a", "c a", "b c", "a b", NULL};
    static const int32_t want[] = {0, 5, 2, 0};
    struct gguf_writer w;
    struct vocab_file f;
    (void)state;
    put_bpe(&w, abc, NULL, merges); /* "ca" is no token */
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f, "abcca", want, 4);
    vocab_file_close(&f);
}

static void merge_given_twice_keeps_its_first_rank(void **state)
{
    static const char *const merges[] = {"a b", "b c", "a b", "ab c", "a bc", NULL};
    static const char *const other[] = {"b c", "a b", "b c", NULL};
    static const int32_t whole[] = {4};
    static const int32_t parts[] = {0, 5};
    struct gguf_writer w;
    struct vocab_file f;
    (void)state;
    put_bpe(&w, abc, NULL, merges);
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f, "abc", whole, 1);
    vocab_file_close(&f);
    put_bpe(&w, abc, NULL, other);
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f, "abc", parts, 2);
    vocab_file_close(&f);
}

/* Each merge makes what another one takes; texts only grow, so it ends. */
static void merges_in_a_circle_end(void **state)
{
    static const char *const tokens[] = {"a", "b", "ab", "ba", "aba", "bab", "abab", NULL};
    static const char *const merges[] = {"ab a", "b ab", "ab ab", "a ba",
                                         "ba b", "a b",  "b a",   NULL};
    struct gguf_writer w;
    struct vocab_file f;
    char text[4001];
    int32_t *ids;
    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = "ab"[i % 2];
    }
    put_bpe(&w, tokens, NULL, merges);
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    size_t n = vocab_file_encode(&f, text, sizeof(text), 0, &ids);
    assert_in_range(n, 1000, 2000);
    qy_free(&f.mem, ids);
    vocab_file_close(&f);
}

static void text_never_merges_into_a_control_token(void **state)
{
    static const char *const tokens[] = {"a", "b", "ab", NULL};
    static const char *const merges[] = {"a b", NULL};
    static const int32_t types[] = {1, 1, 3};
    static const int32_t want[] = {0, 1};
    struct gguf_writer w;
    struct vocab_file f;
    (void)state;
    put_bpe(&w, tokens, types, merges);
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f, "ab", want, 2);
    vocab_file_close(&f);
}

static void byte_without_a_token_becomes_the_replacement(void **state)
{
    static const char *const no_bytes[] = {"a", "\xc3\xaf\xc2\xbf\xc2\xbd", NULL};
    static const char *const nothing[] = {"a", NULL};
    static const int32_t want[] = {0, 1, 0};
    static const int32_t lost[] = {0, 0};
    struct gguf_writer w;
    struct vocab_file f;
    (void)state;
    put_bpe(&w, no_bytes, NULL, NULL); /* the second is U+FFFD as bytes are written */
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f,
               "a\x04"
               "a",
               want, 3);
    vocab_file_close(&f);
    put_bpe(&w, nothing, NULL, NULL);
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f,
               "a\x04"
               "a",
               lost, 2);
    vocab_file_close(&f);
}

static void arrays_of_another_length_or_type_are_refused(void **state)
{
    static const int32_t types[] = {1, 1, 1, 1, 1, 1, 1};
    static const int32_t wrong[] = {1, 1, 1, 7, 1, 1};
    static const float scores[] = {0, 0, 0};
    struct gguf_writer w;
    (void)state;
    put_bpe(&w, abc, NULL, NULL);
    gguf_put_array(&w, "tokenizer.ggml.token_type", QY_GGUF_I32, 7, types, sizeof(types));
    assert_refused(&w, QY_ERR_CORRUPT, "token_type");
    put_bpe(&w, abc, wrong, NULL);
    assert_refused(&w, QY_ERR_CORRUPT, "token 3");
    put_bpe(&w, abc, NULL, NULL);
    gguf_put_text(&w, "tokenizer.ggml.token_type", "normal");
    assert_refused(&w, QY_ERR_CORRUPT, "token_type");
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "tokenizer.ggml.model", "llama");
    struct qy_text one = {"a", 1};
    gguf_put_texts(&w, "tokenizer.ggml.tokens", &one, 1);
    gguf_put_array(&w, "tokenizer.ggml.scores", QY_GGUF_F32, 3, scores, sizeof(scores));
    assert_refused(&w, QY_ERR_CORRUPT, "scores");
}

static void special_ids_outside_the_vocabulary_are_refused(void **state)
{
    struct gguf_writer w;
    struct vocab_file f;
    (void)state;
    put_bpe(&w, abc, NULL, NULL);
    gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 6);
    assert_refused(&w, QY_ERR_CORRUPT, "eos_token_id");
    put_bpe(&w, abc, NULL, NULL);
    gguf_put_text(&w, "tokenizer.ggml.bos_token_id", "1");
    assert_refused(&w, QY_ERR_CORRUPT, "bos_token_id");
    put_bpe(&w, abc, NULL, NULL);
    gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", UINT32_MAX); /* how some files say none */
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_int_equal(qy_tokenizer_bos(f.tokenizer), -1);
    vocab_file_close(&f);
}

static void other_tokenizers_are_refused_with_the_list(void **state)
{
    struct gguf_writer w;
    struct qy_text one = {"a", 1};
    (void)state;
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "tokenizer.ggml.model", "bert");
    assert_refused(&w, QY_ERR_UNSUPPORTED, "gpt2");
    gguf_writer_init(&w, 3, 32);
    assert_refused(&w, QY_ERR_UNSUPPORTED, "tokenizer.ggml.model");
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "tokenizer.ggml.model", "gpt2");
    assert_refused(&w, QY_ERR_CORRUPT, "tokens");
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "tokenizer.ggml.model", "gpt2");
    gguf_put_texts(&w, "tokenizer.ggml.tokens", &one, 1);
    assert_refused(&w, QY_ERR_CORRUPT, "merges");
    gguf_writer_init(&w, 3, 32);
    gguf_put_text(&w, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(&w, "tokenizer.ggml.pre", "viking");
    gguf_put_texts(&w, "tokenizer.ggml.tokens", &one, 1);
    gguf_put_texts(&w, "tokenizer.ggml.merges", &one, 0);
    assert_refused(&w, QY_ERR_UNSUPPORTED, "llama-bpe");
}

static void odd_token_texts_are_harmless(void **state)
{
    static const char *const tokens[] = {"",  "\xff", "",     "\xc4\xa0", "\xe2\x96",
                                         "a", "a",    "<0x4", NULL};
    static const int32_t types[] = {3, 1, 4, 1, 1, 1, 1, 6};
    static const int32_t want[] = {6}; /* of equal texts the last one */
    struct gguf_writer w;
    struct vocab_file f;
    (void)state;
    put_bpe(&w, tokens, types, NULL);
    assert_int_equal(vocab_file_open(&f, &w, NULL), QY_OK);
    assert_ids(&f, "a", want, 1);
    for (int32_t id = 0; id < 8; id++) {
        char out[16];
        int n = qy_tokenizer_piece(f.tokenizer, id, 1, out, sizeof(out));
        assert_in_range(n, 0, 4);
    }
    vocab_file_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_without_two_parts_is_refused),
        cmocka_unit_test(merge_of_missing_tokens_is_left_out),
        cmocka_unit_test(merge_given_twice_keeps_its_first_rank),
        cmocka_unit_test(merges_in_a_circle_end),
        cmocka_unit_test(text_never_merges_into_a_control_token),
        cmocka_unit_test(byte_without_a_token_becomes_the_replacement),
        cmocka_unit_test(arrays_of_another_length_or_type_are_refused),
        cmocka_unit_test(special_ids_outside_the_vocabulary_are_refused),
        cmocka_unit_test(other_tokenizers_are_refused_with_the_list),
        cmocka_unit_test(odd_token_texts_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
