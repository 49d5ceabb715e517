/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk file's engines: what is written is what is read, by many requests at once; faults; time
 * limits; a file that nobody else can read and that is gone afterwards. Every case runs with each
 * engine that this system allows.
 */
#include "tests/support/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/disk/disk.h"
#include "tests/support/fail_alloc.h"

enum { PAGES = 1024, N_MANY = 300, SECOND = 1000000000 };

struct fixture {
    struct qy_runtime rt;
    char folder[64];
    enum qyi_disk_choice engine;
    struct qyi_store *store;
    uint8_t *memory; /* [PAGES] */
};

static int has_uring; /* of this system; set by main */

static void open_disk(struct fixture *f, enum qyi_disk_choice engine)
{
    const struct qyi_disk_params params = {.rt = &f->rt,
                                           .folder = f->folder,
                                           .bytes = (uint64_t)PAGES * QYI_DISK_PAGE,
                                           .engine = engine};
    struct qy_error err = {0};
    struct qyi_store_stats stats;

    f->engine = engine;
    if (qyi_disk_open(&params, &f->store, &err) != QY_OK) {
        fail_msg("%s", err.text);
    }
    stats = *qyi_store_stats(f->store);
    assert_int_equal(stats.uring, engine == QYI_DISK_URING);
    assert_int_equal(stats.reads, 0);
}

static int n_files(const char *folder)
{
    DIR *dir = opendir(folder);
    int n = 0;

    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(dir);
    return n;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->rt.mem = qy_allocator_system();
    f->rt.log.level = QY_LOG_ERROR;
    strcpy(f->folder, "/var/tmp/quarry-test-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    f->memory = f->rt.mem.alloc(NULL, (size_t)PAGES * QYI_DISK_PAGE, QYI_DISK_PAGE);
    assert_non_null(f->memory);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    qyi_store_close(f->store);
    assert_int_equal(n_files(f->folder), 0);
    rmdir(f->folder);
    qy_free(&f->rt.mem, f->memory);
    free(f);
    return 0;
}

/* The byte at `at` of generation `seed`. */
static uint8_t byte_of(size_t at, uint32_t seed)
{
    return (uint8_t)((at * 2654435761u) >> 13) ^ (uint8_t)(at >> 12) ^ (uint8_t)seed;
}

static void fill(uint8_t *to, size_t at, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = byte_of(at + i, seed);
    }
}

static struct qyi_store_request request(struct fixture *f, enum qyi_store_op op, uint32_t page,
                                        uint32_t n)
{
    return (struct qyi_store_request){.op = op,
                                      .at = (uint64_t)page * QYI_DISK_PAGE,
                                      .data = f->memory + (size_t)page * QYI_DISK_PAGE,
                                      .bytes = (size_t)n * QYI_DISK_PAGE};
}

static enum qy_status run(struct fixture *f, struct qyi_store_request *requests, uint32_t n)
{
    struct qyi_store_batch batch = {.requests = requests, .n = n};

    assert_int_equal(qyi_store_submit(f->store, &batch), QY_OK);
    const enum qy_status st = qyi_store_wait(f->store, &batch, (uint64_t)60 * SECOND);
    assert_int_equal(batch.n_left, 0);
    assert_int_equal(batch.failed, st != QY_OK);
    return st;
}

static void expect_pages(struct fixture *f, uint32_t page, uint32_t n, uint32_t seed)
{
    const size_t at = (size_t)page * QYI_DISK_PAGE;

    for (size_t i = 0; i < (size_t)n * QYI_DISK_PAGE; i++) {
        if (f->memory[at + i] != byte_of(at + i, seed)) {
            fail_msg("byte %zu of page %u differs", i, page);
        }
    }
}

static void many_requests(struct fixture *f)
{
    struct qyi_store_request *requests = calloc(N_MANY, sizeof(*requests));
    struct qyi_store_stats stats;

    assert_non_null(requests);
    fill(f->memory, 0, (size_t)PAGES * QYI_DISK_PAGE, 1);
    for (uint32_t i = 0; i < N_MANY; i++) { /* of 1, 2, 3 pages, in an order of their own */
        requests[i] = request(f, QYI_STORE_WRITE, i * 7 % N_MANY * 3, i % 3 + 1);
    }
    assert_int_equal(run(f, requests, N_MANY), QY_OK);
    memset(f->memory, 0, (size_t)PAGES * QYI_DISK_PAGE);
    for (uint32_t i = 0; i < N_MANY; i++) {
        requests[i] = request(f, QYI_STORE_READ, i * 7 % N_MANY * 3, i % 3 + 1);
    }
    assert_int_equal(run(f, requests, N_MANY), QY_OK);
    for (uint32_t i = 0; i < N_MANY; i++) {
        expect_pages(f, i * 7 % N_MANY * 3, i % 3 + 1, 1);
    }
    stats = *qyi_store_stats(f->store);
    assert_int_equal(stats.reads, N_MANY);
    assert_int_equal(stats.writes, N_MANY);
    assert_int_equal(stats.read_bytes, stats.written_bytes);
    assert_int_equal(stats.read_bytes, (uint64_t)N_MANY * 2 * QYI_DISK_PAGE);
    assert_int_equal(stats.failures, 0);
    free(requests);
}

