/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a codebook: what is saved comes back to the bit, and no damage goes unseen. */
#include "tests/support/fail_alloc.h"
#include "tests/support/test.h"

#include "retrieval/retrieval.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 2, HEADS = 2, D = 16, WORDS = 16 };

struct fixture {
    char folder[64], path[96];
    struct qy_codebook *codebook;
    uint8_t *bytes; /* of the saved file */
    size_t n;
};

static void write_file(const char *path, const uint8_t *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static struct qy_codebook *fill(enum qy_codebook_kind kind, uint32_t n_records)
{
    const struct qy_allocator mem = qy_allocator_system();
    const struct qy_codebook_info info = {.kind = kind,
                                          .model_hash = 0x1234,
                                          .model_name = "m",
                                          .n_layers = LAYERS,
                                          .n_kv_heads = HEADS,
                                          .head_dim = D,
                                          .m = kind == QY_CODEBOOK_PQ4 ? 4 : 1,
                                          .bits = kind == QY_CODEBOOK_PQ4 ? 4 : 8,
                                          .n_words = WORDS,
                                          .seed = 3,
                                          .n_tokens = 99,
                                          .metric = "query"};
    float words[D * WORDS], scale[D], root[D * D] = {0};
    struct qy_codebook *codebook = NULL;

    assert_int_equal(qy_codebook_new(&mem, &info, &codebook, NULL), QY_OK);
    for (uint32_t r = 0; r < n_records; r++) {
        for (int i = 0; i < D * WORDS; i++) {
            words[i] = (float)((i * 37 + (int)r * 11) % 101) / 7.0f - 5.0f;
        }
        for (int e = 0; e < D; e++) {
            scale[e] = 0.3f + (float)e / 9;
            for (int j = 0; j <= e; j++) {
                root[e * D + j] = e == j ? 1.5f : 0.1f * (float)(e - j) / D;
            }
        }
        const struct qy_codebook_words set = {.words = words, .scale = scale, .root = root};
        assert_int_equal(qy_codebook_set(codebook, r / HEADS, r % HEADS, &set, NULL), QY_OK);
    }
    return codebook;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    snprintf(f->folder, sizeof f->folder, "/tmp/qy_codebook_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof f->path, "%s/c.qcb", f->folder);
    f->codebook = fill(QY_CODEBOOK_PQ4, LAYERS * HEADS);
    assert_int_equal(qy_codebook_save(f->codebook, f->path, NULL), QY_OK);
    FILE *file = fopen(f->path, "rb");
    assert_non_null(file);
    f->bytes = malloc(1 << 20);
    assert_non_null(f->bytes);
    f->n = fread(f->bytes, 1, 1 << 20, file);
    fclose(file);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    rmdir(f->folder); /* fails when a temporary file was left: seen by the test that looks for it */
    qy_codebook_close(f->codebook);
    free(f->bytes);
    free(f);
    return 0;
}

static void assert_same(const struct qy_codebook *a, const struct qy_codebook *b)
{
    for (uint32_t r = 0; r < LAYERS * HEADS; r++) {
        const struct qy_quantizer p = qy_codebook_quantizer(a, r / HEADS, r % HEADS);
        const struct qy_quantizer q = qy_codebook_quantizer(b, r / HEADS, r % HEADS);

        assert_memory_equal(p.encode, q.encode, D * WORDS * sizeof(float));
        assert_memory_equal(p.decode, q.decode, D * WORDS * sizeof(float));
        assert_memory_equal(p.bias, q.bias, p.m * WORDS * sizeof(float));
        if (p.order != NULL) {
            assert_memory_equal(p.order, q.order, D * sizeof(uint16_t));
        }
    }
    const struct qy_codebook_info *x = qy_codebook_info(a), *y = qy_codebook_info(b);
    assert_int_equal(qy_codebook_check(a, y, NULL), QY_OK);
    assert_string_equal(x->model_name, y->model_name);
    assert_string_equal(x->metric, y->metric);
    assert_true(x->seed == y->seed && x->n_tokens == y->n_tokens);
    assert_true(x->m == y->m && x->bits == y->bits && x->n_words == y->n_words);
}

static void codebook_file_round_trip(void **state)
{
    struct fixture *f = *state;
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_codebook *got = NULL, *vq = fill(QY_CODEBOOK_VQ, LAYERS * HEADS);

    assert_int_equal(qy_codebook_open(&mem, f->path, &got, NULL), QY_OK);
    assert_same(f->codebook, got);
    struct qy_codebook_info info;
    assert_int_equal(qy_codebook_read_info(f->path, &info, NULL), QY_OK);
    assert_int_equal(qy_codebook_check(got, &info, NULL), QY_OK);
    qy_codebook_close(got);
    assert_int_equal(qy_codebook_save(vq, f->path, NULL), QY_OK); /* over the first */
    assert_int_equal(qy_codebook_open(&mem, f->path, &got, NULL), QY_OK);
    assert_same(vq, got);
    qy_codebook_close(got);
    qy_codebook_close(vq);
    unlink(f->path);
    assert_int_equal(rmdir(f->folder), 0); /* nothing else was left there */
}

/* Every 64th byte, and every byte of the header: the file is refused, whatever bit it is. */
static void codebook_file_damage_is_seen(void **state)
{
    struct fixture *f = *state;
    const struct qy_allocator mem = qy_allocator_system();

    for (size_t at = 0; at < f->n; at += at < 256 ? 1 : 64) {
        struct qy_codebook *got = NULL;
        struct qy_error err = {0};
        const uint8_t was = f->bytes[at];

        f->bytes[at] ^= (uint8_t)(1u << (at % 8));
        write_file(f->path, f->bytes, f->n);
        f->bytes[at] = was;
        const enum qy_status st = qy_codebook_open(&mem, f->path, &got, &err);
        assert_true(st == QY_ERR_CORRUPT || (st == QY_ERR_UNSUPPORTED && at >= 4 && at < 8));
        assert_null(got);
        assert_non_null(strstr(err.text, f->path));
    }
}

static void codebook_file_cut_or_longer_is_seen(void **state)
{
    struct fixture *f = *state;
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_codebook *got = NULL;
    struct qy_error err = {0};

    for (size_t n = 0; n < f->n; n += n < 300 ? 13 : 173) {
        write_file(f->path, f->bytes, n);
        assert_int_equal(qy_codebook_open(&mem, f->path, &got, &err), QY_ERR_CORRUPT);
        struct qy_codebook_info info;
        assert_int_equal(qy_codebook_read_info(f->path, &info, &err), QY_ERR_CORRUPT);
    }
    write_file(f->path, f->bytes, f->n + 1);
    assert_int_equal(qy_codebook_open(&mem, f->path, &got, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "behind its end"));
}

static void codebook_file_foreign_or_later_is_named(void **state)
{
    struct fixture *f = *state;
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_codebook *got = NULL;
    struct qy_error err = {0};

    write_file(f->path, (const uint8_t *)"GGUF and so on", 14);
    assert_int_equal(qy_codebook_open(&mem, f->path, &got, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "is no codebook"));
    f->bytes[4] = 2; /* a version to come, whose header we cannot check */
    write_file(f->path, f->bytes, f->n);
    assert_int_equal(qy_codebook_open(&mem, f->path, &got, &err), QY_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "version 2"));
    unlink(f->path);
    assert_int_equal(qy_codebook_open(&mem, f->path, &got, &err), QY_ERR_NOT_FOUND);
}

static void codebook_file_unfinished_is_refused(void **state)
{
    struct fixture *f = *state;
    const struct qy_allocator mem = qy_allocator_system();
    struct qy_codebook *part = fill(QY_CODEBOOK_PQ4, 3), *got = NULL;
    uint64_t tag = 0;
    struct qy_error err = {0};

    assert_int_equal(qy_codebook_save(part, f->path, &err), QY_ERR_INVALID);
    assert_int_equal(qy_codebook_save_part(part, 42, f->path, &err), QY_OK);
    assert_int_equal(qy_codebook_open(&mem, f->path, &got, &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "3 of 4"));
    assert_int_equal(qy_codebook_open_part(&mem, f->path, &got, &tag, &err), QY_OK);
    assert_int_equal(tag, 42);
    assert_true(qy_codebook_has(got, 1, 0));
    assert_false(qy_codebook_has(got, 1, 1));
    assert_same(part, got);
    qy_codebook_close(got);
    qy_codebook_close(part);
}

static void codebook_file_that_cannot_be_written_is_named(void **state)
{
    struct fixture *f = *state;
    struct qy_error err = {0};
    char path[128];

    snprintf(path, sizeof path, "%s/none/c.qcb", f->folder);
    assert_int_equal(qy_codebook_save(f->codebook, path, &err), QY_ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
}

static void codebook_file_without_memory_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    for (long n = 0;; n++) {
        struct fail_alloc fail = {.fail_at = n};
        const struct qy_allocator mem = fail_alloc_make(&fail);
        struct qy_codebook *got = NULL;
        const enum qy_status st = qy_codebook_open(&mem, f->path, &got, NULL);

        qy_codebook_close(st == QY_OK ? got : NULL);
        assert_int_equal(fail.live, 0);
        if (st == QY_OK) {
            assert_true(n > 0);
            break;
        }
        assert_int_equal(st, QY_ERR_NOMEM);
    }
}

/* The image of a codebook that was never saved, in pieces of `piece` bytes. */
static enum qy_status by_pieces(const uint8_t *image, size_t bytes, size_t piece,
                                struct qy_codebook **codebook)
{
    const struct qy_allocator mem = qy_allocator_system();
    enum qy_status st = qy_codebook_begin(&mem, image, bytes, codebook, NULL);

    for (size_t at = QY_CODEBOOK_HEADER_BYTES, n; st == QY_OK && at < bytes; at += n) {
        uint8_t *part = malloc(piece); /* of its size, which ASan sees */

        n = bytes - at < piece ? bytes - at : piece;
        assert_non_null(part);
        memcpy(part, image + at, n);
        st = qy_codebook_add(*codebook, at, part, n, NULL);
        free(part);
    }
    return st;
}

static void codebook_image_in_pieces_is_the_codebook(void **state)
{
    static const size_t pieces[] = {1, 100, 1000, 1 << 20};
    struct fixture *f = *state;

    for (int kind = QY_CODEBOOK_PQ4; kind <= QY_CODEBOOK_VQ; kind++) {
        struct qy_codebook *codebook = fill((enum qy_codebook_kind)kind, LAYERS * HEADS);
        const size_t n = (size_t)qy_codebook_image_bytes(codebook);
        uint8_t *image = malloc(n);

        assert_non_null(image);
        for (size_t at = 0; at < n; at += 77) {
            qy_codebook_image(codebook, at, n - at < 77 ? n - at : 77, image + at);
        }
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            struct qy_codebook *got = NULL;

            assert_int_equal(by_pieces(image, n, pieces[i], &got), QY_OK);
            assert_same(codebook, got);
            assert_true(qy_codebook_hash(codebook) == qy_codebook_hash(got));
            qy_codebook_close(got);
        }
        if (kind == QY_CODEBOOK_PQ4) { /* as in the file */
            assert_int_equal(n, f->n);
            assert_memory_equal(image, f->bytes, n);
        }
        free(image);
        qy_codebook_close(codebook);
    }
}

