/* SPDX-License-Identifier: Apache-2.0 */
/* Questions about scores, parsed: what a hostile side could send outside its bounds is refused. */
#include "tests/unit/offload/wire_damage.h"

#include "offload/memory/remote_wire.h"

static const struct qyi_remote_bounds bounds = {.n_layers = 3,
                                                .n_kv_heads = 2,
                                                .query_floats = 4,
                                                .shift = 4,
                                                .max_sequences = 5,
                                                .max_blocks = 10,
                                                .block_bytes = 4096};

static const char *parse_score(const void *head, size_t head_bytes, const void *payload,
                               size_t payload_bytes)
{
    struct qyi_remote_scores scores;
    const char *wrong =
        qyi_remote_score_parse(&bounds, head, head_bytes, payload, payload_bytes, &scores);

    if (!wrong) {
        assert_int_equal(scores.layer, 2);
        assert_true(scores.q[7] == 3.0F);
        assert_int_equal(scores.blocks[2], 7);
    }
    return wrong;
}

static void scores_outside_their_bounds_are_refused(void **state)
{
    struct qyi_remote_ask ask = {.layer = 2, .n_items = 2, .n_ids = 3};
    struct {
        struct qyi_remote_score items[2];
        float q[8];
        uint32_t blocks[4]; /* the last is none of it */
    } payload = {
        {{.serial = 1, .sequence = 4, .head = 1, .n_blocks = 2, .n_tokens = 160, .k = 1},
         {.serial = 1, .sequence = 0, .head = 0, .n_blocks = 1, .n_tokens = 130, .k = UINT32_MAX}},
        {[7] = 3.0F},
        {0, 9, 7}};
    const size_t blocks_at = sizeof(payload.items) + sizeof(payload.q);
    struct question q = {parse_score, (uint8_t *)&ask, (uint8_t *)&payload, sizeof(ask),
                         sizeof(payload) - 4};
    const struct damage damages[] = {
        IN_HEAD(struct qyi_remote_ask, layer, 3),
        IN_HEAD(struct qyi_remote_ask, n_items, 0),
        IN_HEAD(struct qyi_remote_ask, n_items, 1),
        IN_HEAD(struct qyi_remote_ask, n_items, UINT32_MAX),
        IN_HEAD(struct qyi_remote_ask, n_ids, 2),
        IN_HEAD(struct qyi_remote_ask, scale, 0x3f800000),
        IN_HEAD(struct qyi_remote_ask, scale, 0x7fc00000),
        IN_ITEM(0, struct qyi_remote_score, serial, 0),
        IN_ITEM(1, struct qyi_remote_score, sequence, 5),
        IN_ITEM(1, struct qyi_remote_score, head, 2),
        IN_ITEM(0, struct qyi_remote_score, n_blocks, 0),
        IN_ITEM(0, struct qyi_remote_score, n_blocks, 1),
        IN_ITEM(0, struct qyi_remote_score, n_blocks, 3),
        IN_ITEM(1, struct qyi_remote_score, n_blocks, UINT32_MAX),
        IN_ITEM(1, struct qyi_remote_score, n_tokens, 0),
        IN_ITEM(1, struct qyi_remote_score, n_tokens, 127), /* its block ends at 128 */
        IN_ITEM(1, struct qyi_remote_score, n_tokens, 161),
        IN_ITEM(1, struct qyi_remote_score, n_tokens, UINT32_MAX),
        IN_ITEM(1, struct qyi_remote_score, k, 0),
        IN_ITEM(1, struct qyi_remote_score, zero, 1),
        {1, blocks_at, 4, 9},
        {1, blocks_at + 4, 4, 10},
        {1, blocks_at + 8, 4, UINT32_MAX},
    };
    (void)state;

    assert_int_equal(qyi_remote_score_parts(2, 3, 4).bytes, sizeof(payload) - 4);
    refuse_everything(&q, damages, COUNT(damages));
}

static const char *parse_book(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes)
{
    struct qyi_remote_book book;

    (void)payload;
    return qyi_remote_book_parse(head, head_bytes, payload_bytes, &book);
}