/* Two batches under way: the later one may be waited for first. */
static void two_batches(struct fixture *f)
{
    struct qyi_store_request a[2] = {request(f, QYI_STORE_WRITE, 0, 4),
                                     request(f, QYI_STORE_WRITE, 8, 4)};
    struct qyi_store_request b[1] = {request(f, QYI_STORE_WRITE, 16, 4)};
    struct qyi_store_batch first = {.requests = a, .n = 2};
    struct qyi_store_batch second = {.requests = b, .n = 1};

    assert_int_equal(qyi_store_submit(f->store, &first), QY_OK);
    assert_int_equal(qyi_store_submit(f->store, &second), QY_OK);
    assert_int_equal(qyi_store_wait(f->store, &second, (uint64_t)60 * SECOND), QY_OK);
    assert_int_equal(qyi_store_wait(f->store, &first, (uint64_t)60 * SECOND), QY_OK);
}

static void faults(struct fixture *f)
{
    struct qyi_store_request requests[3];
    struct qyi_store_stats stats;

    fill(f->memory, 0, (size_t)64 * QYI_DISK_PAGE, 2);
    for (uint32_t i = 0; i < 3; i++) {
        requests[i] = request(f, QYI_STORE_WRITE, i * 8, 5);
    }
    qyi_disk_inject(f->store, QYI_DISK_FAULT_WRITE, 1);
    assert_int_equal(run(f, requests, 3), QY_ERR_DEVICE);
    assert_int_equal(requests[0].error, 0);
    assert_int_equal(requests[1].error, ENOSPC);
    assert_int_equal(requests[1].batch->first_bad, 1);
    qyi_disk_inject(f->store, QYI_DISK_FAULT_SHORT, 2);
    assert_int_equal(run(f, requests, 3), QY_OK);

    memset(f->memory, 0, (size_t)64 * QYI_DISK_PAGE);
    for (uint32_t i = 0; i < 3; i++) {
        requests[i].op = QYI_STORE_READ;
    }
    qyi_disk_inject(f->store, QYI_DISK_FAULT_READ, 2);
    assert_int_equal(run(f, requests, 3), QY_ERR_DEVICE);
    assert_int_equal(requests[2].error, EIO);
    qyi_disk_inject(f->store, QYI_DISK_FAULT_SHORT, 0);
    assert_int_equal(run(f, requests, 3), QY_OK);
    for (uint32_t i = 0; i < 3; i++) {
        expect_pages(f, i * 8, 5, 2);
    }
    stats = *qyi_store_stats(f->store);
    assert_int_equal(stats.failures, 2);
}

static void stalls(struct fixture *f)
{
    struct qyi_store_request requests[2] = {request(f, QYI_STORE_READ, 0, 1),
                                            request(f, QYI_STORE_READ, 4, 1)};
    struct qyi_store_batch batch = {.requests = requests, .n = 2};

    qyi_disk_inject(f->store, QYI_DISK_FAULT_STALL, 1);
    assert_int_equal(qyi_store_submit(f->store, &batch), QY_OK);
    assert_int_equal(qyi_store_wait(f->store, &batch, SECOND / 50), QY_ERR_TIMEOUT);
    assert_int_equal(batch.n_left, 1);
    assert_int_equal(qyi_store_reset(f->store, (uint64_t)60 * SECOND), QY_OK);
    assert_int_equal(batch.n_left, 0);
    assert_int_equal(requests[0].error, 0);
    assert_int_equal(requests[1].error, ECANCELED);
    assert_int_equal(run(f, requests, 2), QY_OK);
}

