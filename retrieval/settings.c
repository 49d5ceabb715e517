/* SPDX-License-Identifier: Apache-2.0 */
/* The settings of this module. The texts are read by qy_policy_choose and qy_budget_parse. */
#include "retrieval/policies.h"

#define AT(field) offsetof(struct qy_retrieval_settings, field)

const struct qy_setting qy_retrieval_setting_rows[] = {
    /* what every policy knows */
    {
        .name = "retrieval.policy",
        .type = QY_SETTING_TEXT,
        .initial = "dense",
        .unit = "",
        .help =
            "how tokens are chosen: dense (all), window (sinks and window only), a2ats+ (ours), "
            "exact (scores every key), or a published method",
        .offset = AT(policy),
    },
    {
        .name = "retrieval.budget",
        .type = QY_SETTING_TEXT,
        .initial = "auto",
        .unit = "",
        .help =
            "tokens chosen per KV head: auto (the policy's own), 0.05 (share of the context), "
            "2048 (tokens), p0.95:0.10 (attention mass under a cap), or p0.95~4096:0.10 (more of "
            "more than 4096 tokens)",
        .offset = AT(budget),
    },
    {
        .name = "retrieval.preset",
        .type = QY_SETTING_CHOICE,
        .initial = "faithful",
        .choices = "faithful|fast",
        .unit = "",
        .help = "what a2ats+ weighs more: faithful reranks by 4-bit keys, fast takes the first "
                "stage's order",
        .offset = AT(preset),
    },
    {
        .name = "retrieval.dense_layers",
        .type = QY_SETTING_INT,
        .initial = "-1",
        .min = -1,
        .max = 4096,
        .unit = "layers",
        .help = "first layers that attend to every token; -1: the policy's own",
        .offset = AT(dense_layers),
    },
    {
        .name = "retrieval.min_tokens",
        .type = QY_SETTING_INT,
        .initial = "-1",
        .min = -1,
        .max = 1 << 30,
        .unit = "tokens",
        .help =
            "a sequence shorter than this attends to every token; -1: where choosing pays, by a "
            "trial at open (a2ats+; 1024 with step.deterministic), 0 for other policies",
        .offset = AT(min_tokens),
    },
    {
        .name = "retrieval.audit_rate",
        .type = QY_SETTING_REAL,
        .initial = "0",
        .min = 0,
        .max = 1,
        .unit = "",
        .help = "share of the selections that are measured against exact attention; 0: none",
        .offset = AT(audit_rate),
    },
    {
        .name = "retrieval.reuse",
        .type = QY_SETTING_CHOICE,
        .initial = "off",
        .choices = "off|cosine|every",
        .unit = "",
        .help = "whether a choice serves later steps too: every, for retrieval.reuse_every steps; "
                "cosine, while queries look alike, and at most as long; off, each step chooses",
        .offset = AT(reuse),
    },
    {
        .name = "retrieval.reuse_every",
        .type = QY_SETTING_INT,
        .initial = "4",
        .min = 1,
        .max = 256,
        .unit = "steps",
        .help = "the most steps that a choice serves with retrieval.reuse, its own included",
        .offset = AT(reuse_every),
    },
    {
        .name = "retrieval.reuse_cosine",
        .type = QY_SETTING_REAL,
        .initial = "0.9",
        .min = -1,
        .max = 1,
        .unit = "",
        .help =
            "retrieval.reuse = cosine: the least cosine of each query head's query, before RoPE, "
            "with the one that the choice was made for",
        .offset = AT(reuse_cosine),
    },
    {
        .name = "retrieval.reuse_layers",
        .type = QY_SETTING_TEXT,
        .initial = "off",
        .unit = "",
        .help = "layers that take what another one chose in the same step: 4:3,5:3 lets layers 4 "
                "and 5 take layer 3's; off: each chooses",
        .offset = AT(reuse_layers),
    },
    {
        .name = "retrieval.index_at",
        .type = QY_SETTING_CHOICE,
        .initial = "worker",
        .choices = "worker|home",
        .unit = "",
        .help =
            "where index bytes of blocks on memory servers are: worker, on its device, which "
            "scores "
            "them all; home, with their blocks alone, where the servers score them (policies whose "
            "query heads choose for themselves: a2ats, and a2ats+ with retrieval.pooling = union "
            "and retrieval.rerank = off)",
        .offset = AT(index_at),
    },
    /* codebooks */
    {
        .name = "retrieval.codebook",
        .type = QY_SETTING_TEXT,
        .initial = "auto",
        .unit = "",
        .help = "codebook file of a2ats and a2ats+; auto: the one made for the model, where "
                "'quarry calibrate' puts it",
        .offset = AT(codebook),
    },
    {
        .name = "retrieval.auto_calibrate",
        .type = QY_SETTING_BOOL,
        .initial = "on",
        .unit = "",
        .help = "makes the codebook when there is none for the model",
        .offset = AT(auto_calibrate),
    },
    /* token policies */
    {
        .name = "retrieval.first_stage",
        .type = QY_SETTING_CHOICE,
        .initial = "pq",
        .choices = "pq|bands|wrope|keys|exact",
        .unit = "",
        .help = "how a2ats+ scores all tokens: pq (4-bit product codes), bands or wrope (a2ats's "
                "codes at several angles or one), keys (4-bit keys), exact (every key)",
        .offset = AT(first_stage),
    },
    {
        .name = "retrieval.rerank",
        .type = QY_SETTING_CHOICE,
        .initial = "auto",
        .choices = "auto|off|keys|exact",
        .unit = "",
        .help = "how a2ats+ scores the candidates again: keys (4-bit keys), exact (the keys "
                "themselves), off; auto: the preset's",
        .offset = AT(rerank),
    },
    {
        .name = "retrieval.overfetch",
        .type = QY_SETTING_REAL,
        .initial = "0",
        .min = 0,
        .max = 64,
        .unit = "",
        .help = "candidates of a rerank, times the budget; 0: the preset's",
        .offset = AT(overfetch),
    },
    {
        .name = "retrieval.pooling",
        .type = QY_SETTING_CHOICE,
        .initial = "auto",
        .choices = "sum|max|union|auto",
        .unit = "",
        .help = "how the query heads of a group share a budget: sum or max of their attention, "
                "union (each has its own); auto: union for a2ats, sum for all others",
        .offset = AT(pooling),
    },
    {
        .name = "retrieval.estimate",
        .type = QY_SETTING_INT,
        .initial = "0",
        .min = 0,
        .max = 4096,
        .unit = "tokens",
        .help =
            "a2ats+: tokens per query head, drawn by the first stage's scores (pq only), whose "
            "values stand for all that was not chosen: 32 suits the preset fast, a rerank none; "
            "0: nothing does",
        .offset = AT(estimate),
    },
    /* a2ats */
    {
        .name = "retrieval.wrope_window",
        .type = QY_SETTING_INT,
        .initial = "64",
        .min = 0,
        .max = 1 << 20,
        .unit = "tokens",
        .help = "a2ats: tokens nearer than this are attended by their own angle, all others "
                "scored by one; cache.window must cover it",
        .offset = AT(wrope_window),
    },
    {
        .name = "retrieval.wrope_distance",
        .type = QY_SETTING_INT,
        .initial = "2048",
        .min = 0,
        .max = 1 << 20,
        .unit = "tokens",
        .help = "a2ats: the distance at which all far tokens are scored",
        .offset = AT(wrope_distance),
    },
    /* published peers */
    {
        .name = "retrieval.quest_page",
        .type = QY_SETTING_INT,
        .initial = "16",
        .min = 1,
        .max = 4096,
        .unit = "tokens",
        .help = "quest: tokens of a page; a power of two, at most cache.block_tokens",
        .offset = AT(quest_page),
    },
    {
        .name = "retrieval.pq_m",
        .type = QY_SETTING_INT,
        .initial = "2",
        .min = 1,
        .max = 64,
        .unit = "",
        .help = "pq: sub-vectors of a key; divides the head dimension",
        .offset = AT(pq_m),
    },
    {
        .name = "retrieval.pq_bits",
        .type = QY_SETTING_INT,
        .initial = "6",
        .min = 1,
        .max = 8,
        .unit = "bits",
        .help = "pq: size of a sub-vector's code",
        .offset = AT(pq_bits),
    },
    {
        .name = "retrieval.cluster_tokens",
        .type = QY_SETTING_INT,
        .initial = "16",
        .min = 1,
        .max = 4096,
        .unit = "tokens",
        .help = "clusters: mean size of a cluster",
        .offset = AT(cluster_tokens),
    },
    {
        .name = "retrieval.cluster_segment",
        .type = QY_SETTING_INT,
        .initial = "8192",
        .min = 16,
        .max = 1 << 20,
        .unit = "tokens",
        .help = "clusters: tokens that are clustered together",
        .offset = AT(cluster_segment),
    },
    {
        .name = "retrieval.cluster_iterations",
        .type = QY_SETTING_INT,
        .initial = "10",
        .min = 1,
        .max = 1000,
        .unit = "",
        .help = "clusters: rounds of k-means",
        .offset = AT(cluster_iterations),
    },
    {
        .name = "retrieval.cluster_estimated",
        .type = QY_SETTING_REAL,
        .initial = "0.232",
        .min = 0,
        .max = 1,
        .unit = "",
        .help = "clusters: share of the clusters in the estimation zone",
        .offset = AT(cluster_estimated),
    },
};

const size_t qy_retrieval_setting_count =
    sizeof(qy_retrieval_setting_rows) / sizeof(qy_retrieval_setting_rows[0]);

const struct qy_retrieval_settings qyi_retrieval_defaults = {
    .policy = "dense",
    .budget = "auto",
    .preset = QY_PRESET_FAITHFUL,
    .codebook = "auto",
    .auto_calibrate = 1,
    .dense_layers = -1,
    .min_tokens = -1,
    .first_stage = QY_STAGE1_PQ4,
    .rerank = QY_RERANK_AUTO,
    .pooling = QY_POOLED_AUTO,
    .estimate = 0,
    .wrope_window = 64,
    .wrope_distance = 2048,
    .quest_page = 16,
    .pq_m = 2,
    .pq_bits = 6,
    .cluster_tokens = 16,
    .cluster_segment = 8192,
    .cluster_iterations = 10,
    .cluster_estimated = 0.232,
};
