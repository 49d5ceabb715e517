/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any questions to a memory server, from one worker: whatever they are, frames are counted right, and no
 * answer is longer than its buffer; the sanitizers see the rest. An input is a row of questions:
 *
 *   op (1 byte), bytes of the head (1), bytes of the payload (2, little endian), head, payload
 *
 * With the top bit of op a block that is put is sealed first: any rows may be in it. The session's name is the server's to know, so a peer's bytes never reach another session.
 */
#include "tests/fuzz/fuzz.h"

#include "offload/memory/memory_server.h"

#include <stdlib.h>
#include <string.h>

const unsigned fuzz_replays = 4000;

enum {
    LAYERS = 2,
    HEADS = 2,
    GROUP = 2,
    D = 32,
    TOKENS = 8,
    SEQUENCES = 2,
    BLOCKS = 4,
    FRAMES = 5
};
enum { ANSWER = 4096, SEALED = 0x80 };

/* Opened at the first input and kept; sessions are closed after each. */
static struct qy_runtime rt;
static struct qy_memory *memory;

static void make_layout(int coded, int scored, struct qyi_home_layer layers[LAYERS],
                        struct qyi_layout *layout)
{
    const struct qy_kv_shape shape = {LAYERS, HEADS * GROUP, HEADS, D};
    const struct qy_cache_settings settings = {.block_tokens = TOKENS};

    if (qyi_layout_make(&shape, &settings, scored ? qy_key4_slab_bytes(D, TOKENS) : 0, layout,
                        NULL) != QY_OK) {
        abort();
    }
    for (uint32_t i = 0; coded && i < LAYERS; i++) {
        layers[i] =
            (struct qyi_home_layer){.codec = {.k_bits = 8, .v_bits = 4, .group = 32, .d = D}};
    }
    if (coded) {
        qyi_layout_code(layout, layers);
    }
}

static void close_memory(void)
{
    qy_memory_close(memory);
}

static void open_memory(void)
{
    struct qyi_layout layout;

    make_layout(0, 0, NULL, &layout);
    rt.mem = qy_allocator_system();
    qy_cpu_detect(&rt.cpu);
    if (qy_cpu_choose(&rt.cpu, "auto", NULL) != QY_OK) {
        abort();
    }
    const struct qy_memory_params params = {.rt = &rt,
                                            .bytes = FRAMES * layout.block_bytes,
                                            .table_bytes = 1 << 16,
                                            .call_bytes = 1 << 16,
                                            .answer_bytes = ANSWER,
                                            .max_sessions = 1};
    if (qy_memory_open(&params, &memory, NULL) != QY_OK) {
        abort();
    }
    (void)atexit(close_memory);
}

/* In memory of exactly its size: ASan sees a read beyond. */
static uint8_t *copy_of(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n + !n); /* aligned for all that is in it */

    if (!copy) {
        abort();
    }
    if (n > 0) {
        memcpy(copy, data, n);
    }
    return copy;
}

static void seal(const struct qyi_layout *l, uint8_t *block)
{
    *qyi_block_footer(l, block) = (struct qyi_footer){.n_slabs = l->n_slabs};
    for (size_t i = 0; i < l->n_sums; i++) {
        qyi_block_sums(l, block)[i] = qyi_block_sum(l, block, i);
    }
}

