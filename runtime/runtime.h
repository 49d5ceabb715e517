/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime: the services every other module stands on. Status and error text, memory (allocator,
 * arena, pool), threads (team), processor features, topology, settings, log, trace, checksum,
 * clock. It knows no block, no device and no network.
 *
 * Conventions of all public headers of Quarry:
 *   - C11 and C++17 can both include them.
 *   - A function returns enum qy_status; out-parameters come last, then err, and are written only
 *     on success. err may be NULL.
 *   - Pointers are *borrowed* (valid during the call) unless the comment says *kept* (the caller
 *     keeps it alive until ...), *given* (the callee frees it) or *returned* (the caller frees it
 *     with ...). A close function accepts NULL.
 *   - Sizes are in bytes, times in nanoseconds, unless the name says otherwise.
 *   - Tags: [any] any thread; [owner] only the thread that owns the object; [setup] not while a
 *     step runs; [alloc] may allocate; [noalloc] never allocates, locks, logs or enters the kernel.
 */
#ifndef QY_RUNTIME_H
#define QY_RUNTIME_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define QY_VERSION "0.1.0"
#define QY_MUST __attribute__((warn_unused_result))
#define QY_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* ---- status ------------------------------------------------------------------------------ */

/* What the caller may do next. 0 done; above 0 not an error; below 0 an error. */
enum qy_status {
    QY_OK = 0,
    QY_PENDING = 1,          /* accepted; the op completes later                       */
    QY_AGAIN = 2,            /* nothing changed; make room or progress, then call again */
    QY_ERR_INVALID = -1,     /* the caller broke the documented contract                */
    QY_ERR_CONFIG = -2,      /* a setting, flag or environment variable is wrong        */
    QY_ERR_NOMEM = -3,       /* memory, or an arena or pool that was reserved, is full  */
    QY_ERR_UNSUPPORTED = -4, /* this build, file or machine has no such thing           */
    QY_ERR_NOT_FOUND = -5,   /* a file, key or object is not there                      */
    QY_ERR_TIMEOUT = -6,
    QY_ERR_PEER = -7,
    QY_ERR_DEVICE = -8,
    QY_ERR_CORRUPT = -9 /* bytes that are not what they must be                    */
};

/* Cause in words; lives on the caller's stack. Form of the text:
 * "what 'name': value refused; what is accepted; what to do". */
struct qy_error {
    enum qy_status status;
    char text[480];
};

/* Name of a status, such as "QY_ERR_NOMEM". [any] [noalloc] */
const char *qy_status_name(enum qy_status status);

/* Writes status and text into err (NULL: nothing) and returns status. [any] */
enum qy_status qy_error_set(struct qy_error *err, enum qy_status status, const char *format, ...)
    QY_PRINTF(3, 4);

/* Puts "prefix: " before the text that is already in err; returns err's status. [any] */
enum qy_status qy_error_wrap(struct qy_error *err, enum qy_status status, const char *format, ...)
    QY_PRINTF(3, 4);

/* ---- memory ------------------------------------------------------------------------------ */

/* Where setup gets memory. alloc returns NULL when there is none; align is a power of two. */
struct qy_allocator {
    void *ctx;
    void *(*alloc)(void *ctx, size_t bytes, size_t align);
    void (*free)(void *ctx, void *ptr); /* accepts NULL */
};

/* The C library's heap. [any] */
struct qy_allocator qy_allocator_system(void);

/* bytes of zeroed memory, 64-byte aligned; NULL when there is none. [setup] [alloc] */
void *qy_alloc_zero(const struct qy_allocator *mem, size_t bytes);
void qy_free(const struct qy_allocator *mem, void *ptr);

/* Bump allocation over memory reserved at setup. A plain value; one owner. */
struct qy_arena {
    uint8_t *base; /* borrowed from whoever reserved it */
    size_t bytes, used, high_water;
};

