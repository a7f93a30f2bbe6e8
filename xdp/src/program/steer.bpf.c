// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Steers a group's UDP datagrams into AF_XDP sockets; everything else goes on to the kernel as if this were not here.
 *
 * A frame is steered if it is Ethernet, IPv4 without options, not a fragment, UDP, to an address and port in `places`
 * (multicast addresses stand there like any other), and not longer than a frame of the socket holds. What is right
 * but for its length or form goes on to the kernel, and reaches the ordinary socket that is bound to the same
 * address: runs that a sender left to be segmented (UDP_SEGMENT over veth arrives as one), fragments, options. A run that
 * is not longer than a frame of the socket cannot be told from a datagram here: senders must make none (ADR 012).
 *
 * compile.sh makes steer.bpf.o of this file; the two are committed together.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* As in program/mod.rs. */
enum { STEERED, FOREIGN, LONG, FORMED, COUNTERS };

struct place {
	__be32 address;
	__be16 port;
	__u16 zero;
};

/* The sockets, by receive queue. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Addresses and ports to steer, and the longest frame for each, Ethernet header included. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct place);
	__type(value, __u32);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline int count(__u32 which, int verdict)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);
	if (counter)
		*counter += 1;
	return verdict;
}

SEC("xdp")
int steer(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return count(FOREIGN, XDP_PASS);
	/* With options the ports lie elsewhere: the kernel finds them. Of a fragment but the first there are none. */
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		return count(FORMED, XDP_PASS);
	struct place place = { .address = ip->daddr, .port = udp->dest };
	__u32 *longest = bpf_map_lookup_elem(&places, &place);
	if (!longest)
		return count(FOREIGN, XDP_PASS);
	/* As long as it says it is: to ask where it ends would take CAP_PERFMON. */
	if (sizeof(*ethernet) + bpf_ntohs(ip->tot_len) > *longest)
		return count(LONG, XDP_PASS);
	/* Without a socket at this queue the kernel takes it. */
	int verdict = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
	return count(verdict == XDP_REDIRECT ? STEERED : FOREIGN, verdict);
}

/* No helper is called that asks for more. */
char licence[] SEC("license") = "Dual MIT/GPL";
