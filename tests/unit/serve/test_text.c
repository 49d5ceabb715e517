/* SPDX-License-Identifier: Apache-2.0 */
/* Text that a person or a script sees: columns, JSON. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/serve.h"

/* What qyi_print_columns writes; freed with free. */
static char *columns(const char *left, const char *right)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    qyi_print_columns(out, "a", left, "b", right);
    fclose(out);
    return text;
}

/* Characters of a line, not bytes. */
static size_t width(const char *line, size_t bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        n += ((unsigned char)line[i] & 0xc0) != 0x80;
    }
    return n;
}

static void columns_of_unequal_texts_stay_aligned(void **state)
{
    (void)state;
    const char *left =
        "the quick brown fox jumps over the lazy dog and then it \xc3\xa9"
        "coute les "
        "autres b\xc3\xaates de la for\xc3\xaat\nsecond line";
    char *text = columns(left, "short");
    size_t bar = 0, lines = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        const char *at = strpbrk(line, "|+");
        assert_non_null(at);
        const size_t here = width(line, (size_t)(at - line));
        assert_true(lines == 0 || here == bar);
        bar = here;
        lines++;
    }
    assert_true(lines >= 5);
    free(text);
}

static void columns_keep_every_word(void **state)
{
    (void)state;
    char left[2000] = "";
    for (int i = 0; i < 60; i++) {
        char word[16];
        snprintf(word, sizeof word, "w%d ", i * 7919);
        strcat(left, word);
    }
    strcat(left,
           "anunbrokenwordthatislongerthananycolumncouldeverbesoitmustbecutsomewhere0123456789");
    char *text = columns(left, "");
    for (int i = 0; i < 60; i++) {
        char word[16];
        snprintf(word, sizeof word, "w%d ", i * 7919);
        assert_non_null(strstr(text, word));
    }
    free(text);
}

static void columns_of_broken_utf8_and_controls_do_not_break(void **state)
{
    (void)state;
    char *text = columns("a\x1b[31mred\x07 \xff\xfe\xc3", "\xe2\x82");
    assert_null(strchr(text, '\x1b'));
    assert_null(strchr(text, '\x07'));
    free(text);
}

static void json_text_of_any_bytes_is_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xff", "\xef\xbf\xbd"},
        {"\xc3", "\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"a\xe2\x82z", "a\xef\xbf\xbd\xef\xbf\xbdz"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *object = cJSON_CreateObject();
        qyi_json_add_text(object, "t", cases[i].in);
        assert_string_equal(cJSON_GetObjectItem(object, "t")->valuestring, cases[i].out);
        cJSON_Delete(object);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_of_unequal_texts_stay_aligned),
        cmocka_unit_test(columns_keep_every_word),
        cmocka_unit_test(columns_of_broken_utf8_and_controls_do_not_break),
        cmocka_unit_test(json_text_of_any_bytes_is_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