void qy_arena_init(struct qy_arena *arena, void *base, size_t bytes);
/* NULL when bytes (rounded to align, a power of two) do not fit. [owner] [noalloc] */
void *qy_arena_take(struct qy_arena *arena, size_t bytes, size_t align);
size_t qy_arena_mark(const struct qy_arena *arena);
void qy_arena_rewind(struct qy_arena *arena, size_t mark);

/* Fixed-size blocks in one mapping (huge pages where the kernel gives them, kept out of core
 * dumps, on one NUMA node), handed out by an index stack. */
struct qy_pool;

struct qy_pool_params {
    size_t block_bytes; /* rounded up to 64                                          */
    uint32_t n_blocks;
    int node;                     /* NUMA node (OS index) by qy_topology, -1 = wherever          */
    struct qy_topology *topology; /* kept until close; NULL: no binding                */
};

/* QY_ERR_NOMEM when the mapping is refused. Pages are touched only when used. [setup] [alloc] */
QY_MUST enum qy_status qy_pool_open(const struct qy_allocator *mem,
                                    const struct qy_pool_params *params, struct qy_pool **pool,
                                    struct qy_error *err);
void qy_pool_close(struct qy_pool *pool);
/* Takes a free block. QY_AGAIN: none is free. [owner] [noalloc] */
QY_MUST enum qy_status qy_pool_get(struct qy_pool *pool, uint32_t *block);
/* Gives a block back. zero != 0: its bytes are cleared before anyone else can get it. [owner] */
void qy_pool_put(struct qy_pool *pool, uint32_t block, int zero);
void *qy_pool_at(const struct qy_pool *pool, uint32_t block);
uint32_t qy_pool_free_count(const struct qy_pool *pool);
uint32_t qy_pool_peak(const struct qy_pool *pool); /* blocks that were out at once, at the most */
uint32_t qy_pool_total(const struct qy_pool *pool);
size_t qy_pool_block_bytes(const struct qy_pool *pool);

/* Memory that this process may use. */
struct qy_memory_info {
    uint64_t total, available;    /* of the machine                                */
    uint64_t limit;               /* of the cgroup (v1 or v2); UINT64_MAX = none    */
    uint64_t limit_used;          /* used under that limit, page cache not counted */
    uint64_t usable;              /* what may still be taken: the smaller of both   */
    uint64_t huge_page_bytes;     /* size of a transparent huge page; 0 = off        */
    uint64_t memlock;             /* RLIMIT_MEMLOCK; UINT64_MAX = unlimited         */
    uint64_t shm_total, shm_free; /* /dev/shm                                      */
};
void qy_memory_read(struct qy_memory_info *out);

/* ---- clock and checksum --------------------------------------------------------------------- */

uint64_t qy_clock_ns(void); /* monotonic */

/* XXH3 (64 bit) of bytes, seeded: the chain hash passes the previous value as seed. [any] [noalloc] */
uint64_t qy_checksum(const void *data, size_t bytes, uint64_t seed);

/* ---- processor --------------------------------------------------------------------------- */

/* Kernel sets, each needing all of the one before. */
enum qy_cpu_level { QY_CPU_PLAIN = 0, QY_CPU_AVX2 = 1, QY_CPU_AVX512 = 2 };

struct qy_cpu {
    enum qy_cpu_level best; /* of this machine (and OS: xgetbv is asked)               */
    enum qy_cpu_level use;  /* chosen: best, or less by runtime.cpu                     */
    int avx2, fma, f16c, avx512f, avx512bw, avx512vl, avx512dq, avx512_bf16, avx512_vnni, amx_bf16;
    char model[64];
};

void qy_cpu_detect(struct qy_cpu *cpu);
const char *qy_cpu_level_name(enum qy_cpu_level level); /* "plain", "avx2", "avx512" */
/* Lowers cpu->use to the named set ("auto" keeps best). QY_ERR_UNSUPPORTED: the machine lacks it. */
QY_MUST enum qy_status qy_cpu_choose(struct qy_cpu *cpu, const char *name, struct qy_error *err);