static void ask(struct qyi_session **session, const struct qyi_question *question)
{
    static const uint8_t name[QY_NET_SESSION_BYTES] = {1};
    struct qyi_question q = *question;
    struct qyi_memory_reply answer = {0};
    uint16_t code = 0;

    if (q.op == QYI_REMOTE_PUT) {
        void *frame = qyi_memory_place(memory, *session, &q, &code);
        if (!frame) {
            if (code == QYI_REMOTE_DONE) {
                abort();
            }
            return;
        }
        memcpy(frame, q.payload, q.payload_bytes);
        q.payload = frame;
    }
    qyi_memory_answer(memory, name, session, &q, &answer);
    if (answer.payload_bytes > ANSWER && !answer.pinned) {
        abort();
    }
    uint64_t sum = 0; /* every byte of the answer is one that may be read */
    for (size_t i = 0; i < answer.payload_bytes; i++) {
        sum += ((const uint8_t *)answer.payload)[i];
    }
    if (sum == UINT64_MAX) {
        abort();
    }
    qyi_memory_sent(memory, &answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct qyi_session *session = NULL;
    struct qy_memory_stats stats;

    if (!memory) {
        open_memory();
    }
    uint8_t *answer = aligned_alloc(64, ANSWER);
    for (size_t at = 0; answer && n - at >= 4;) {
        const size_t head_bytes = data[at + 1];
        const size_t payload_bytes = data[at + 2] | (size_t)data[at + 3] << 8;
        if (head_bytes > QY_NET_HEAD_BYTES || head_bytes + payload_bytes > n - at - 4) {
            break;
        }
        uint8_t *head = copy_of(data + at + 4, head_bytes);
        uint8_t *payload = copy_of(data + at + 4 + head_bytes, payload_bytes);
        if (data[at] & SEALED && session && payload_bytes == session->layout.block_bytes) {
            seal(&session->layout, payload);
        }
        const struct qyi_question q = {.op = data[at] & (SEALED - 1),
                                       .head_bytes = head_bytes,
                                       .payload_bytes = payload_bytes,
                                       .head = head,
                                       .payload = payload,
                                       .answer = answer};
        ask(&session, &q);
        free(payload);
        free(head);
        at += 4 + head_bytes + payload_bytes;
        qy_memory_stats(memory, &stats);
        if (stats.blocks_free + (session ? session->n_held : 0) != stats.blocks_total) {
            abort();
        }
    }
    free(answer);
    if (session) {
        qyi_session_close(memory, session);
    }
    (void)qy_memory_tend(memory, 0);
    qy_memory_stats(memory, &stats);
    if (stats.blocks_free != stats.blocks_total || stats.sessions != 0) {
        abort();
    }
    return 0;
}

/* ---- seeds --------------------------------------------------------------------------------------- */

struct seed {
    uint8_t bytes[1 << 15];
    size_t n;
};

static void add(struct seed *s, uint8_t op, const void *head, size_t head_bytes,
                const void *payload, size_t payload_bytes)
{
    if (sizeof(s->bytes) - s->n < 4 + head_bytes + payload_bytes) {
        abort();
    }
    uint8_t *to = s->bytes + s->n;
    to[0] = op;
    to[1] = (uint8_t)head_bytes;
    to[2] = (uint8_t)payload_bytes;
    to[3] = (uint8_t)(payload_bytes >> 8);
    if (head_bytes > 0) {
        memcpy(to + 4, head, head_bytes);
    }
    if (payload_bytes > 0) {
        memcpy(to + 4 + head_bytes, payload, payload_bytes);
    }
    s->n += 4 + head_bytes + payload_bytes;
}

static void add_block(struct seed *s, const struct qyi_layout *l, uint32_t sequence, uint32_t b)
{
    const struct qyi_remote_put put = {
        .serial = 1, .generation = 1, .sequence = sequence, .block = b};
    uint8_t *block = aligned_alloc(64, l->block_bytes);

    if (!block) {
        abort();
    }
    for (size_t i = 0; i < l->block_bytes; i++) { /* halves; sealed when they are asked */
        block[i] = i % 2 ? (uint8_t)(0x30 + i % 8) : (uint8_t)(i * 7);
    }
    add(s, QYI_REMOTE_PUT | SEALED, &put, sizeof(put), block, l->block_bytes);
    free(block);
}

static void add_list(struct seed *s, uint8_t op, uint32_t query_floats)
{
    static const uint32_t ids[] = {3, 4, 5, 9, 0};
    const struct qyi_remote_item items[2] = {{.serial = 1, .head = 1, .n = 3},
                                             {.serial = 1, .head = 0, .n = 2}};
    const struct qyi_remote_ask head = {.layer = 1, .n_items = 2, .n_ids = 5, .scale = 0.5F};
    const struct qyi_remote_parts parts = qyi_remote_parts(2, 5, query_floats);
    uint8_t payload[1024] = {0};

    memcpy(payload, items, sizeof(items));
    memset(payload + parts.q_at, 0x3f, parts.ids_at - parts.q_at);
    memcpy(payload + parts.ids_at, ids, sizeof(ids));
    add(s, op, &head, sizeof(head), payload, parts.bytes);
}

static void add_chunk(struct seed *s)
{
    enum { QUERIES = 3 };
    const struct qyi_remote_chunk head = {
        .serial = 1, .layer = 1, .n_queries = QUERIES, .n_blocks = 2, .scale = 0.5F};
    static const uint32_t blocks[] = {1, 0};
    uint8_t payload[2048];
    const size_t bytes = qyi_remote_chunk_bytes(QUERIES, 2, HEADS * GROUP * D);

    memset(payload, 0x3f, bytes);
    memcpy(payload + bytes - sizeof(blocks), blocks, sizeof(blocks));
    add(s, QYI_REMOTE_CHUNK, &head, sizeof(head), payload, bytes);
}

/* A policy without a codebook, and a question that it answers. */
static void add_score(struct seed *s)
{
    const struct qyi_remote_scorer scorer = {.policy = "a2ats+",
                                             .preset = QY_PRESET_FAST,
                                             .first_stage = QY_STAGE1_KEYS,
                                             .rerank = QY_RERANK_OFF,
                                             .pooling = QY_POOLED_UNION,
                                             .window = TOKENS,
                                             .scale = 0.5F};
    const float none = 0.0F;
    const struct qyi_remote_book book = {.hash = qyi_remote_scorer_hash(&scorer, &none, 0),
                                         .bytes = sizeof(scorer)};
    const struct qyi_remote_ask head = {.layer = 1, .n_items = 1, .n_ids = 2};
    const struct qyi_remote_score item = {
        .serial = 1, .head = 1, .n_blocks = 2, .n_tokens = 3 * TOKENS, .k = 5};
    const struct qyi_remote_parts parts = qyi_remote_score_parts(1, 2, GROUP * D);
    const uint32_t blocks[2] = {0, 1};
    uint8_t payload[1024] = {0};

    add(s, QYI_REMOTE_BOOK, &book, sizeof(book), &scorer, sizeof(scorer));
    memcpy(payload, &item, sizeof(item));
    memset(payload + parts.q_at, 0x3f, parts.ids_at - parts.q_at);
    memcpy(payload + parts.ids_at, blocks, sizeof(blocks));
    add(s, QYI_REMOTE_SCORE, &head, sizeof(head), payload, parts.bytes);
}

uint8_t *fuzz_seed(size_t i, size_t *n)
{
    static struct seed seed;
    struct qyi_home_layer layers[LAYERS];
    struct qyi_layout layout;
    uint8_t open[128];
    const struct qyi_remote_count one = {.n = 1};
    const struct qyi_remote_read read = {.serial = 1, .at = 8, .bytes = 100};
    const struct qyi_remote_drop drop = {.serial = 1, .generation = 1, .n = UINT32_MAX};

    if (i >= 2 * 8) {
        return NULL;
    }
    make_layout(i % 2 != 0, i / 2 == 7, layers, &layout);
    qyi_remote_open_pack(&layout, GROUP, SEQUENCES, BLOCKS, open);
    seed.n = 0;
    add(&seed, QYI_REMOTE_OPEN, NULL, 0, open, qyi_remote_open_bytes(&layout));
    if (i / 2 > 0) {
        add_block(&seed, &layout, 0, 0);
        add_block(&seed, &layout, 0, 1);
    }
    for (uint32_t b = 0; i / 2 == 5 && b < BLOCKS + 1; b++) { /* one again, and more than fit */
        add_block(&seed, &layout, b != 0, b % BLOCKS);
    }
    if (i / 2 == 2 || i / 2 == 5) {
        add(&seed, QYI_REMOTE_READ, &one, sizeof(one), &read, sizeof(read));
    }
    if (i / 2 == 3 || i / 2 == 5) {
        add_list(&seed, QYI_REMOTE_ROWS, 0);
    }
    if (i / 2 == 6 || i / 2 == 5) {
        add_chunk(&seed);
    }
    if (i / 2 == 4 || i / 2 == 5) {
        add_list(&seed, QYI_REMOTE_ATTEND, GROUP * D);
        add(&seed, QYI_REMOTE_STATE, NULL, 0, NULL, 0);
        add(&seed, QYI_REMOTE_DROP, &one, sizeof(one), &drop, sizeof(drop));
    }
    if (i / 2 == 7) {
        add_score(&seed);
    }
    uint8_t *copy = malloc(seed.n);
    if (!copy) {
        abort();
    }
    memcpy(copy, seed.bytes, seed.n);
    *n = seed.n;
    return copy;
}
