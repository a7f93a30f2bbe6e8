/* What a stream of datagrams costs its receiver, by the ways there are to receive it (ADR 001).
 *
 *   cc -O2 -o receive bench/floor/receive.c
 *   receive SECONDS CORE      prints one line for each length and way
 *
 * 128 datagrams are sent, which is not counted, and then received: time of this thread on the core (CLOCK_THREAD_CPUTIME_ID,
 * so that others who use it do not count) per datagram, and datagrams per call that brought some.
 *
 * recvmmsg     up to 32 in a call
 * requests     up to 32 io_uring receive requests, all but the last without waiting, and one call for all
 * multishot    one io_uring request that goes on, into a ring of buffers; one call for what is there
 *
 * Without runs each datagram is one in the system too; with runs (UDP_SEGMENT, UDP_GRO) 32 of them are.
 * Each way looks at what came (one byte of each line) and gives its buffer back at once. No liburing: the calls are few. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, BUFFERS = 256, BUFFER_BYTES = 65536, ENTRIES = 64, WAITING = 128, ROUNDS = 1 << 20 };

static double spent[ROUNDS];

static int smaller(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static uint64_t clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
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

static volatile unsigned seen;
/* Bytes of a datagram: with UDP_GRO a buffer holds several. */
static int datagram_bytes;

/* How many datagrams that are. */
static int look(const unsigned char *bytes, int length) {
    for (int at = 0; at < length; at += 64) seen += bytes[at];
    return length / datagram_bytes;
}

static unsigned char (*buffers)[BUFFER_BYTES];


/* A way: datagrams taken by one call of it, zero if there were none. */
static int by_recvmmsg(int s) {
    static struct mmsghdr messages[BATCH];
    static struct iovec pieces[BATCH];
    for (int at = 0; at < BATCH; at++) {
        pieces[at] = (struct iovec){buffers[at], BUFFER_BYTES};
        messages[at].msg_hdr = (struct msghdr){.msg_iov = &pieces[at], .msg_iovlen = 1};
    }
    int got = recvmmsg(s, messages, BATCH, MSG_DONTWAIT, 0), datagrams = 0;
    for (int at = 0; at < got; at++) datagrams += look(buffers[at], (int)messages[at].msg_len);
    return datagrams;
}

static struct {
    int fd;
    _Atomic unsigned *sq_tail, *sq_flags, *cq_head, *cq_tail;
    unsigned *sq_array, sq_mask, cq_mask, queued;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *completions;
    struct io_uring_buf_ring *ring;
    unsigned short given;
    int running;
} uring;

static void ring_new(void) {
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
                                         IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE,
                                .cq_entries = 4 * BUFFERS};
    memset(&uring, 0, sizeof uring);
    uring.fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (uring.fd < 0) fail("io_uring_setup");
    size_t bytes = p.cq_off.cqes + p.cq_entries * sizeof *uring.completions;
    if (bytes < p.sq_off.array + p.sq_entries * sizeof(unsigned)) bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    char *at = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd, IORING_OFF_SQ_RING);
    uring.entries = mmap(0, p.sq_entries * sizeof *uring.entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring.fd,
                         IORING_OFF_SQES);
    if (at == MAP_FAILED || uring.entries == MAP_FAILED) fail("mmap");
    uring.sq_tail = (void *)(at + p.sq_off.tail);
    uring.sq_flags = (void *)(at + p.sq_off.flags);
    uring.sq_array = (void *)(at + p.sq_off.array);
    uring.sq_mask = *(unsigned *)(at + p.sq_off.ring_mask);
    uring.cq_head = (void *)(at + p.cq_off.head);
    uring.cq_tail = (void *)(at + p.cq_off.tail);
    uring.cq_mask = *(unsigned *)(at + p.cq_off.ring_mask);
    uring.completions = (void *)(at + p.cq_off.cqes);
}

static struct io_uring_sqe *entry(void) {
    unsigned tail = atomic_load_explicit(uring.sq_tail, memory_order_relaxed), at = tail & uring.sq_mask;
    struct io_uring_sqe *entry = memset(&uring.entries[at], 0, sizeof *entry);
    uring.sq_array[at] = at;
    atomic_store_explicit(uring.sq_tail, tail + 1, memory_order_release);
    uring.queued++;
    return entry;
}

