/* SPDX-License-Identifier: Apache-2.0 */
/* quarry doctor: what this machine and this build can do, how ranks reach each other, and what to fix; quarry
 * --version. */
#include <string.h>
#include <sys/utsname.h>

#include "serve/doctor/doctor_ranks.h"
#include "serve/features.h"

void qyi_doctor_line(const struct qyi_doctor *d, const char *what, const char *text)
{
    if (!d->json) {
        printf("%-14s %s\n", what, text);
    }
}

void qyi_doctor_warn(struct qyi_doctor *d, const char *text)
{
    cJSON_AddItemToArray(d->warnings, cJSON_CreateString(text));
}

static void report_cpu(struct qyi_doctor *d, const struct qyi_app *app)
{
    const struct qy_cpu *cpu = &app->rt.cpu;
    char text[256];
    snprintf(text, sizeof text, "%s;%s%s%s%s%s%s%s", cpu->model[0] ? cpu->model : "unknown",
             cpu->avx2 ? " avx2" : "", cpu->fma ? " fma" : "", cpu->f16c ? " f16c" : "",
             cpu->avx512f ? " avx512f" : "", cpu->avx512_vnni ? " vnni" : "",
             cpu->avx512_bf16 ? " avx512_bf16" : "", cpu->amx_bf16 ? " amx_bf16" : "");
    qyi_doctor_line(d, "cpu", text);
    cJSON *item = cJSON_AddObjectToObject(d->root, "cpu");
    cJSON_AddStringToObject(item, "model", cpu->model);
    cJSON_AddBoolToObject(item, "avx2", cpu->avx2);
    cJSON_AddBoolToObject(item, "avx512f", cpu->avx512f);
    cJSON_AddBoolToObject(item, "avx512_bf16", cpu->avx512_bf16);
    cJSON_AddBoolToObject(item, "amx_bf16", cpu->amx_bf16);
    snprintf(text, sizeof text, "%s (best here: %s; QY_CPU chooses)", qy_cpu_level_name(cpu->use),
             qy_cpu_level_name(cpu->best));
    qyi_doctor_line(d, "kernels", text);
    cJSON_AddStringToObject(d->root, "kernels", qy_cpu_level_name(cpu->use));
    if (cpu->use != cpu->best) {
        qyi_doctor_warn(
            d, "slower kernels were chosen than this machine can run; unset QY_CPU or runtime.cpu");
    } else if (cpu->best == QY_CPU_PLAIN) {
        qyi_doctor_warn(d,
                        "no AVX2 with FMA and F16C: kernels run in plain C, several times slower");
    }
}

static void report_cores(struct qyi_doctor *d, const struct qyi_app *app)
{
    struct qy_machine m;
    char text[160];
    qy_topology_describe(app->rt.topology, &m);
    snprintf(text, sizeof text,
             "packages %u, NUMA nodes %u, cores %u, processors %u may be used; "
             "%u threads",
             m.packages, m.nodes, m.cores, m.pus, app->n_threads);
    qyi_doctor_line(d, "cores", text);
    cJSON *item = cJSON_AddObjectToObject(d->root, "cores");
    cJSON_AddNumberToObject(item, "packages", m.packages);
    cJSON_AddNumberToObject(item, "nodes", m.nodes);
    cJSON_AddNumberToObject(item, "cores", m.cores);
    cJSON_AddNumberToObject(item, "processors", m.pus);
    cJSON_AddNumberToObject(item, "threads", app->n_threads);
    if (app->n_threads > m.pus) {
        qyi_doctor_warn(
            d, "more threads than processors: they wait for each other; lower runtime.threads");
    }
}

