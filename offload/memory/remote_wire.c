/* SPDX-License-Identifier: Apache-2.0 */
/* See remote_wire.h. Everything that a peer says is read here, and nowhere else. */
#include "offload/memory/remote_wire.h"

#include <math.h>
#include <string.h>

static const char not_aligned[] = "a payload that the node did not align";
static const char wrong_head[] = "a head of another size";
static const char wrong_payload[] = "a payload of another size than its head says";
static const char no_sequence[] = "a sequence outside the table";
static const char no_block[] = "a block outside the table";
static const char no_serial[] = "a serial or generation of 0, or members that are not 0";

const char *qyi_remote_code_name(uint16_t code)
{
    static const char *const names[QYI_REMOTE_CODES] = {
        [QYI_REMOTE_DONE] = "done",
        [QYI_REMOTE_HELD] = "held already",
        [QYI_REMOTE_FULL] = "full",
        [QYI_REMOTE_UNKNOWN] = "unknown block",
        [QYI_REMOTE_STALE] = "stale serial or generation",
        [QYI_REMOTE_TOO_LARGE] = "too large",
        [QYI_REMOTE_BUSY] = "blocks of another layout are held",
        [QYI_REMOTE_NOT_OPEN] = "no session",
        [QYI_REMOTE_CORRUPT] = "checksums differ",
        [QYI_REMOTE_MALFORMED] = "malformed",
        [QYI_REMOTE_FAILED] = "failed",
    };

    return code < QYI_REMOTE_CODES ? names[code] : "code outside the list";
}

enum qy_status qyi_remote_reply_parse(const void *head, size_t head_bytes,
                                      struct qyi_remote_reply *reply)
{
    struct qyi_remote_reply r;

    if (head_bytes != sizeof(r)) {
        return QY_ERR_CORRUPT;
    }
    memcpy(&r, head, sizeof(r));
    if (r.draining > 1 || r.free_blocks > r.total_blocks || r.held_blocks > r.total_blocks) {
        return QY_ERR_CORRUPT;
    }
    *reply = r;
    return QY_OK;
}

enum qy_status qyi_remote_state_parse(const void *payload, size_t bytes,
                                      struct qyi_remote_state *state)
{
    struct qyi_remote_state s;

    if (bytes != sizeof(s)) {
        return QY_ERR_CORRUPT;
    }
    memcpy(&s, payload, sizeof(s));
    if (s.version == 0 || s.block_bytes > s.bytes) {
        return QY_ERR_CORRUPT;
    }
    *state = s;
    return QY_OK;
}

uint64_t qyi_remote_fold_ids(uint64_t fold, const uint32_t *ids, uint32_t n, uint32_t shift,
                             const uint64_t *generations)
{
    uint64_t last = UINT64_MAX; /* no block */

    for (uint32_t i = 0; i < n; i++) {
        const uint32_t b = ids[i] >> shift;

        if (b != last) {
            fold = qyi_remote_fold(fold, generations[b]);
            last = b;
        }
    }
    return fold;
}

/* ---- blocks ----------------------------------------------------------------------------------- */

const char *qyi_remote_put_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                 size_t head_bytes, uint64_t payload_bytes,
                                 struct qyi_remote_put *put)
{
    struct qyi_remote_put p;

    if (head_bytes != sizeof(p)) {
        return wrong_head;
    }
    memcpy(&p, head, sizeof(p));
    if (payload_bytes != bounds->block_bytes) {
        return "a block of another size";
    }
    if (p.sequence >= bounds->max_sequences) {
        return no_sequence;
    }
    if (p.block >= bounds->max_blocks) {
        return no_block;
    }
    if (p.serial == 0 || p.generation == 0) {
        return no_serial;
    }
    *put = p;
    return NULL;
}

/* The count of a payload of entries of `size`. */
static const char *read_count(const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes, size_t size, uint32_t *n)
{
    struct qyi_remote_count count;

    if (head_bytes != sizeof(count)) {
        return wrong_head;
    }
    memcpy(&count, head, sizeof(count));
    if (count.n == 0 || count.zero != 0 || payload_bytes / size != count.n ||
        payload_bytes % size != 0) {
        return wrong_payload;
    }
    if (!qyi_remote_aligned(payload)) {
        return not_aligned;
    }
    *n = count.n;
    return NULL;
}

const char *qyi_remote_drop_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                  size_t head_bytes, const void *payload, size_t payload_bytes,
                                  struct qyi_remote_drops *drops)
{
    const struct qyi_remote_drop *items = payload;
    const uint64_t most = (uint64_t)bounds->max_sequences * bounds->max_blocks;
    uint64_t named = 0;
    uint32_t n;
    const char *wrong = read_count(head, head_bytes, payload, payload_bytes, sizeof(*items), &n);