static void pieces_outside_their_image_are_refused(void **state)
{
    struct qyi_remote_book book = {.hash = 1, .bytes = 200, .at = 100};
    uint8_t piece[100] = {0};
    const struct question q = {parse_book, (uint8_t *)&book, piece, sizeof(book), sizeof(piece)};
    static const uint64_t bad_at[] = {101, 199, 200, UINT64_MAX, UINT64_MAX - 50};
    (void)state;

    assert_null(parse_copy(&q, sizeof(book), sizeof(piece)));
    assert_non_null(parse_copy(&q, sizeof(book) - 1, sizeof(piece)));
    assert_non_null(parse_copy(&q, sizeof(book), sizeof(piece) + 1));
    assert_non_null(parse_copy(&q, sizeof(book), 0));
    for (size_t i = 0; i < COUNT(bad_at); i++) {
        book.at = bad_at[i];
        assert_non_null(parse_copy(&q, sizeof(book), sizeof(piece)));
    }
    book = (struct qyi_remote_book){.bytes = sizeof(struct qyi_remote_scorer) - 1};
    assert_non_null(parse_copy(&q, sizeof(book), 10));
}

/* The payload is an image of its own size, with a codebook whose header is the rest of it. */
static const char *parse_scorer(const void *head, size_t head_bytes, const void *payload,
                                size_t payload_bytes)
{
    const uint64_t *bytes = head;
    struct qyi_remote_scorer scorer;
    const uint8_t *inv_freq;
    const uint8_t *codebook;

    (void)head_bytes;
    return qyi_remote_scorer_parse(payload, payload_bytes, *bytes, &scorer, &inv_freq, &codebook);
}

static void images_that_make_no_sense_are_refused(void **state)
{
    struct {
        struct qyi_remote_scorer scorer;
        float inv_freq[2];
        uint8_t codebook[QY_CODEBOOK_HEADER_BYTES];
    } image = {.scorer = {.policy = "a2ats",
                          .rope_dim = 4,
                          .scale = 0.125F,
                          .codebook_bytes = QY_CODEBOOK_HEADER_BYTES + 1000}};
    uint64_t bytes = sizeof(image) + 1000;
    struct question q = {parse_scorer, (uint8_t *)&bytes, (uint8_t *)&image, sizeof(bytes),
                         sizeof(image)};
    static const struct damage damages[] = {
        IN_ITEM(0, struct qyi_remote_scorer, rope_dim, 3),
        IN_ITEM(0, struct qyi_remote_scorer, rope_dim, 6),
        IN_ITEM(0, struct qyi_remote_scorer, rope_dim, UINT32_MAX - 1),
        IN_ITEM(0, struct qyi_remote_scorer, scale, 0),
        IN_ITEM(0, struct qyi_remote_scorer, scale, 0x7f800000),
        IN_ITEM(0, struct qyi_remote_scorer, zero, 1),
        IN_ITEM(0, struct qyi_remote_scorer, codebook_bytes, 0),
        IN_ITEM(0, struct qyi_remote_scorer, codebook_bytes, UINT64_MAX),
    };
    (void)state;

    assert_null(parse_copy(&q, sizeof(bytes), sizeof(image)));
    for (size_t n = 0; n < sizeof(image);
         n++) { /* more of it comes later; not of the first piece */
        assert_non_null(parse_copy(&q, sizeof(bytes), n));
    }
    for (size_t i = 0; i < COUNT(damages); i++) {
        uint8_t before[8];

        memcpy(before, q.payload + damages[i].at, damages[i].n);
        memcpy(q.payload + damages[i].at, &damages[i].value, damages[i].n);
        assert_non_null(parse_copy(&q, sizeof(bytes), sizeof(image)));
        memcpy(q.payload + damages[i].at, before, damages[i].n);
    }
    memset(image.scorer.policy, 'a', sizeof(image.scorer.policy));
    assert_non_null(parse_copy(&q, sizeof(bytes), sizeof(image)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_outside_their_bounds_are_refused),
        cmocka_unit_test(pieces_outside_their_image_are_refused),
        cmocka_unit_test(images_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests_name("unit.offload.remote_score", tests, NULL, NULL);
}
