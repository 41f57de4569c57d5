/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Hands TCP segments of the watched ports up to user space, each once, whole.
 *
 * Hook: socket filter (SO_ATTACH_BPF) on AF_PACKET sockets of type SOCK_DGRAM. Of that type, because then the kernel
 *   itself takes off the link header, whatever the link: packets of Ethernet, tun and WireGuard all start at their IP
 *   header, and skb->protocol says which. It answers 0 always: nothing is ever queued to the socket.
 * Kernel: 5.8, for the BPF ring buffer, bpf_ktime_get_boot_ns and CAP_BPF (bounded loops are of 5.3). CAP_BPF and
 *   CAP_NET_RAW are enough. The verifier checks some 3,000 instructions of its million.
 * Way up: one record of the ring buffer per segment. The verifier wants the size of a record to be a constant, hence a
 *   few sizes; bytes behind `captured` are rubbish. The copy goes from the packet into the ring directly: a per-CPU
 *   scratch area would copy twice, and can't hold 64 kB.
 * Caveats: a bridge and its ports show a packet each, so `any` may see it more than once, as a retransmission. Tunnels
 *   are looked into on their inner interface only. Of a "BIG TCP" super-segment the first 64 kB go up. An interface
 *   shows packets for other machines (a mirror port) only if somebody set it promiscuous.
 * Overhead, by bpf_stats_enabled on a virtual machine with 2 processors of which nothing was idle (its own two readings
 *   of the clock included): 0.24 us for a packet of another port, 0.6 us for a segment of SMTP with 1 kB messages,
 *   1.9 us where 1 MB messages come as super-segments of 30 kB. bcc compiles it in 0.4 s, the kernel checks it in 3 ms.
 *
 * Knobs, as -D constants: RING_PAGES (a power of 2), PAGE_SIZE.
 */

#define PACKET_OUTGOING 4 /* linux/if_packet.h */
#define LOOPBACK_IFINDEX 1 /* the first device of every network namespace; net/core relies on it */

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86DD
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_8021AD 0x88A8
#define ETHERNET_HEADER_BYTES 14
#define VLAN_TAG_BYTES 4
#define MAX_VLAN_TAGS 4 /* QinQ has two, and one of them travels beside the packet */

#define IPV4_MORE_FRAGMENTS_OR_OFFSET 0x3FFF /* RFC 791 section 3.1 */
#define IPV6_MORE_FRAGMENTS_OR_OFFSET 0xFFF9 /* RFC 8200 section 4.5 */
#define MAX_IPV6_EXTENSION_HEADERS 8 /* RFC 8200 section 4.1 names seven places for one */

/* IANA protocol numbers; those of IPv6 extension headers as in RFC 7045 section 4. */
enum { HOP_BY_HOP = 0, TCP = 6, ROUTING = 43, FRAGMENT = 44, AUTHENTICATION = 51, DESTINATION = 60,
       MOBILITY = 135, HIP = 139, SHIM6 = 140 };

/* What becomes of a packet: all but HAND_UP are counted in `passed_by`. probes/ebpf/program.py has the order too. */
enum verdict { HAND_UP, OTHER_PORT, NOT_TCP, MALFORMED, RING_BUFFER_FULL, VERDICTS };

enum kind { FRAGMENT_OF_A_PACKET = 0, IPV4_SEGMENT = 4, IPV6_SEGMENT = 6 };

/* What goes up, followed by the payload. probes/ebpf/event.py unpacks it. */
struct event {
    u64 at_boot_ns;
    u32 length;   /* payload by the IP header; of a fragment, the whole packet */
    u32 captured; /* payload bytes that follow */
    u32 sequence, acknowledgement;
    u8 kind, flags;
    u8 flow[36]; /* addresses and ports as in the packet; IPv4: the first 12 bytes */
    u16 unused;
};

/* Where in the packet, from the start that the kernel shows. */
struct place {
    u32 offset; /* of the next header; at last, of the payload */
    u32 end;    /* by the IP header: Ethernet pads short packets */
};

struct ipv4_header {
    u8 version_and_words, service;
    u16 total_length, identification, fragment;
    u8 time_to_live, protocol;
    u16 checksum;
    u8 addresses[8];
};

struct ipv6_header {
    u8 version_and_class, flow[3];
    u16 payload_length;
    u8 next_header, hop_limit;
    u8 addresses[32];
};