static void report_memory(struct qyi_doctor *d)
{
    struct qy_memory_info m;
    char text[200], a[32], b[32], c[32];
    qy_memory_read(&m);
    snprintf(text, sizeof text, "%s in all, %s free for use, cgroup limit %s",
             qy_format_size(m.total, a, sizeof a), qy_format_size(m.usable, b, sizeof b),
             m.limit == UINT64_MAX ? "none" : qy_format_size(m.limit, c, sizeof c));
    qyi_doctor_line(d, "memory", text);
    snprintf(text, sizeof text, "transparent huge pages %s",
             m.huge_page_bytes ? qy_format_size(m.huge_page_bytes, a, sizeof a) : "off");
    qyi_doctor_line(d, "huge pages", text);
    qyi_doctor_line(d, "memlock",
                    m.memlock == UINT64_MAX ? "unlimited" : qy_format_size(m.memlock, a, sizeof a));
    snprintf(text, sizeof text, "%s, %s free", qy_format_size(m.shm_total, a, sizeof a),
             qy_format_size(m.shm_free, b, sizeof b));
    qyi_doctor_line(d, "/dev/shm", text);
    cJSON *item = cJSON_AddObjectToObject(d->root, "memory");
    cJSON_AddNumberToObject(item, "total", (double)m.total);
    cJSON_AddNumberToObject(item, "usable", (double)m.usable);
    cJSON_AddNumberToObject(item, "limit", m.limit == UINT64_MAX ? -1 : (double)m.limit);
    cJSON_AddNumberToObject(item, "huge_page_bytes", (double)m.huge_page_bytes);
    cJSON_AddNumberToObject(item, "memlock", m.memlock == UINT64_MAX ? -1 : (double)m.memlock);
    cJSON_AddNumberToObject(item, "shm_free", (double)m.shm_free);
    if (m.huge_page_bytes == 0) {
        qyi_doctor_warn(
            d,
            "transparent huge pages are off: reads of the KV cache miss the TLB more often; "
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
    }
    if (m.memlock != UINT64_MAX && m.memlock < ((uint64_t)1 << 30)) {
        qyi_doctor_warn(
            d,
            "memlock is below 1 GiB: registering memory with a network card or GPU will fail; "
            "raise it (ulimit -l unlimited, or the container's setting)");
    }
    if (m.shm_total > 0 && m.shm_free < ((uint64_t)64 << 20)) {
        qyi_doctor_warn(
            d,
            "/dev/shm has less than 64 MiB free: ranks on one host cannot share memory; enlarge it "
            "(containers: --shm-size)");
    }
}

static void report_libraries(struct qyi_doctor *d)
{
    cJSON *item = cJSON_AddObjectToObject(d->root, "libraries");
    char text[256];
    for (size_t i = 0; i < qyi_feature_count; i++) {
        const struct qyi_feature *f = &qyi_features[i];
        snprintf(text, sizeof text, "%s%s%s", f->found ? f->version : "not in this build",
                 f->found ? "" : ": ", f->found ? "" : f->mend);
        qyi_doctor_line(d, f->name, text);
        if (f->found) {
            cJSON_AddStringToObject(item, f->name, f->version);
        } else {
            cJSON_AddNullToObject(item, f->name);
        }
    }
}

static void report_device(struct qyi_doctor *d, struct qyi_app *app)
{
    /* Room for large products: with less, the device leaves its library out. */
    const struct qy_device_params params = {.spec = app->program.device,
                                            .compute = (enum qy_compute)app->program.compute,
                                            .max_m = 512};
    struct qy_device *dev = NULL;
    struct qy_error err = {0};
    char text[160];
    if (qy_device_open(&app->rt, &params, &dev, &err) != QY_OK) {
        qyi_doctor_line(d, "device", err.text);
        cJSON_AddNullToObject(d->root, "device");
        qyi_doctor_warn(d, err.text);
        return;
    }
    const struct qy_device_caps *caps = qy_device_caps(dev);
    snprintf(text, sizeof text, "%s, dense products by %s", caps->name, caps->dense);
    qyi_doctor_line(d, "device", text);
    cJSON *item = cJSON_AddObjectToObject(d->root, "device");
    cJSON_AddStringToObject(item, "name", caps->name);
    cJSON_AddStringToObject(item, "dense", caps->dense);
    cJSON_AddBoolToObject(item, "unified", caps->unified);
    if (strstr(caps->dense, "plain") != NULL) {
        qyi_doctor_warn(
            d,
            "dense products run in plain C: prefill and batches are many times slower; install "
            "oneDNN (libdnnl-dev) and build again");
    }
    qyi_doctor_selection(d, app, dev);
    qy_device_close(dev);
}

int qyi_cmd_doctor(struct qyi_app *app)
{
    struct qyi_doctor d = {.root = cJSON_CreateObject(), .json = app->args->json};
    struct utsname name;
    char text[256];
    d.warnings = cJSON_CreateArray();
    if (uname(&name) == 0) {
        snprintf(text, sizeof text, "quarry %s on %s %.40s %.40s", QY_VERSION, name.sysname,
                 name.release, name.machine);
        qyi_doctor_line(&d, "program", text);
    }
    report_cpu(&d, app);
    report_cores(&d, app);
    report_memory(&d);
    report_libraries(&d);
    qyi_doctor_network(&d, app);
    report_device(&d, app);
    const int unreached = qyi_doctor_ranks_report(&d, app->doctor);
    if (!d.json) {
        printf("\n%d things to fix\n", cJSON_GetArraySize(d.warnings));
        const cJSON *item = NULL;
        cJSON_ArrayForEach(item, d.warnings)
        {
            printf("  - %s\n", item->valuestring);
        }
    }
    cJSON_AddItemToObject(d.root, "warnings", d.warnings);
    if (d.json) {
        return qyi_print_json(d.root) != 0 || unreached > 0;
    }
    cJSON_Delete(d.root);
    return fflush(stdout) != 0 || unreached > 0;
}

void qyi_print_version(void)
{
    printf("quarry %s\n", QY_VERSION);
    for (size_t i = 0; i < qyi_feature_count; i++) {
        printf("  %-12s %s\n", qyi_features[i].name,
               qyi_features[i].found ? qyi_features[i].version : "no");
    }
}
