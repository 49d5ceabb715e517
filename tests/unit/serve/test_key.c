/* SPDX-License-Identifier: Apache-2.0 */
/* Key files: what is written can be read by its owner alone, and what is no key file is refused. */
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/memory/key.h"

static char folder[] = "/tmp/quarry-key-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (folder[sizeof folder - 2] == 'X' && mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/key", folder);
    unlink(path);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_file(const char *text, mode_t mode)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

/* Refused with a text that has both words; the key is left alone. */
static void refused(const char *one, const char *other)
{
    uint8_t key[QY_NET_KEY_BYTES], before[QY_NET_KEY_BYTES];
    struct qy_error err = {0};
    memset(key, 7, sizeof key);
    memset(before, 7, sizeof before);
    assert_int_equal(qyi_key_read(path, key, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, one));
    assert_non_null(strstr(err.text, other));
    assert_non_null(strstr(err.text, path));
    assert_memory_equal(key, before, sizeof key);
}

#define HALF "00112233445566778899aabbccddeeff"

static void key_that_was_written_is_read(void **state)
{
    (void)state;
    uint8_t one[QY_NET_KEY_BYTES] = {0}, other[QY_NET_KEY_BYTES] = {0};
    struct qy_error err = {0};
    struct stat info;
    umask(0);
    assert_int_equal(qyi_key_write_new(path, &err), QY_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(info.st_size, 2 * QY_NET_KEY_BYTES + 1);
    assert_int_equal(qyi_key_read(path, one, &err), QY_OK);
    unlink(path);
    assert_int_equal(qyi_key_write_new(path, &err), QY_OK);
    assert_int_equal(qyi_key_read(path, other, &err), QY_OK);
    assert_memory_not_equal(one, other, sizeof one);
}

static void key_digits_are_read_in_order(void **state)
{
    (void)state;
    static const char *const texts[] = {HALF HALF, HALF HALF "\n", HALF HALF "\r\n",
                                        HALF "00112233445566778899AABBCCDDEEFF\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint8_t key[QY_NET_KEY_BYTES] = {0};
        struct qy_error err = {0};
        write_file(texts[i], 0400);
        assert_int_equal(qyi_key_read(path, key, &err), QY_OK);
        for (size_t b = 0; b < sizeof key; b++) {
            assert_int_equal(key[b], b % 16 * 0x11);
        }
        unlink(path);
    }
}

static void key_file_that_is_there_is_not_overwritten(void **state)
{
    (void)state;
    struct qy_error err = {0};
    write_file("mine", 0600);
    assert_int_equal(qyi_key_write_new(path, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "File exists"));
    char text[8] = "";
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof text, file), 4);
    fclose(file);
    assert_string_equal(text, "mine");
}

static void key_file_that_others_may_use_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0601, 0777};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        write_file(HALF HALF "\n", modes[i]);
        refused("chmod 600", "mode is 0");
    }
}

static void key_file_that_holds_something_else_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "\n",
        HALF "\n",
        HALF HALF "0",
        HALF HALF "00\n",
        HALF HALF "\n" HALF HALF "\n",
        HALF HALF "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nx",
        HALF "0011223344556677889 aabbccddeeff",
        HALF "0x112233445566778899aabbccddeeff",
        HALF "g0112233445566778899aabbccddeeff",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        write_file(texts[i], 0600);
        refused("64 hex digits", "--new-key");
    }
}

static void key_file_that_is_none_is_refused(void **state)
{
    (void)state;
    refused("No such file", "--new-key");
    assert_int_equal(mkfifo(path, 0600), 0);
    refused("no regular file", "--new-key");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refused("no regular file", "--new-key");
    rmdir(path);
    if (geteuid() == 0) {
        write_file(HALF HALF, 0600);
        assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
        refused("another user (12345)", "mode 0600");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(key_that_was_written_is_read, make_folder),
        cmocka_unit_test_setup(key_digits_are_read_in_order, make_folder),
        cmocka_unit_test_setup(key_file_that_is_there_is_not_overwritten, make_folder),
        cmocka_unit_test_setup(key_file_that_others_may_use_is_refused, make_folder),
        cmocka_unit_test_setup(key_file_that_holds_something_else_is_refused, make_folder),
        cmocka_unit_test_setup(key_file_that_is_none_is_refused, make_folder),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