static void refuses(struct fixture *f)
{
    const struct qyi_store_request good = request(f, QYI_STORE_READ, PAGES - 1, 1);
    struct qyi_store_request bad[5];

    for (int i = 0; i < 5; i++) {
        bad[i] = good;
    }
    bad[0].at += 512;
    bad[1].bytes = 100;
    bad[2].bytes = 0;
    bad[3].bytes = (size_t)2 * QYI_DISK_PAGE; /* beyond the end */
    bad[4].data = f->memory + 64;
    for (int i = 0; i < 5; i++) {
        struct qyi_store_batch batch = {.requests = &bad[i], .n = 1};

        assert_int_equal(qyi_store_submit(f->store, &batch), QY_ERR_INVALID);
    }
    bad[0] = good;
    assert_int_equal(run(f, bad, 1), QY_OK);
}

static void file_is_private(struct fixture *f)
{
    struct stat st;

    assert_int_equal(fstat(qyi_disk_descriptor(f->store), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_nlink, 0);
    assert_true(st.st_size == PAGES * QYI_DISK_PAGE && st.st_blocks * 512 >= st.st_size);
    assert_true(fcntl(qyi_disk_descriptor(f->store), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(n_files(f->folder), 0);
}

static void with_each_engine(struct fixture *f, void (*run_case)(struct fixture *))
{
    open_disk(f, QYI_DISK_THREADS);
    run_case(f);
    if (has_uring) {
        qyi_store_close(f->store);
        f->store = NULL;
        open_disk(f, QYI_DISK_URING);
        run_case(f);
    }
}

static void disk_many_requests_read_what_was_written(void **state)
{
    with_each_engine(*state, many_requests);
}

static void disk_two_batches_are_under_way_at_once(void **state)
{
    with_each_engine(*state, two_batches);
}

static void disk_faults_name_the_request(void **state)
{
    with_each_engine(*state, faults);
}

static void disk_a_stall_ends_at_its_deadline(void **state)
{
    with_each_engine(*state, stalls);
}

static void disk_what_is_not_in_pages_is_refused(void **state)
{
    with_each_engine(*state, refuses);
}

static void disk_its_file_is_private_and_nameless(void **state)
{
    with_each_engine(*state, file_is_private);
}

static void disk_open_says_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    struct qyi_disk_params params = {.rt = &f->rt, .folder = "/proc/self", .bytes = 1 << 20};
    struct qy_error err = {0};

    assert_int_equal(qyi_disk_open(&params, &f->store, &err), QY_ERR_CONFIG);
    assert_non_null(strstr(err.text, "cache.disk_path '/proc/self'"));
    params.folder = f->folder;
    params.bytes = (uint64_t)1 << 60; /* no disk has it */
    assert_int_equal(qyi_disk_open(&params, &f->store, &err), QY_ERR_NOMEM);
    assert_non_null(strstr(err.text, "cache.disk_bytes"));
    assert_int_equal(n_files(f->folder), 0);
}

static void disk_open_survives_every_failed_allocation(void **state)
{
    struct fixture *f = *state;

    for (int engine = QYI_DISK_AUTO; engine <= QYI_DISK_THREADS; engine++) {
        if (engine == QYI_DISK_URING && !has_uring) {
            continue;
        }
        for (long n = 0;; n++) {
            struct fail_alloc fail = {.fail_at = n};
            struct qy_runtime rt = {.mem = fail_alloc_make(&fail), .log = {.level = QY_LOG_ERROR}};
            const struct qyi_disk_params params = {.rt = &rt,
                                                   .folder = f->folder,
                                                   .bytes = (uint64_t)4 * QYI_DISK_PAGE,
                                                   .engine = (enum qyi_disk_choice)engine};
            struct qyi_store *disk = NULL;
            const enum qy_status st = qyi_disk_open(&params, &disk, NULL);

            if (st == QY_OK) {
                qyi_store_close(disk);
            }
            assert_int_equal(fail.live, 0);
            if (fail.calls <= n) {
                assert_int_equal(st, QY_OK);
                break;
            }
        }
    }
}

static int look_for_uring(void)
{
    const struct qy_runtime rt = {.mem = qy_allocator_system(), .log = {.level = QY_LOG_ERROR}};
    const struct qyi_disk_params params = {
        .rt = &rt, .folder = "/var/tmp", .bytes = QYI_DISK_PAGE, .engine = QYI_DISK_URING};
    struct qyi_store *disk = NULL;
    struct qy_error err = {0};
    const enum qy_status st = qyi_disk_open(&params, &disk, &err);

    if (st != QY_OK) {
        print_message("%s\n", err.text);
    }
    qyi_store_close(disk);
    return st == QY_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(disk_many_requests_read_what_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_two_batches_are_under_way_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_faults_name_the_request, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_a_stall_ends_at_its_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_what_is_not_in_pages_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_its_file_is_private_and_nameless, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_open_says_what_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_open_survives_every_failed_allocation, setup,
                                        teardown),
    };

    has_uring = look_for_uring();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