static void codebook_image_damage_is_seen(void **state)
{
    const struct qy_allocator mem = qy_allocator_system();
    struct fixture *f = *state;
    struct qy_codebook *got = NULL;

    assert_int_equal(qy_codebook_begin(&mem, f->bytes, f->n - 1, &got, NULL), QY_ERR_CORRUPT);
    assert_int_equal(qy_codebook_begin(&mem, f->bytes, f->n + 1, &got, NULL), QY_ERR_CORRUPT);
    for (size_t at = 0; at < f->n; at += at < QY_CODEBOOK_HEADER_BYTES ? 1 : 29) {
        got = NULL;
        f->bytes[at] ^= 4;
        assert_true(by_pieces(f->bytes, f->n, 300, &got) != QY_OK);
        f->bytes[at] ^= 4;
        qy_codebook_close(got);
    }
    assert_int_equal(qy_codebook_begin(&mem, f->bytes, f->n, &got, NULL), QY_OK);
    assert_int_equal(qy_codebook_add(got, 255, f->bytes, 10, NULL), QY_ERR_INVALID);
    assert_int_equal(qy_codebook_add(got, f->n - 9, f->bytes, 10, NULL), QY_ERR_INVALID);
    qy_codebook_close(got);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(codebook_file_round_trip),
        CASE(codebook_file_damage_is_seen),
        CASE(codebook_file_cut_or_longer_is_seen),
        CASE(codebook_file_foreign_or_later_is_named),
        CASE(codebook_file_unfinished_is_refused),
        CASE(codebook_file_that_cannot_be_written_is_named),
        CASE(codebook_file_without_memory_leaves_nothing),
        CASE(codebook_image_in_pieces_is_the_codebook),
        CASE(codebook_image_damage_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
