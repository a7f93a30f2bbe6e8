/* What Corosync's closed process groups cost: a client of libcpg with the traffic that `wadjet bench` has.
 *
 *   cpg 0|1 pingpong|stream SECONDS BYTES CORE
 *
 * Two of them, ranks 0 and 1, each beside a Corosync of its own. All casts are agreed (CPG_TYPE_AGREED).
 *   pingpong  rank 0 casts, rank 1 answers by a cast: rank 0 prints p50 and p99 of the round trip in ns, and the rounds
 *   stream    rank 0 casts as fast as it goes: rank 1 prints messages per second, and how many there were
 * Whoever waits blocks in poll(2): there is a daemon on the same core that has the work to do. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <corosync/cpg.h>

enum { BYTES_MAX = 1024, TOP_NS = 1 << 24, BURST = 64, WARM_UP = 200 };
enum kind { PING = 1, PONG, DATA, END };

struct message {
    uint32_t kind;
    uint32_t rank;
    uint64_t number;
    char rest[BYTES_MAX - 16];
};

static cpg_handle_t handle;
static int readable, own_rank;
static size_t bytes;
static uint32_t members;
/* What came: the last pong, or the data and when it came. */
static uint64_t pongs, owed, delivered, first_ns, last_ns;
static int ended;
static uint32_t histogram[TOP_NS / 16];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what, int code) {
    fprintf(stderr, "cpg: %s: error %d of libcpg, %s\n", what, code, strerror(errno));
    exit(1);
}

/* Delivers what there is; waits for it so many milliseconds at most. */
static void dispatch(int wait_ms) {
    struct pollfd on = {.fd = readable, .events = POLLIN};
    if (wait_ms && poll(&on, 1, wait_ms) < 0 && errno != EINTR) fail("poll", 0);
    cs_error_t said = cpg_dispatch(handle, CS_DISPATCH_ALL);
    if (said != CS_OK && said != CS_ERR_TRY_AGAIN) fail("dispatch", said);
}

/* 0 if the queue is full. */
static int try_cast(enum kind kind, uint64_t number) {
    static struct message message;
    message.kind = kind;
    message.rank = (uint32_t)own_rank;
    message.number = number;
    memset(message.rest, (int)number & 255, sizeof message.rest);
    struct iovec part = {&message, bytes};
    cs_error_t said = cpg_mcast_joined(handle, CPG_TYPE_AGREED, &part, 1);
    if (said == CS_ERR_TRY_AGAIN) return 0;
    if (said != CS_OK) fail("cast", said);
    return 1;
}

static void on_deliver(cpg_handle_t h, const struct cpg_name *group, uint32_t node, uint32_t pid, void *data, size_t size) {
    (void)h, (void)group, (void)node, (void)pid;
    const struct message *message = data;
    if (size != bytes || message->rank == (uint32_t)own_rank) return;
    switch (message->kind) {
    case PING:
        /* While the ring forms anew nothing is taken. */
        if (!try_cast(PONG, message->number)) owed = message->number;
        break;
    case PONG: pongs = message->number; break;
    case DATA:
        last_ns = now_ns();
        if (!delivered) first_ns = last_ns;
        if (message->number != delivered++) fail("a message is missing", 0);
        break;
    case END: ended = 1; break;
    }
}

static void on_change(cpg_handle_t h, const struct cpg_name *group, const struct cpg_address *list, size_t count,
                      const struct cpg_address *left, size_t left_count, const struct cpg_address *joined,
                      size_t joined_count) {
    (void)h, (void)group, (void)list, (void)left, (void)left_count, (void)joined, (void)joined_count;
    members = (uint32_t)count;
}

static void join(void) {
    cpg_callbacks_t calls = {on_deliver, on_change};
    struct cpg_name name = {.length = 5, .value = "peers"};
    cs_error_t said = CS_ERR_TRY_AGAIN;
    /* The daemon takes a moment to answer after it has been started. */
    for (int attempt = 0; attempt < 100 && said != CS_OK; attempt++) {
        if (attempt) usleep(100000);
        said = cpg_initialize(&handle, &calls);
    }
    if (said != CS_OK) fail("no Corosync answers", said);
    for (int attempt = 0; attempt < 100; attempt++) {
        said = cpg_join(handle, &name);
        if (said != CS_ERR_TRY_AGAIN) break;
        usleep(100000);
    }
    if (said != CS_OK) fail("join", said);
    if ((said = cpg_fd_get(handle, &readable)) != CS_OK) fail("descriptor", said);
    while (members < 2) dispatch(100);
}

static uint64_t at_share(uint64_t count, double share) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < TOP_NS / 16; at++)
        if ((sum += histogram[at]) >= (uint64_t)((double)count * share)) return at * 16;
    return TOP_NS;
}

static void cast(enum kind kind, uint64_t number) {
    while (!try_cast(kind, number)) dispatch(1);
}

static void pingpong(uint64_t end) {
    uint64_t count = 0;
    for (uint64_t number = 1;; number++) {
        uint64_t begun = now_ns();
        if (begun >= end) break;
        cast(PING, number);
        while (pongs != number) dispatch(1000);
        uint64_t took = (now_ns() - begun) / 16;
        if (number <= WARM_UP) continue;
        histogram[took < TOP_NS / 16 ? took : TOP_NS / 16 - 1]++;
        count++;
    }
    cast(END, 0);
    dispatch(100);
    printf("%llu %llu %llu\n", (unsigned long long)at_share(count, 0.5), (unsigned long long)at_share(count, 0.99),
           (unsigned long long)count);
}

static void stream(uint64_t end) {
    uint64_t number = 0;
    while (now_ns() < end) {
        int sent = 0;
        while (sent < BURST && try_cast(DATA, number)) number++, sent++;
        dispatch(sent ? 0 : 1);
    }
    cast(END, 0);
    /* Until the own end has come back all is delivered. */
    for (int turn = 0; turn < 20; turn++) dispatch(10);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "cpg 0|1 pingpong|stream SECONDS BYTES CORE\n");
        return 2;
    }
    own_rank = atoi(argv[1]);
    int pings = !strcmp(argv[2], "pingpong");
    double seconds = atof(argv[3]);
    bytes = (size_t)atoi(argv[4]);
    if (bytes < 16 || bytes > BYTES_MAX) {
        fprintf(stderr, "cpg: BYTES must be between 16 and %d\n", BYTES_MAX);
        return 2;
    }
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(atoi(argv[5]), &cores);
    if (sched_setaffinity(0, sizeof cores, &cores)) fail("cannot pin to a core", 0);
    /* Whatever happens to the other one. */
    alarm((unsigned)seconds + 30);
    join();
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    if (own_rank == 0) {
        if (pings) pingpong(end); else stream(end);
    } else {
        while (!ended) {
            dispatch(owed ? 1 : 1000);
            if (owed && try_cast(PONG, owed)) owed = 0;
        }
        double took = (double)(last_ns - first_ns) / 1e9;
        if (!pings) printf("%.0f %llu\n", took > 0 ? (double)delivered / took : 0.0, (unsigned long long)delivered);
    }
    cpg_finalize(handle);
    return 0;
}
