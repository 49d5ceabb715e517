/* SPDX-License-Identifier: Apache-2.0 */
/* A disk under host memory that fails, stalls, gives back what was not written, or is full. */
#include "tests/unit/offload/rig_disk.h"
#include "tests/unit/offload/tier_rig.h"

#include <string.h>
#include <unistd.h>

#include "offload/cache.h"

struct pair {
    struct rig good, bad;
    struct qy_sequence *want[2], *have[2];
    float a[RIG_LAYERS * 2 * RIG_OUT], b[RIG_LAYERS * 2 * RIG_OUT];
};

/* Two caches in step, one of them over a disk. */
static void open_pair(struct pair *p, const struct rig_options *options)
{
    struct rig_options o = rig_on_disk(options);

    rig_open(&p->good, options);
    o.copy_timeout_ms = 1000; /* far above what a busy machine pauses for */
    o.micro_batches = 2;
    rig_open(&p->bad, &o);
    for (int i = 0; i < 2; i++) {
        p->want[i] = rig_sequence(&p->good);
        p->have[i] = rig_sequence(&p->bad);
        rig_prefill(&p->good, p->want[i], (uint32_t)i + 1, 300, 64, NULL);
        rig_prefill(&p->bad, p->have[i], (uint32_t)i + 1, 300, 64, NULL);
    }
}

static void close_pair(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        rig_verify(p->have[i]);
    }
    rig_expect_disk_sound(p->bad.cache);
    rig_close(&p->good);
    rig_close(&p->bad);
}

/* Reads that fail or stall: the step says so, and works when it is done again. */
static void disk_a_read_that_fails_fails_one_step(void **state)
{
    static const enum qyi_disk_fault faults[3] = {QYI_DISK_FAULT_READ, QYI_DISK_FAULT_SHORT,
                                                  QYI_DISK_FAULT_STALL};
    static const enum qy_status expected[3] = {QY_ERR_DEVICE, QY_OK, QY_ERR_TIMEOUT};
    static const char *const words[3] = {"Input/output error", "", "copy_timeout_ms"};
    static const char *const policies[2] = {"quest", "dense"};
    static struct pair p;
    int failed[3] = {0};
    (void)state;

    for (int run_of = 0; run_of < 2; run_of++) {
        struct rig_options o = rig_disk_base;

        o.policy = policies[run_of];
        open_pair(&p, &o);
        for (int i = 0; i < 15; i++) {
            const int kind = i % 3;

            assert_int_equal(tier_try_step(&p.good, p.want, p.a), QY_OK);
            qyi_disk_inject(p.bad.cache->far.store, faults[kind], (uint32_t)i % 2);
            enum qy_status st = tier_try_step(&p.bad, p.have, p.b);
            if (st != QY_OK) {
                assert_int_equal(st, expected[kind]);
                assert_non_null(strstr(qy_cache_fault(p.bad.cache), "disk: sequence "));
                assert_non_null(strstr(qy_cache_fault(p.bad.cache), words[kind]));
                failed[kind]++;
                st = tier_try_step(&p.bad, p.have, p.b);
                assert_string_equal(qy_cache_fault(p.bad.cache), "");
            }
            assert_int_equal(st, QY_OK);
            qyi_disk_inject(p.bad.cache->far.store, QYI_DISK_FAULT_NONE, 0);
            assert_memory_equal(p.a, p.b, sizeof(p.a));
        }
        close_pair(&p);
    }
    assert_true(failed[0] > 0 && failed[1] == 0 && failed[2] > 0);
}

