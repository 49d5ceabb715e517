/* SPDX-License-Identifier: Apache-2.0 */
/* See rig_disk.h. */
#include "tests/unit/offload/rig_disk.h"
#include "tests/unit/offload/tier_rig.h"

#include "offload/cache.h"

struct rig_options rig_on_disk(const struct rig_options *options)
{
    struct rig_options o = *options;
    struct rig rig;

    o.device = "host-discrete:64M";
    o.disk_bytes = 16 << 20;
    rig_open(&rig, &o); /* without host_bytes: in memory, to learn how large blocks are */
    o.host_bytes = (qyi_home_far_least(rig.cache) + 1) * rig.cache->layout.block_bytes;
    assert_null(rig.cache->far.store);
    rig_close(&rig);
    o.device_bytes = tier_least_bytes(&o);
    return o;
}

void rig_verify(const struct qy_sequence *seq)
{
    struct qy_error err = {0};

    if (qy_sequence_verify(seq, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
}

enum { OUT = RIG_LAYERS * RIG_OUT };

size_t rig_disk_run(struct rig *rig, float *out)
{
    struct qy_sequence *seqs[3] = {rig_sequence(rig), rig_sequence(rig), rig_sequence(rig)};
    float *at = out;

    rig_prefill(rig, seqs[0], 1, RIG_DISK_PREFILL, 64, at);
    at += (size_t)RIG_DISK_PREFILL * RIG_OUT;
    rig_prefill(rig, seqs[1], 2, 37, 64, at);
    at += (size_t)37 * RIG_OUT;
    tier_decode(rig, seqs, 1, RIG_DISK_DECODE, at);
    at += (size_t)2 * RIG_DISK_DECODE * OUT;
    rig_verify(seqs[0]);

    assert_int_equal(qy_sequence_truncate(seqs[0], 377), QY_OK);
    tier_decode(rig, seqs, 3, 10, at);
    at += (size_t)20 * OUT;
    assert_int_equal(qy_sequence_truncate(seqs[0], 85), QY_OK); /* in a block that is on the disk */
    rig_verify(seqs[0]);
    tier_decode(rig, seqs, 5, 10, at);
    at += (size_t)20 * OUT;

    assert_int_equal(qy_sequence_copy(seqs[2], seqs[0]), QY_OK);
    rig_verify(seqs[2]);
    qy_sequence_close(seqs[0]);
    seqs[0] = seqs[2];
    const struct rig_feed mixed[2] = {{.seq = seqs[0], .stream = 1, .n = 1, .out = at},
                                      {.seq = seqs[1], .stream = 2, .n = 50, .out = at + OUT}};
    assert_int_equal(rig_step(rig, mixed, 2), QY_OK);
    at += (size_t)51 * OUT;
    seqs[2] = rig_sequence(rig);
    assert_int_equal(qy_sequence_fill_random(seqs[2], 336, 4), QY_OK);
    const struct rig_feed last = {.seq = seqs[2], .stream = 1, .n = 40, .out = at};
    assert_int_equal(rig_step(rig, &last, 1), QY_OK);
    at += (size_t)40 * OUT;
    tier_decode(rig, seqs + 1, 7, 10, at);
    at += (size_t)20 * OUT;
    for (int i = 0; i < 3; i++) {
        rig_verify(seqs[i]);
    }
    return (size_t)(at - out);
}

void rig_disk_reference(const struct rig_options *options, float *out)
{
    struct rig_options o = *options;
    struct rig rig;

    if (o.home_codec) { /* unified devices code no rows; and what is kept on the device is not coded */
        o = rig_on_disk(options);
        o.host_bytes = 0;
        o.disk_bytes = 0;
    }
    rig_open(&rig, &o);
    assert_int_equal(rig_disk_run(&rig, out), RIG_DISK_FLOATS);
    rig_close(&rig);
}

void rig_expect_disk_sound(const struct qy_cache *cache)
{
    const struct qyi_home_far *d = &cache->far;
    uint32_t frames = 0;
    uint32_t slots = 0;
    uint32_t ids = 0;

    for (uint32_t i = 0; i < cache->params.max_sequences; i++) {
        const struct qy_sequence *seq = &cache->sequences[i];
        uint32_t down = 0;

        for (uint32_t b = 0; b < seq->n_blocks; b++) {
            down += seq->homes[b] == NULL;
            assert_true((seq->homes[b] == NULL) == (d->slots[seq->blocks[b]] != 0));
        }
        assert_int_equal(down, seq->n_down);
        slots += down;
        ids += seq->n_blocks;
        frames += seq->n_blocks - down;
    }
    for (uint32_t i = 0; i < QYI_FAR_WRITES; i++) {
        slots += d->writes[i].busy != 0;
        frames += d->writes[i].busy && d->writes[i].frame != QYI_NO_FRAME;
    }
    assert_int_equal(ids, cache->home.n_ids - cache->home.n_free_ids);
    assert_int_equal(frames,
                     qy_pool_total(cache->home.pool) - qy_pool_free_count(cache->home.pool));
    assert_int_equal(slots, d->n_slots - d->n_free);
}
