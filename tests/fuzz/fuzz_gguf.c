/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a model file: opened, every value and tensor read, the tokenizer opened on it and
 * used. Nothing may crash, leak, or allocate out of proportion to the file.
 */
#include "tests/fuzz/fuzz.h"

#include "model/model.h"
#include "tests/support/make_gguf_vocab.h"
#include "tests/support/make_gguf_writer.h"

#include <stdlib.h>
#include <string.h>

const unsigned fuzz_replays = 2000;

/* Memory in use, against a limit; the libraries see a failed allocation beyond it, we see a bug. */
struct meter {
    size_t live, limit;
};
enum { HEAD_BYTES = 64 };

static void *meter_alloc(void *ctx, size_t bytes, size_t align)
{
    const struct qy_allocator heap = qy_allocator_system();
    struct meter *meter = ctx;

    if (bytes > meter->limit - meter->live) {
        abort(); /* out of proportion to the file */
    }
    uint8_t *block =
        heap.alloc(heap.ctx, bytes + HEAD_BYTES, align < HEAD_BYTES ? HEAD_BYTES : align);
    if (!block) {
        return NULL;
    }
    memcpy(block, &bytes, sizeof(bytes));
    meter->live += bytes;
    return block + HEAD_BYTES;
}

static void meter_free(void *ctx, void *ptr)
{
    const struct qy_allocator heap = qy_allocator_system();
    struct meter *meter = ctx;
    size_t bytes;

    if (ptr) {
        memcpy(&bytes, (uint8_t *)ptr - HEAD_BYTES, sizeof(bytes));
        meter->live -= bytes;
        heap.free(heap.ctx, (uint8_t *)ptr - HEAD_BYTES);
    }
}

static uint64_t walk(const struct qy_gguf *gguf)
{
    uint64_t sum = qy_gguf_hash(gguf);

    for (size_t i = 0; i < qy_gguf_n_values(gguf); i++) {
        const struct qy_gguf_value *value = qy_gguf_value_at(gguf, i);
        struct qy_text text;
        size_t cursor = 0;
        sum = qy_checksum(value->key.data, value->key.bytes, sum);
        while (qy_gguf_next_text(value, &cursor, &text) == 0) {
            sum = qy_checksum(text.data, text.bytes, sum);
        }
        for (uint64_t j = 0; value->element != QY_GGUF_STRING && j < value->count; j++) {
            sum += qy_gguf_number_at(value, j) > 0.0;
        }
    }
    for (size_t i = 0; i < qy_gguf_n_tensors(gguf); i++) {
        const struct qy_gguf_tensor *tensor = qy_gguf_tensor_at(gguf, i);
        sum = qy_checksum(tensor->data, (size_t)tensor->bytes, sum);
    }
    return sum;
}

/* Whatever vocabulary the file has, encoding and decoding stay inside it. */
static void use_tokenizer(const struct qy_allocator *mem, const struct qy_gguf *gguf)
{
    static const char text[] = "Hello, the 2024 caf\xc3\xa9  <|im_start|>\xff end";
    struct qy_tokenizer *tokenizer = NULL;
    struct qy_error err;
    int32_t *ids = NULL;
    size_t n_ids;
    char *out = NULL;
    size_t n_out;

    if (qy_tokenizer_open(mem, gguf, &tokenizer, &err) != QY_OK) {
        return;
    }
    const unsigned flags = QY_ENCODE_SPECIAL | QY_ENCODE_BOS;
    if (qy_tokenizer_encode(tokenizer, text, sizeof(text) - 1, flags, &ids, &n_ids, &err) ==
        QY_OK) {
        for (size_t i = 0; i < n_ids; i++) {
            if (ids[i] < 0 || (uint32_t)ids[i] >= qy_tokenizer_size(tokenizer)) {
                abort();
            }
        }
        if (qy_tokenizer_decode(tokenizer, ids, n_ids, 1, &out, &n_out, &err) == QY_OK) {
            qy_free(mem, out);
        }
        qy_free(mem, ids);
    }
    (void)qy_tokenizer_is_end(tokenizer, qy_tokenizer_eos(tokenizer));
    (void)qy_tokenizer_find(tokenizer, "<|im_end|>");
    qy_tokenizer_close(tokenizer);
}

static void use_chat(const struct qy_allocator *mem, const struct qy_gguf *gguf)
{
    struct qy_chat_parts parts;
    struct qy_error err;

    if (qy_chat_format_message(mem, gguf, qy_chat_detect(gguf), "user", "hi", 2, 1, 1, &parts,
                               &err) == QY_OK) {
        qy_chat_parts_free(mem, &parts);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static volatile uint64_t sink;
    struct meter meter = {.limit = 8 * n + 1024};
    const struct qy_allocator mem = {.ctx = &meter, .alloc = meter_alloc, .free = meter_free};
    struct qy_gguf *gguf = NULL;
    struct qy_error err;

    if (qy_gguf_open_memory(&mem, data, n, "fuzz.gguf", &gguf, &err) == QY_OK) {
        sink = sink + walk(gguf);
        meter.limit = 128 * n + (1U << 20);
        use_tokenizer(&mem, gguf);
        use_chat(&mem, gguf);
        qy_gguf_close(gguf);
    }
    if (meter.live != 0) {
        abort(); /* a leak */
    }
    return 0;
}

static void put_tensors(struct gguf_writer *w)
{
    const uint64_t dims[2] = {32, 2};
    const int16_t numbers[3] = {1, -2, 3};

    gguf_put_array(w, "numbers", QY_GGUF_I16, 3, numbers, sizeof(numbers));
    gguf_put_f32(w, "real", 1.0F);
    (void)gguf_put_tensor(w, "x", 2, dims, QY_TYPE_Q4_0, 36);
    (void)gguf_put_tensor(w, "y", 2, dims, QY_TYPE_F32, 256);
    (void)gguf_put_tensor(w, "z", 1, dims, QY_TYPE_BF16, 64);
}

uint8_t *fuzz_seed(size_t i, size_t *n)
{
    static const char *const pre[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
    struct gguf_writer w;

    gguf_writer_init(&w, i == 1 ? 2 : 3, i == 0 ? 8 : 32);
    if (i == 0) {
        gguf_put_u32(&w, "general.alignment", 8);
        gguf_put_bool(&w, "yes", 1);
        put_tensors(&w);
    } else if (i == 1) {
        vocab_put_spm(&w, 1);
    } else if (i < 6) {
        vocab_put_bpe(&w, pre[i - 2], 1);
    } else {
        return NULL;
    }
    return gguf_writer_finish(&w, n);
}
