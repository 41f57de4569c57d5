/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Hands TCP segments of the watched ports up to user space, each once, as far as the parser needs them.
 *
 *   common.c     what all our programs need
 *   event.c      the way up
 *   packet.c     a packet -> where its TCP payload is
 *   handshake.c  handshakes, held until a connection comes of them
 *   appetite.c   which bytes of a connection nobody needs: bodies, ciphertext, acknowledgements
 *   filter.c     all of it together
 *
 * They are compiled as one text in this order, as bcc understands its maps only in the main file.
 *
 * Hook: socket filter (SO_ATTACH_BPF) on AF_PACKET sockets of type SOCK_DGRAM. Of that type, because then the kernel
 *   itself takes off the link header, whatever the link: packets of Ethernet, tun and WireGuard all start at their IP
 *   header, and skb->protocol says which. It answers 0 always: nothing is ever queued to the socket.
 * Kernel: 5.8, for the BPF ring buffer, bpf_ktime_get_boot_ns and CAP_BPF (bounded loops are of 5.3). Loads on Debian's
 *   5.10, 6.1 and 6.12. CAP_BPF and CAP_NET_RAW are enough for APPETITE 0.
 * Way up: one record of the ring buffer per segment. The verifier wants the size of a record to be a constant, hence a
 *   few sizes; bytes behind `captured` are rubbish. The copy goes from the packet into the ring directly: a per-CPU
 *   scratch area would copy twice, and can't hold 64 kB.
 * Caveats: a bridge and its ports show a packet each, so `any` may see it more than once, as a retransmission. Tunnels
 *   are looked into on their inner interface only. Of a "BIG TCP" super-segment the first 64 kB go up. An interface
 *   shows packets for other machines (a mirror port) only if somebody set it promiscuous.
 * Overhead: docs/benchmarks.md.
 *
 * Knobs, as -D constants: RING_PAGES (a power of 2), PAGE_SIZE, FLOWS, HANDSHAKES, HELD_SECONDS, APPETITE (0: hand
 * up everything).
 */

#define PACKET_OUTGOING 4 /* linux/if_packet.h */
#define LOOPBACK_IFINDEX 1 /* the first device of every network namespace; net/core relies on it */

static inline enum verdict judge(struct __sk_buff *skb)
{
#if APPETITE
    int zero = 0;
    struct work *work = works.lookup(&zero);
    if (!work)
        return MALFORMED;
    __builtin_memset(&work->event, 0, sizeof(work->event));
    __builtin_memset(&work->at, 0, sizeof(work->at));
    struct event *event = &work->event;
    struct place *at = &work->at;
#else
    struct event on_stack = {}, *event = &on_stack;
    struct place place = {}, *at = &place;
#endif
    enum verdict verdict = HAND_UP;
    u16 protocol = bpf_ntohs(skb->protocol);
    if (is_vlan(protocol))
        verdict = skip_tags(skb, at, &protocol);
    if (verdict == HAND_UP)
        verdict = protocol == ETHERTYPE_IPV4   ? read_ipv4(skb, at, event)
                  : protocol == ETHERTYPE_IPV6 ? read_ipv6(skb, at, event)
                                               : NOT_TCP;
    /* A fragment is put together with the others of its datagram in user space: only the first has ports. */
    if (verdict == HAND_UP && event->kind != FRAGMENT_OF_A_PACKET)
        verdict = read_tcp(skb, at, event);
    if (verdict != HAND_UP)
        return verdict;
    event->length = at->end - at->offset;
    event->at_boot_ns = bpf_ktime_get_boot_ns();
    u32 there = skb->len > at->offset ? skb->len - at->offset : 0;
    event->captured = event->length < there ? event->length : there;
#if APPETITE
    struct side *told = 0;
    if (event->kind != FRAGMENT_OF_A_PACKET && at->to_server != at->to_client)
        verdict = judge_in_flow(skb, work, &told);
    if (verdict == HAND_UP)
        verdict = hand_up(skb, at->offset, event);
    if (verdict == HAND_UP && told)
        told->skipped = 0;
    return verdict;
#else
    return hand_up(skb, at->offset, event);
#endif
}

BPF_PROG_ARRAY(filters, 1); /* hand_up_watched */

/*
 * What is attached to the socket: so small because a socket's filter counts as its option memory, and before Linux 6.8
 * net.core.optmem_max allows 20 kB of that, which are some 2,500 instructions. A program that goes on for it counts nothing.
 */
int attached(struct __sk_buff *skb)
{
    filters.call(skb, 0);
    return 0;
}

int hand_up_watched(struct __sk_buff *skb)
{
    /* What a loopback device sends it receives at once: see it once. */
    if (skb->ifindex == LOOPBACK_IFINDEX && skb->pkt_type == PACKET_OUTGOING)
        return 0;
    enum verdict verdict = judge(skb);
    if (verdict != HAND_UP)
        pass_by(verdict);
    return 0;
}
