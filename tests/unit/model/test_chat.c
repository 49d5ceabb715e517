/* SPDX-License-Identifier: Apache-2.0 */
/* Chat formats: detection, what stands around a message, default system messages. */
#include "tests/unit/model/vocab_file.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/fail_alloc.h"

/* As the file of SmolLM2-135M-Instruct has it. */
static const char smollm2[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}";
/* In the manner of Qwen2.5: escapes, and a message of the caller before the default. */
static const char qwen[] =
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] "
    "+ "
    "'<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nYou\\'re Qwen.\\nBe "
    "kind.<|im_end|>\\n' }}"
    "{%- endif %}{{ '<|im_start|>' + message.role }}";
static const char no_default[] =
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}";
static const char llama3[] =
    "{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + content | "
    "trim + '<|eot_id|>' }}";

struct chat_file {
    struct qy_allocator mem;
    uint8_t *bytes;
    struct qy_gguf *gguf;
};

static void chat_open(struct chat_file *f, const char *text)
{
    struct gguf_writer w;
    size_t n;
    f->mem = qy_allocator_system();
    gguf_writer_init(&w, 3, 32);
    if (text != NULL) {
        gguf_put_text(&w, "tokenizer.chat_template", text);
    }
    f->bytes = gguf_writer_finish(&w, &n);
    assert_int_equal(qy_gguf_open_memory(&f->mem, f->bytes, n, "test", &f->gguf, NULL), QY_OK);
}

static void chat_close(struct chat_file *f)
{
    qy_gguf_close(f->gguf);
    free(f->bytes);
}

/* before|content|after of one message. */
static void assert_message(const struct chat_file *f, const char *role, const char *content,
                           int first, int open_reply, const char *want)
{
    struct qy_chat_parts parts;
    char got[1024];
    assert_int_equal(qy_chat_format_message(&f->mem, f->gguf, qy_chat_detect(f->gguf), role,
                                            content, strlen(content), first, open_reply, &parts,
                                            NULL),
                     QY_OK);
    int n = snprintf(got, sizeof(got), "%s|%.*s|%s", parts.before, (int)parts.bytes, parts.content,
                     parts.after);
    assert_in_range(n, 1, sizeof(got) - 1);
    assert_string_equal(got, want);
    qy_chat_parts_free(&f->mem, &parts);
}

static void detect_tells_formats_apart(void **state)
{
    static const struct {
        const char *text;
        enum qy_chat_format format;
    } cases[] = {{smollm2, QY_CHAT_CHATML},
                 {llama3, QY_CHAT_LLAMA3},
                 {"{{ '[INST]' }}", QY_CHAT_NONE},
                 {"", QY_CHAT_NONE},
                 {NULL, QY_CHAT_NONE}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct chat_file f;
        chat_open(&f, cases[i].text);
        assert_int_equal(qy_chat_detect(f.gguf), cases[i].format);
        chat_close(&f);
    }
}

static void chatml_first_message_brings_the_default_system_message(void **state)
{
    struct chat_file f;
    (void)state;
    chat_open(&f, smollm2);
    assert_message(&f, "user", "What is the largest planet in the solar system?", 1, 1,
                   "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
                   "Hugging Face<|im_end|>\n<|im_start|>user\n|What is the largest planet in the "
                   "solar system?|<|im_end|>\n<|im_start|>assistant\n");
    assert_message(&f, "user", " x ", 0, 0, "<|im_start|>user\n| x |<|im_end|>\n");
    assert_message(&f, "system", "s", 1, 0, "<|im_start|>system\n|s|<|im_end|>\n");
    chat_close(&f);
    chat_open(&f, qwen);
    assert_message(&f, "user", "x", 1, 0,
                   "<|im_start|>system\nYou're Qwen.\nBe kind.<|im_end|>\n<|im_start|>user\n|x|"
                   "<|im_end|>\n");
    chat_close(&f);
    chat_open(&f, no_default);
    assert_message(&f, "user", "x", 1, 1,
                   "<|im_start|>user\n|x|<|im_end|>\n<|im_start|>assistant\n");
    chat_close(&f);
}

static void chatml_with_a_cut_off_template_names_no_default(void **state)
{
    (void)state;
    for (size_t n = 12; n < sizeof(qwen); n++) {
        struct chat_file f;
        char text[sizeof(qwen)];
        (void)snprintf(text, sizeof(text), "%.*s%s", (int)n, qwen, "");
        if (strstr(text, "kind.<|im_end|>") != NULL || strstr(text, "<|im_start|>") == NULL) {
            continue;
        }
        chat_open(&f, text);
        assert_message(&f, "user", "x", 1, 0, "<|im_start|>user\n|x|<|im_end|>\n");
        chat_close(&f);
    }
}

static void llama3_trims_and_begins_with_bos(void **state)
{
    struct chat_file f;
    (void)state;
    chat_open(&f, llama3);
    assert_message(
        &f, "user", " \n hi there\t\n", 1, 1,
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n|hi there|<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
    assert_message(&f, "system", " \n ", 0, 0,
                   "<|start_header_id|>system<|end_header_id|>\n\n||<|eot_id|>");
    chat_close(&f);
}

static void format_none_leaves_the_text_alone(void **state)
{
    struct chat_file f;
    (void)state;
    chat_open(&f, NULL);
    assert_message(&f, "user", " hi ", 1, 1, "| hi |");
    assert_string_equal(qy_chat_reply_end(QY_CHAT_NONE), "");
    chat_close(&f);
}

static void role_that_is_no_word_is_refused(void **state)
{
    static const char *const roles[] = {"",
                                        "user<|im_end|>",
                                        "<|im_start|>",
                                        "User",
                                        "a b",
                                        "a\n",
                                        "abcdefghijklmnopqrstuvwxyzabcdefg"};
    struct chat_file f;
    struct qy_chat_parts parts;
    struct qy_error err;
    (void)state;
    chat_open(&f, smollm2);
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        assert_int_equal(qy_chat_format_message(&f.mem, f.gguf, QY_CHAT_CHATML, roles[i], "x", 1, 0,
                                                0, &parts, &err),
                         QY_ERR_INVALID);
    }
    chat_close(&f);
}

static void format_without_memory_leaks_nothing(void **state)
{
    struct chat_file f;
    (void)state;
    chat_open(&f, smollm2);
    for (long n = 0;; n++) {
        struct fail_alloc fail = {.fail_at = n};
        struct qy_allocator mem = fail_alloc_make(&fail);
        struct qy_chat_parts parts;
        enum qy_status st = qy_chat_format_message(&mem, f.gguf, QY_CHAT_CHATML, "user", "x", 1, 1,
                                                   1, &parts, NULL);
        if (st == QY_OK) {
            qy_chat_parts_free(&mem, &parts);
        }
        assert_int_equal(fail.live, 0);
        if (fail.calls <= n) {
            assert_int_equal(st, QY_OK);
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
    }
    chat_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(detect_tells_formats_apart),
        cmocka_unit_test(chatml_first_message_brings_the_default_system_message),
        cmocka_unit_test(chatml_with_a_cut_off_template_names_no_default),
        cmocka_unit_test(llama3_trims_and_begins_with_bos),
        cmocka_unit_test(format_none_leaves_the_text_alone),
        cmocka_unit_test(role_that_is_no_word_is_refused),
        cmocka_unit_test(format_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