/* ---- topology ------------------------------------------------------------------------------ */

struct qy_topology;

enum qy_bind { QY_BIND_CORE = 0, QY_BIND_NUMA = 1, QY_BIND_NONE = 2 };

struct qy_machine {
    uint32_t packages, nodes, cores, pus; /* that this process may use                 */
};

/* Where one worker thread goes. */
struct qy_place {
    int pu;   /* OS index of the processing unit; -1 = not bound to one                 */
    int node; /* OS index of its NUMA node; -1 = none known                             */
};

/* source: NULL this machine (the process's cpuset and cgroup honoured), "synthetic:<hwloc text>",
 * or "xml:<path>" (tests). [setup] [alloc] */
QY_MUST enum qy_status qy_topology_open(const struct qy_allocator *mem, const char *source,
                                        struct qy_topology **topology, struct qy_error *err);
void qy_topology_close(struct qy_topology *topology);
void qy_topology_describe(const struct qy_topology *topology, struct qy_machine *machine);
/* Pure: places n_threads threads, one core each before any second SMT thread, filling one NUMA
 * node after the other, wrapping round when there are more threads than processors. places [n].
 * QY_BIND_NUMA sets only node, QY_BIND_NONE neither. */
void qy_topology_place(const struct qy_topology *topology, uint32_t n_threads, enum qy_bind bind,
                       struct qy_place *places);
/* Binds the calling thread; a refusal (container) is returned, not fatal. */
QY_MUST enum qy_status qy_topology_bind_thread(struct qy_topology *topology,
                                               const struct qy_place *place);
QY_MUST enum qy_status qy_topology_bind_memory(struct qy_topology *topology, void *ptr,
                                               size_t bytes, int node);

/* ---- team ---------------------------------------------------------------------------------- */

/* A fixed set of threads that run one function together; the caller is thread 0. Between runs
 * the others spin for a short while and then sleep on a futex. */
struct qy_team;

struct qy_team_params {
    uint32_t n_threads;            /* 1..256, the caller included                          */
    const struct qy_place *places; /* [n_threads], or NULL: not bound. places[0] is for the
                                      caller and is applied to it                         */
    struct qy_topology *topology;  /* kept until close; may be NULL when places is          */
    uint32_t spin_us;              /* before sleeping; 0 = sleep at once                    */
};

typedef void (*qy_team_fn)(void *arg, uint32_t thread, uint32_t n_threads);

QY_MUST enum qy_status qy_team_open(const struct qy_allocator *mem,
                                    const struct qy_team_params *params, struct qy_team **team,
                                    struct qy_error *err);
void qy_team_close(struct qy_team *team);
uint32_t qy_team_size(const struct qy_team *team); /* NULL: 1 */
/* Runs fn on every thread and returns when all are done. team NULL: runs on the caller alone.
 * Not re-entrant. [owner] [noalloc] (may sleep in a futex) */
void qy_team_run(struct qy_team *team, qy_team_fn fn, void *arg);
/* Inside a running fn: waits until every thread of the team is here. */
void qy_team_barrier(struct qy_team *team);
/* The static share of thread in [0, n): begin <= i < end. */
static inline void qy_team_range(size_t n, uint32_t thread, uint32_t n_threads, size_t *begin,
                                 size_t *end)
{
    *begin = n * thread / n_threads;
    *end = n * (thread + (size_t)1) / n_threads;
}

/* ---- log ----------------------------------------------------------------------------------- */

enum qy_log_level { QY_LOG_ERROR, QY_LOG_WARN, QY_LOG_INFO, QY_LOG_DEBUG, QY_LOG_TRACE };

/* A sink: the program decides where lines go. A plain value. */
struct qy_log {
    void *ctx;
    void (*write)(void *ctx, enum qy_log_level level, const char *module, const char *text);
    enum qy_log_level level; /* of modules that `modules` does not name                    */
    const char *modules;     /* "net=debug,gpu=warn" or NULL; kept                        */
};