static void enter(void) {
    if (!uring.queued && !(atomic_load(uring.sq_flags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) return;
    long taken = syscall(SYS_io_uring_enter, uring.fd, uring.queued, 0, IORING_ENTER_GETEVENTS, 0, 0);
    if (taken > 0) uring.queued -= (unsigned)taken;
}

/* Requests that are out, by buffer; the last of them waits. */
static int by_requests(int s) {
    static struct iovec pieces[BATCH];
    static struct msghdr headers[BATCH];
    static int out, batch = 1;
    if (!uring.running) out = 0, batch = 1, uring.running = 1;
    if (!out) {
        for (int at = 0; at < batch; at++) {
            pieces[at] = (struct iovec){buffers[at], BUFFER_BYTES};
            headers[at] = (struct msghdr){.msg_iov = &pieces[at], .msg_iovlen = 1};
            struct io_uring_sqe *e = entry();
            e->opcode = IORING_OP_RECVMSG;
            e->fd = s;
            e->addr = (uintptr_t)&headers[at];
            e->len = 1;
            e->msg_flags = at + 1 < batch ? MSG_DONTWAIT : 0;
            e->user_data = (unsigned)at;
        }
        out = batch;
    }
    enter();
    int got = 0, datagrams = 0;
    unsigned head = atomic_load_explicit(uring.cq_head, memory_order_relaxed);
    unsigned tail = atomic_load_explicit(uring.cq_tail, memory_order_acquire);
    for (; head != tail; head++) {
        struct io_uring_cqe *c = &uring.completions[head & uring.cq_mask];
        out--;
        if (c->res > 0) datagrams += look(buffers[c->user_data], c->res), got++;
    }
    atomic_store_explicit(uring.cq_head, head, memory_order_release);
    /* As `src/transport/uring`: twice as many while all of them bring something. */
    if (!out) batch = got == batch ? (2 * batch < BATCH ? 2 * batch : BATCH) : got > 1 ? got : 1;
    return datagrams;
}

static void give(int buffer) {
    struct io_uring_buf *place = &uring.ring->bufs[uring.given++ % BUFFERS];
    place->addr = (uintptr_t)buffers[buffer];
    place->len = BUFFER_BYTES;
    place->bid = (unsigned short)buffer;
}

static int by_multishot(int s) {
    if (!uring.ring) {
        size_t bytes = BUFFERS * sizeof(struct io_uring_buf);
        uring.ring = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        struct io_uring_buf_reg r = {.ring_addr = (uintptr_t)uring.ring, .ring_entries = BUFFERS};
        if (syscall(SYS_io_uring_register, uring.fd, IORING_REGISTER_PBUF_RING, &r, 1)) fail("buffer ring");
        for (int at = 0; at < BUFFERS; at++) give(at);
        __atomic_store_n(&uring.ring->tail, uring.given, __ATOMIC_RELEASE);
    }
    if (!uring.running) {
        struct io_uring_sqe *e = entry();
        e->opcode = IORING_OP_RECV;
        e->fd = s;
        e->flags = IOSQE_BUFFER_SELECT;
        e->ioprio = IORING_RECV_MULTISHOT;
        uring.running = 1;
    }
    enter();
    int datagrams = 0;
    unsigned head = atomic_load_explicit(uring.cq_head, memory_order_relaxed);
    unsigned tail = atomic_load_explicit(uring.cq_tail, memory_order_acquire);
    for (; head != tail; head++) {
        struct io_uring_cqe *c = &uring.completions[head & uring.cq_mask];
        if (!(c->flags & IORING_CQE_F_MORE)) uring.running = 0;
        if (c->res > 0 && c->flags & IORING_CQE_F_BUFFER) {
            int buffer = (int)(c->flags >> IORING_CQE_BUFFER_SHIFT);
            datagrams += look(buffers[buffer], c->res);
            give(buffer);
        }
    }
    atomic_store_explicit(uring.cq_head, head, memory_order_release);
    __atomic_store_n(&uring.ring->tail, uring.given, __ATOMIC_RELEASE);
    return datagrams;
}

static const struct { const char *name; int (*take)(int); int ring; } ways[] = {
    {"recvmmsg", by_recvmmsg, 0}, {"requests", by_requests, 1}, {"multishot", by_multishot, 1}};

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "receive SECONDS CORE\n"), 2;
    uint64_t time = (uint64_t)(atof(argv[1]) * 1e9);
    buffers = mmap(0, BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int s = socket(AF_INET, SOCK_DGRAM, 0), from = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    if (buffers == MAP_FAILED || s < 0 || from < 0 || bind(s, (struct sockaddr *)&name, length) ||
        getsockname(s, (struct sockaddr *)&name, &length) || connect(from, (struct sockaddr *)&name, length))
        fail("socket");
    if (setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size)) fail("a receive buffer of 8 MiB");
    pin(atoi(argv[2]));
    static unsigned char message[WAITING * 1400];
    static struct mmsghdr batch[WAITING];
    static struct iovec pieces[WAITING];
    for (int at = 0; at < WAITING; at++) {
        pieces[at].iov_base = message;
        batch[at].msg_hdr = (struct msghdr){.msg_iov = &pieces[at], .msg_iovlen = 1};
    }
    printf("%6s %5s %-10s %8s %8s %9s\n", "bytes", "runs", "way", "ns p10", "ns p50", "per call");
    for (int length_and_runs = 0; length_and_runs < 4; length_and_runs++) {
        int runs = length_and_runs / 2, per_run = runs ? 32 : 1, segment;
        datagram_bytes = length_and_runs % 2 ? 1400 : 64;
        segment = runs ? datagram_bytes : 0;
        if (setsockopt(s, IPPROTO_UDP, UDP_GRO, &runs, sizeof runs)) fail("UDP_GRO");
        if (setsockopt(from, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment)) fail("UDP_SEGMENT");
        for (int at = 0; at < WAITING; at++) pieces[at].iov_len = (size_t)(per_run * datagram_bytes);
        for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
            if (ways[way].ring) ring_new();
            uint64_t end = clock_ns(CLOCK_MONOTONIC) + time, got = 0, calls = 0, rounds = 0;
            while (clock_ns(CLOCK_MONOTONIC) < end && rounds < ROUNDS) {
                if (sendmmsg(from, batch, WAITING / per_run, 0) != WAITING / per_run) fail("send");
                uint64_t begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
                for (int some = 0, took; some < WAITING; some += took) {
                    took = ways[way].take(s);
                    got += (unsigned)took;
                    calls += took > 0;
                }
                spent[rounds++] = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun) / WAITING;
            }
            if (ways[way].ring) close(uring.fd);
            qsort(spent, rounds, sizeof *spent, smaller);
            printf("%6d %5s %-10s %8.0f %8.0f %9.1f\n", datagram_bytes, runs ? "yes" : "no", ways[way].name,
                   spent[rounds / 10], spent[rounds / 2], (double)got / (double)calls);
        }
    }
    return 0;
}