struct tcp_header { /* as far as it is needed */
    u16 source_port, destination_port;
    u32 sequence, acknowledgement;
    u8 words, flags;
    u16 window;
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_ARRAY(watched_ports, u64, 65536 / 64); /* a bit for each port */
BPF_PERCPU_ARRAY(passed_by, u64, VERDICTS);

static inline void pass_by(int verdict)
{
    u64 *count = passed_by.lookup(&verdict);
    if (count)
        (*count)++;
}

static inline bool is_watched(u16 port)
{
    int word = port / 64;
    u64 *ports = watched_ports.lookup(&word);
    return ports && (*ports >> (port % 64)) & 1;
}

static inline bool is_vlan(u16 protocol)
{
    return protocol == ETHERTYPE_8021Q || protocol == ETHERTYPE_8021AD;
}

/*
 * VLAN tags that travel inside the packet, behind another one or on their way out: finds the IP header and its
 * protocol. An arriving packet starts behind the Ethernet header; a leaving one where its sender put the network
 * header, which is at a tag or at the IP header. The link header shows them all, so the start is the place there that
 * holds the same bytes. (Only the linear part of a packet can be read from the link header, not all of the payload.)
 */
static inline enum verdict skip_tags(struct __sk_buff *skb, struct place *at, u16 *protocol)
{
    struct tag { u16 control, protocol; u32 following; } first, tag;
    u32 start = 0;
    if (bpf_skb_load_bytes(skb, 0, &first, sizeof(first)))
        return MALFORMED;
    for (u32 behind = ETHERNET_HEADER_BYTES; behind <= ETHERNET_HEADER_BYTES + MAX_VLAN_TAGS * VLAN_TAG_BYTES;
         behind += VLAN_TAG_BYTES) {
        if (bpf_skb_load_bytes_relative(skb, behind, &tag, sizeof(tag), BPF_HDR_START_MAC))
            return MALFORMED;
        if (tag.control == first.control && tag.protocol == first.protocol && tag.following == first.following)
            start = behind;
        if (!is_vlan(*protocol)) {
            at->offset = behind - start;
            return start ? HAND_UP : MALFORMED;
        }
        *protocol = bpf_ntohs(tag.protocol);
    }
    return NOT_TCP;
}

static inline enum verdict read_ipv4(struct __sk_buff *skb, struct place *at, struct event *event)
{
    struct ipv4_header ip;
    if (bpf_skb_load_bytes(skb, at->offset, &ip, sizeof(ip)))
        return MALFORMED;
    u32 header_bytes = (ip.version_and_words & 15) * 4;
    /* 0: a super-segment too long for the field, which the kernel made and nothing padded. */
    at->end = ip.total_length ? at->offset + bpf_ntohs(ip.total_length) : skb->len;
    if (ip.version_and_words >> 4 != 4 || header_bytes < sizeof(ip) || at->offset + header_bytes > at->end)
        return MALFORMED;
    if (ip.protocol != TCP)
        return NOT_TCP;
    if (ip.fragment & bpf_htons(IPV4_MORE_FRAGMENTS_OR_OFFSET))
        return HAND_UP;
    event->kind = IPV4_SEGMENT;
    __builtin_memcpy(event->flow, ip.addresses, sizeof(ip.addresses));
    at->offset += header_bytes;
    return HAND_UP;
}

static inline enum verdict read_ipv6(struct __sk_buff *skb, struct place *at, struct event *event)
{
    struct ipv6_header ip;
    struct { u8 next_header, length; u16 fragment; } extension;
    if (bpf_skb_load_bytes(skb, at->offset, &ip, sizeof(ip)) || ip.version_and_class >> 4 != 6)
        return MALFORMED;
    u32 offset = at->offset + sizeof(ip);
    at->end = ip.payload_length ? offset + bpf_ntohs(ip.payload_length) : skb->len; /* 0: as above */
    u8 next = ip.next_header;
    for (int count = 0; count < MAX_IPV6_EXTENSION_HEADERS && next != TCP; count++) {
        if (next != HOP_BY_HOP && next != ROUTING && next != FRAGMENT && next != AUTHENTICATION &&
            next != DESTINATION && next != MOBILITY && next != HIP && next != SHIM6)
            return NOT_TCP;
        if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
            return MALFORMED;
        if (next == FRAGMENT && extension.fragment & bpf_htons(IPV6_MORE_FRAGMENTS_OR_OFFSET))
            return HAND_UP;
        if (next == FRAGMENT) /* the only one of its datagram, RFC 6946 */
            offset += 8;
        else if (next == AUTHENTICATION) /* RFC 4302 section 2.2 */
            offset += (extension.length + 2) * 4;
        else /* RFC 8200 section 4.2 */
            offset += (extension.length + 1) * 8;
        next = extension.next_header;
    }
    if (next != TCP)
        return MALFORMED;
    event->kind = IPV6_SEGMENT;
    __builtin_memcpy(event->flow, ip.addresses, sizeof(ip.addresses));
    at->offset = offset;
    return HAND_UP;
}

static inline enum verdict read_tcp(struct __sk_buff *skb, struct place *at, struct event *event)
{
    struct tcp_header tcp;
    if (bpf_skb_load_bytes(skb, at->offset, &tcp, sizeof(tcp)))
        return MALFORMED;
    if (!is_watched(bpf_ntohs(tcp.destination_port)) && !is_watched(bpf_ntohs(tcp.source_port)))
        return OTHER_PORT;
    if (event->kind == IPV4_SEGMENT)
        __builtin_memcpy(event->flow + 8, &tcp, 4);
    else
        __builtin_memcpy(event->flow + 32, &tcp, 4);
    u32 header_bytes = (tcp.words >> 4) * 4;
    if (header_bytes < 20 || at->offset + header_bytes > at->end)
        return MALFORMED;
    event->sequence = bpf_ntohl(tcp.sequence);
    event->acknowledgement = bpf_ntohl(tcp.acknowledgement);
    event->flags = tcp.flags;
    at->offset += header_bytes;
    return HAND_UP;
}

static inline enum verdict write(struct __sk_buff *skb, u32 offset, struct event *event, const u32 room)
{
    struct event *record = events.ringbuf_reserve(sizeof(*record) + room);
    if (!record)
        return RING_BUFFER_FULL;
    *record = *event;
    /* Read back, for the verifier to forget how it came about: else it tries each way again that leads here. */
    u64 captured = *(volatile u32 *)&record->captured;
    if (captured <= room) {
        asm volatile("" : "+r"(captured)); /* lest clang make one comparison of two, which the verifier can't follow */
        if (captured && bpf_skb_load_bytes(skb, offset, record + 1, captured))
            record->captured = 0;
    }
    events.ringbuf_submit(record, 0);
    return HAND_UP;
}

static inline enum verdict hand_up(struct __sk_buff *skb, struct place *at, struct event *event)
{
    u32 there = skb->len > at->offset ? skb->len - at->offset : 0;
    event->length = at->end - at->offset;
    /* A flow's appetite belongs here: it shortens `captured`, or lets the segment pass by. */
    event->captured = event->length < there ? event->length : there;
    event->at_boot_ns = bpf_ktime_get_boot_ns();
    if (event->captured == 0) /* acknowledgements */
        return write(skb, 0, event, 0);
    if (event->captured <= 256) /* SMTP lines */
        return write(skb, at->offset, event, 256);
    if (event->captured <= 1536) /* an Ethernet frame */
        return write(skb, at->offset, event, 1536);
    if (event->captured <= 4096)
        return write(skb, at->offset, event, 4096);
    if (event->captured <= 16384)
        return write(skb, at->offset, event, 16384);
    if (event->captured > 65536)
        event->captured = 65536;
    return write(skb, at->offset, event, 65536);
}

static inline enum verdict judge(struct __sk_buff *skb)
{
    struct event event = {};
    struct place at = {};
    enum verdict verdict = HAND_UP;
    u16 protocol = bpf_ntohs(skb->protocol);
    if (is_vlan(protocol))
        verdict = skip_tags(skb, &at, &protocol);
    if (verdict == HAND_UP)
        verdict = protocol == ETHERTYPE_IPV4   ? read_ipv4(skb, &at, &event)
                  : protocol == ETHERTYPE_IPV6 ? read_ipv6(skb, &at, &event)
                                               : NOT_TCP;
    /* A fragment is put together with the others of its datagram in user space: only the first has ports. */
    if (verdict == HAND_UP && event.kind != FRAGMENT_OF_A_PACKET)
        verdict = read_tcp(skb, &at, &event);
    return verdict == HAND_UP ? hand_up(skb, &at, &event) : verdict;
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