/* stderr, "quarry <module>: <level>: text". */
struct qy_log qy_log_stderr(enum qy_log_level level);
/* Reads "info,net=debug" into level and modules (which points into text: kept). */
QY_MUST enum qy_status qy_log_parse(const char *text, struct qy_log *log, struct qy_error *err);
void qy_log_write(const struct qy_log *log, enum qy_log_level level, const char *module,
                  const char *format, ...) QY_PRINTF(4, 5);

/* ---- trace --------------------------------------------------------------------------------- */

/* Rings of spans, one per lane, written as a Chrome/Perfetto JSON file. */
struct qy_trace;
/* What has one writer at a time: a thread, a stream, a micro-batch. */
struct qy_trace_lane;
/* Lanes of one group stand together. */
enum qy_trace_group {
    QY_TRACE_STEPS,
    QY_TRACE_THREADS,
    QY_TRACE_MICRO_BATCHES,
    QY_TRACE_STREAMS,
    QY_TRACE_LINKS
};
enum { QY_TRACE_VALUES = 10 }; /* of a span, at most */

/* Lanes of n_threads threads; others are opened as they are needed. [setup] [alloc] */
QY_MUST enum qy_status qy_trace_open(const struct qy_allocator *mem, uint32_t n_threads,
                                     uint32_t records_per_lane, struct qy_trace **trace,
                                     struct qy_error *err);
void qy_trace_close(struct qy_trace *trace);
/* NULL: the trace is NULL, or has no such thread. */
struct qy_trace_lane *qy_trace_thread(const struct qy_trace *trace, uint32_t thread);
/* A lane for one writer until qy_trace_lane_close; what it recorded stays, and who opens the same
 * name after that goes on with it. name is copied. trace NULL: *lane = NULL. [setup] [alloc] */
QY_MUST enum qy_status qy_trace_lane_open(struct qy_trace *trace, enum qy_trace_group group,
                                          const char *name, struct qy_trace_lane **lane,
                                          struct qy_error *err);
void qy_trace_lane_close(struct qy_trace_lane *lane); /* NULL is accepted */
/* One finished span. name and keys are literals (kept); keys, NULL after the last, name the values;
 * keys NULL: there are none. lane NULL: nothing. The ring keeps the newest records. Spans of a lane
 * lie beside or inside each other. [the lane's writer] [noalloc] */
void qy_trace_span(struct qy_trace_lane *lane, const char *name, uint64_t begin_ns, uint64_t end_ns,
                   const char *const *keys, const double *values);
/* For a moment when nobody records. [setup] [alloc] */
QY_MUST enum qy_status qy_trace_write(const struct qy_trace *trace, const char *path,
                                      struct qy_error *err);

/* ---- the bundle ---------------------------------------------------------------------------- */

/* What most objects need. Kept by them: it outlives everything opened with it. */
struct qy_runtime {
    struct qy_allocator mem;
    struct qy_log log;
    struct qy_cpu cpu;
    struct qy_topology *topology; /* may be NULL                                          */
    struct qy_team *team;         /* may be NULL: one thread                               */
    struct qy_trace *trace;       /* may be NULL                                          */
};

/* ---- settings ------------------------------------------------------------------------------ */

enum qy_setting_type {
    QY_SETTING_BOOL,  /* int: 0 or 1; text on | off                                      */
    QY_SETTING_INT,   /* int64_t                                                         */
    QY_SETTING_SIZE,  /* uint64_t bytes; K, M, G, T (1024); "auto" = 0 where allow_auto    */
    QY_SETTING_REAL,  /* double                                                          */
    QY_SETTING_TEXT,  /* char[QY_SETTING_TEXT_BYTES]                                      */
    QY_SETTING_CHOICE /* int: place in `choices`                                         */
};
enum { QY_SETTING_TEXT_BYTES = 256 };

