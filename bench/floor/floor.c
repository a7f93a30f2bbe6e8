/* What a ping-pong costs without any of this house: plain sockets, plain shared memory, two processes pinned to two
 * cores, C. `run.sh` compares it with `wadjet bench --raw`, which is meant to be an honest floor.
 *
 *   floor udp|udp-connected|shm SECONDS CORE CORE     prints p50 and p99 of the round trip in nanoseconds, and how many there were
 *
 * A message is 80 bytes: 64 of payload behind a header of 16, as the raw benchmark sends them. Both sides spin.
 *
 * A member has one socket, by which it reaches all others: `udp` names the receiver in every call, as it must.
 * `udp-connected` is a pair of sockets that know nobody else: it shows what looking up the way costs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 80, WORDS = BYTES / 8, SLOTS = 1024, SLOT_WORDS = 16, TOP_NS = 1 << 20 };

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set)) fail("cannot pin to a core");
}

/* A way to send and receive one message; receiving spins. */
struct way {
    int socket;
    /* Named in every call; or the socket is connected. */
    const struct sockaddr_in *to;
    _Atomic uint64_t *out, *in;
    uint64_t sent, got;
};

static void send_message(struct way *way, const uint64_t *message) {
    if (way->out) {
        _Atomic uint64_t *slot = way->out + way->sent % SLOTS * SLOT_WORDS;
        for (int at = 0; at < WORDS; at++) atomic_store_explicit(slot + 1 + at, message[at], memory_order_relaxed);
        atomic_store_explicit(slot, ++way->sent, memory_order_release);
        return;
    }
    const struct sockaddr *to = (const struct sockaddr *)way->to;
    while (sendto(way->socket, message, BYTES, 0, to, to ? sizeof *way->to : 0) != BYTES)
        if (errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED) fail("send");
}

static void receive_message(struct way *way, uint64_t *message) {
    if (way->in) {
        _Atomic uint64_t *slot = way->in + way->got % SLOTS * SLOT_WORDS;
        while (atomic_load_explicit(slot, memory_order_acquire) != way->got + 1) __builtin_ia32_pause();
        way->got++;
        for (int at = 0; at < WORDS; at++) message[at] = atomic_load_explicit(slot + 1 + at, memory_order_relaxed);
        return;
    }
    while (recv(way->socket, message, BYTES, 0) != BYTES)
        if (errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED) fail("recv");
}

static int bound(struct sockaddr_in *name) {
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    socklen_t length = sizeof *name;
    memset(name, 0, sizeof *name);
    name->sin_family = AF_INET;
    name->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (s < 0 || bind(s, (struct sockaddr *)name, sizeof *name) || getsockname(s, (struct sockaddr *)name, &length))
        fail("no socket on the loopback interface");
    return s;
}

static uint32_t histogram[TOP_NS];

static uint64_t at_share(uint64_t count, double share) {
    uint64_t sum = 0;
    for (int ns = 0; ns < TOP_NS; ns++)
        if ((sum += histogram[ns]) >= count * share) return ns;
    return TOP_NS;
}

int main(int argc, char **argv) {
    int shared = argc == 5 && !strcmp(argv[1], "shm"), connected = argc == 5 && !strcmp(argv[1], "udp-connected");
    if (argc != 5 || (!shared && !connected && strcmp(argv[1], "udp"))) {
        fprintf(stderr, "floor udp|udp-connected|shm SECONDS CORE CORE\n");
        return 2;
    }
    struct way here = {0}, there = {0};
    struct sockaddr_in one, other;
    if (!shared) {
        here.socket = bound(&one);
        there.socket = bound(&other);
        if (!connected) {
            here.to = &other;
            there.to = &one;
        } else if (connect(here.socket, (struct sockaddr *)&other, sizeof other) ||
                   connect(there.socket, (struct sockaddr *)&one, sizeof one)) {
            fail("connect");
        }
    } else {
        size_t ring = SLOTS * SLOT_WORDS * sizeof(uint64_t);
        void *memory = mmap(0, 2 * ring, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory == MAP_FAILED) fail("mmap");
        here.out = there.in = memory;
        here.in = there.out = (void *)((char *)memory + ring);
    }
    pid_t child = fork();
    if (child < 0) fail("fork");
    uint64_t message[WORDS] = {0};
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(atoi(argv[4]));
        for (;;) {
            receive_message(&there, message);
            send_message(&there, message);
            if (message[0] == UINT64_MAX) _exit(0);
        }
    }
    pin(atoi(argv[3]));
    uint64_t count = 0, end = now_ns() + (uint64_t)(atof(argv[2]) * 1e9), warm = now_ns() + 200000000u;
    for (uint64_t number = 1;; number++) {
        for (int at = 0; at < WORDS; at++) message[at] = number;
        uint64_t begun = now_ns();
        if (begun >= end) break;
        send_message(&here, message);
        receive_message(&here, message);
        uint64_t took = now_ns() - begun;
        for (int at = 0; at < WORDS; at++)
            if (message[at] != number) return fprintf(stderr, "a message came back changed\n"), 1;
        if (begun < warm) continue;
        histogram[took < TOP_NS ? took : TOP_NS - 1]++;
        count++;
    }
    message[0] = UINT64_MAX;
    send_message(&here, message);
    waitpid(child, 0, 0);
    if (!count) return fprintf(stderr, "no round trip in the time\n"), 1;
    printf("%llu %llu %llu\n", (unsigned long long)at_share(count, 0.5), (unsigned long long)at_share(count, 0.99),
           (unsigned long long)count);
    return 0;
}