    if (wrong) {
        return wrong;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qyi_remote_drop *d = &items[i];

        if (d->sequence >= bounds->max_sequences) {
            return no_sequence;
        }
        if (d->first >= bounds->max_blocks) {
            return no_block;
        }
        if (d->serial == 0 || d->generation == 0 || d->n == 0 || d->moved > 1) {
            return no_serial;
        }
        named += qyi_remote_drop_end(bounds, d) - d->first;
        if (named > most) { /* a short question must not keep the server busy for long */
            return "more blocks than the table has";
        }
    }
    *drops = (struct qyi_remote_drops){.items = items, .n = n};
    return NULL;
}

const char *qyi_remote_read_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                  size_t head_bytes, const void *payload, size_t payload_bytes,
                                  struct qyi_remote_reads *reads)
{
    const struct qyi_remote_read *items = payload;
    uint64_t bytes = 0;
    uint32_t n;
    const char *wrong = read_count(head, head_bytes, payload, payload_bytes, sizeof(*items), &n);

    if (wrong) {
        return wrong;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct qyi_remote_read *r = &items[i];

        if (r->sequence >= bounds->max_sequences) {
            return no_sequence;
        }
        if (r->block >= bounds->max_blocks) {
            return no_block;
        }
        if (r->serial == 0) {
            return no_serial;
        }
        if (r->bytes == 0 || r->at >= bounds->block_bytes ||
            r->bytes > bounds->block_bytes - r->at) {
            return "bytes outside the block";
        }
        if (bytes > UINT64_MAX - r->bytes) {
            return "more bytes than can be counted";
        }
        bytes += r->bytes;
    }
    *reads = (struct qyi_remote_reads){.items = items, .n = n, .bytes = bytes};
    return NULL;
}

/* ---- lists of rows ---------------------------------------------------------------------------- */

static const char *check_items(const struct qyi_remote_bounds *bounds,
                               const struct qyi_remote_list *list)
{
    const uint32_t max_tokens = bounds->max_blocks << bounds->shift;
    uint64_t n_ids = 0;

    for (uint32_t i = 0; i < list->n_items; i++) {
        const struct qyi_remote_item *item = &list->items[i];

        if (item->sequence >= bounds->max_sequences) {
            return no_sequence;
        }
        if (item->head >= bounds->n_kv_heads) {
            return "a KV head that there is not";
        }
        if (item->serial == 0 || item->zero != 0) {
            return no_serial;
        }
        n_ids += item->n;
    }
    if (n_ids != list->n_ids) {
        return "lists that are not as long as the head says";
    }
    for (uint32_t i = 0; i < list->n_ids; i++) {
        if (list->ids[i] >= max_tokens) {
            return "a token outside the table";
        }
    }
    return NULL;
}

static const char *parse_list(const struct qyi_remote_bounds *bounds, uint32_t query_floats,
                              const void *head, size_t head_bytes, const void *payload,
                              size_t payload_bytes, struct qyi_remote_list *list)
{
    struct qyi_remote_ask ask;

    if (head_bytes != sizeof(ask)) {
        return wrong_head;
    }
    memcpy(&ask, head, sizeof(ask));
    const struct qyi_remote_parts parts = qyi_remote_parts(ask.n_items, ask.n_ids, query_floats);
    if (ask.n_items == 0 || payload_bytes != parts.bytes) {
        return wrong_payload;
    }
    if (!qyi_remote_aligned(payload)) {
        return not_aligned;
    }
    if (ask.layer >= bounds->n_layers) {
        return "a layer that there is not";
    }
    if (!isfinite(ask.scale)) {
        return "a scale that is not finite";
    }
    const struct qyi_remote_list l = {
        .layer = ask.layer,
        .n_items = ask.n_items,
        .n_ids = ask.n_ids,
        .scale = ask.scale,
        .items = payload,
        .q = query_floats == 0
                 ? NULL
                 : (const float *)(const void *)((const uint8_t *)payload + parts.q_at),
        .ids = (const uint32_t *)(const void *)((const uint8_t *)payload + parts.ids_at)};
    const char *wrong = check_items(bounds, &l);
    if (!wrong) {
        *list = l;
    }
    return wrong;
}

const char *qyi_remote_rows_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                  size_t head_bytes, const void *payload, size_t payload_bytes,
                                  struct qyi_remote_list *list)
{
    return parse_list(bounds, 0, head, head_bytes, payload, payload_bytes, list);
}

const char *qyi_remote_attend_parse(const struct qyi_remote_bounds *bounds, const void *head,
                                    size_t head_bytes, const void *payload, size_t payload_bytes,
                                    struct qyi_remote_list *list)
{
    return parse_list(bounds, bounds->query_floats, head, head_bytes, payload, payload_bytes, list);
}