/* One row: the parser, the check and the help text in one. */
struct qy_setting {
    const char *name; /* "cache.block_tokens"                                          */
    enum qy_setting_type type;
    int allow_auto;      /* INT, SIZE: the text "auto" is taken and stored as 0              */
    const char *initial; /* default, as text; parsed like user input                       */
    double min, max;     /* INT, SIZE, REAL: the closed range (auto aside)                   */
    const char *unit;    /* "tokens", "bytes", or ""                                      */
    const char *choices; /* CHOICE: "core|numa|none"                                      */
    const char *env;     /* an environment variable beside QY_SECTION_NAME, or NULL          */
    const char *help;    /* one sentence                                                  */
    size_t offset;       /* in the module's struct                                        */
};

/* A module's settings: its table and the struct they fill (kept until the config closes). */
struct qy_setting_table {
    const struct qy_setting *rows;
    size_t n_rows;
    void *values;
};

/* Later sources win, whatever the order of the calls. */
enum qy_source { QY_SOURCE_DEFAULT, QY_SOURCE_FILE, QY_SOURCE_ENV, QY_SOURCE_COMMAND };

struct qy_config;

/* Fills every struct with its defaults. [setup] [alloc] */
QY_MUST enum qy_status qy_config_open(const struct qy_allocator *mem,
                                      const struct qy_setting_table *tables, size_t n_tables,
                                      struct qy_config **config, struct qy_error *err);
void qy_config_close(struct qy_config *config);
/* `section.name = value` lines or [section] headers; '#' and ';' comments. An unknown key or a bad
 * value is QY_ERR_CONFIG with file, line and the nearest key. */
QY_MUST enum qy_status qy_config_read_file(struct qy_config *config, const char *path,
                                           struct qy_error *err);
/* Reads QY_SECTION_NAME (and each row's env). An unknown QY_* variable is an error too. The only
 * place of the libraries that reads the environment. */
QY_MUST enum qy_status qy_config_read_env(struct qy_config *config, struct qy_error *err);
/* "section.name=value" from the command line; where names the flag in errors ("--set"). */
QY_MUST enum qy_status qy_config_set(struct qy_config *config, const char *assignment,
                                     const char *where, struct qy_error *err);
QY_MUST enum qy_status qy_config_set_value(struct qy_config *config, const char *name,
                                           const char *value, const char *where,
                                           struct qy_error *err);

struct qy_config_row {
    const struct qy_setting *setting;
    char value[QY_SETTING_TEXT_BYTES];  /* as it would be written                         */
    char source[QY_SETTING_TEXT_BYTES]; /* "default", "file x.conf:3", "QY_...", "--set"    */
};
/* Row i in table order; 0 when i is past the end. */
int qy_config_row_at(const struct qy_config *config, size_t i, struct qy_config_row *row);
/* Hash of all effective values, in table order. */
uint64_t qy_config_hash(const struct qy_config *config);

/* "64K" -> 65536. 0 on success, -1 when the text is no size. [any] [noalloc] */
int qy_parse_size(const char *text, uint64_t *bytes);
/* 6291456 -> "6.0 MiB" into out. Returns out. */
char *qy_format_size(uint64_t bytes, char *out, size_t out_bytes);
/* The candidate nearest to word by edit distance, or NULL when none is near. */
const char *qy_nearest(const char *word, const char *const *candidates, size_t n);

/* Settings of this module: runtime.threads, runtime.bind, runtime.spin_us, runtime.cpu (QY_CPU),
 * runtime.log (QY_LOG). */
struct qy_runtime_settings {
    int64_t threads; /* 0 = one per core this process may use */
    int bind;        /* enum qy_bind                          */
    int64_t spin_us;
    int cpu; /* place in "auto|avx512|avx2|plain"      */
    char log[QY_SETTING_TEXT_BYTES];
};
extern const struct qy_setting qy_runtime_setting_rows[];
extern const size_t qy_runtime_setting_count;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