/* Every page of the file is changed: whatever is read next is found out. */
static void disk_a_changed_byte_is_found(void **state)
{
    static struct pair p;
    static uint8_t pages[2][QYI_DISK_PAGE] __attribute__((aligned(4096)));
    struct rig_options o = rig_disk_base;
    struct qy_error err = {0};
    (void)state;

    o.policy = "dense";
    open_pair(&p, &o);
    assert_true(p.have[0]->n_down > 0);
    const struct qyi_home_far *d = &p.bad.cache->far;
    uint32_t b = 0;
    while (p.have[0]->homes[b]) {
        b++;
    }
    const off_t at =
        (off_t)(d->slots[p.have[0]->blocks[b]] - 1) * (off_t)p.bad.cache->layout.block_bytes;
    const int fd = qyi_disk_descriptor(d->store);
    assert_int_equal(pread(fd, pages[0], QYI_DISK_PAGE, at), QYI_DISK_PAGE);
    memcpy(pages[1], pages[0], QYI_DISK_PAGE);
    pages[1][77] ^= 4;
    assert_int_equal(pwrite(fd, pages[1], QYI_DISK_PAGE, at), QYI_DISK_PAGE);

    assert_int_equal(tier_try_step(&p.bad, p.have, p.b), QY_ERR_CORRUPT);
    assert_non_null(strstr(qy_cache_fault(p.bad.cache), "not what was written"));
    assert_int_equal(qy_sequence_verify(p.have[0], &err), QY_ERR_CORRUPT);
    assert_non_null(strstr(err.text, "layer 0 KV head 0"));
    rig_verify(p.have[1]);
    const struct rig_feed other = {.seq = p.have[1], .stream = 2, .n = 1};
    assert_int_equal(rig_step(&p.bad, &other, 1), QY_OK);
    const struct rig_feed same = {.seq = p.want[1], .stream = 2, .n = 1};
    assert_int_equal(rig_step(&p.good, &same, 1), QY_OK);

    assert_int_equal(pwrite(fd, pages[0], QYI_DISK_PAGE, at), QYI_DISK_PAGE);
    assert_int_equal(tier_try_step(&p.good, p.want, p.a), QY_OK);
    assert_int_equal(tier_try_step(&p.bad, p.have, p.b), QY_OK);
    assert_memory_equal(p.a, p.b, sizeof(p.a));
    close_pair(&p);
}

/* Writes fail: blocks stay in memory, and go down later. */
static void disk_a_write_that_fails_is_done_later(void **state)
{
    static struct pair p;
    struct rig_options o = rig_disk_base;
    struct qy_cache_stats stats;
    (void)state;

    open_pair(&p, &o);
    for (int i = 0; i < 150; i++) {
        if (i % 10 == 0) {
            qyi_disk_inject(p.bad.cache->far.store,
                            i < 75 ? QYI_DISK_FAULT_WRITE : QYI_DISK_FAULT_NONE, 0);
        }
        assert_int_equal(tier_try_step(&p.good, p.want, p.a), QY_OK);
        assert_int_equal(tier_try_step(&p.bad, p.have, p.b), QY_OK);
        assert_memory_equal(p.a, p.b, sizeof(p.a));
    }
    qy_cache_stats(p.bad.cache, &stats);
    assert_true(stats.disk_failures > 0);
    close_pair(&p);
}

/* The file is full: a step says so with numbers, and goes on when a sequence is closed. */
static void disk_a_full_file_is_said_with_numbers(void **state)
{
    struct rig_options o = rig_on_disk(&rig_disk_base);
    struct qy_sequence *seqs[3];
    const int32_t ids[64] = {0};
    struct qy_error err = {0};
    struct rig rig;
    (void)state;

    o.disk_bytes = 19 * (o.host_bytes / RIG_DISK_FRAMES);
    rig_open(&rig, &o);
    for (int i = 0; i < 3; i++) {
        seqs[i] = rig_sequence(&rig);
    }
    rig_prefill(&rig, seqs[0], 1, 250, 64, NULL); /* 16 of 36 blocks */
    rig_prefill(&rig, seqs[1], 2, 250, 64, NULL);
    struct qy_step_slice slice = {
        .seq = seqs[2], .n_tokens = 64, .ids = ids, .mode = QY_ATTEND_DENSE};
    assert_int_equal(rig_step(&rig, &(struct rig_feed){.seq = seqs[2], .stream = 3, .n = 64}, 1),
                     QY_OK);
    assert_int_equal(qy_step_begin(rig.cache, &slice, 1, &err), QY_AGAIN);
    assert_non_null(strstr(err.text, "cache.disk_bytes"));
    rig_expect_disk_sound(rig.cache);
    assert_int_equal(qy_sequence_copy(seqs[2], seqs[0]), QY_ERR_INVALID);
    qy_sequence_close(seqs[0]);
    rig_prefill(&rig, seqs[2], 3, 64, 64, NULL);
    rig_verify(seqs[1]);
    rig_verify(seqs[2]);
    rig_expect_disk_sound(rig.cache);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disk_a_read_that_fails_fails_one_step),
        cmocka_unit_test(disk_a_changed_byte_is_found),
        cmocka_unit_test(disk_a_write_that_fails_is_done_later),
        cmocka_unit_test(disk_a_full_file_is_said_with_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
