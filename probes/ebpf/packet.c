/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * From the first byte that the kernel shows of a packet to the payload of its TCP segment: VLAN tags, IPv4, IPv6 with
 * extension headers, TCP. Fragments are told apart, and not read: only the first has ports.
 */

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

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Where in the packet, from the start that the kernel shows. */
struct place {
    u32 offset;      /* of the next header; at last, of the payload */
    u32 end;         /* by the IP header: Ethernet pads short packets */
    bool to_server, to_client; /* which ports are watched: the destination's, the source's */
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

/* Addresses and ports, as in `struct event`: of a connection, those that its client sends. */
struct flow_key {
    u8 flow[36];
};

static inline void reverse(u8 *to, const u8 *flow, bool is_ipv4)
{
    struct { u32 source, destination; u16 source_port, destination_port; } four;
    struct { u64 source[2], destination[2]; u16 source_port, destination_port; } six;
    if (is_ipv4) {
        __builtin_memcpy(&four, flow, 12);
        __builtin_memcpy(to, &four.destination, 4);
        __builtin_memcpy(to + 4, &four.source, 4);
        __builtin_memcpy(to + 8, &four.destination_port, 2);
        __builtin_memcpy(to + 10, &four.source_port, 2);
    } else {
        __builtin_memcpy(&six, flow, 36);
        __builtin_memcpy(to, six.destination, 16);
        __builtin_memcpy(to + 16, six.source, 16);
        __builtin_memcpy(to + 32, &six.destination_port, 2);
        __builtin_memcpy(to + 34, &six.source_port, 2);
    }
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

static inline bool is_extension(u8 header)
{
    return header == HOP_BY_HOP || header == ROUTING || header == FRAGMENT || header == AUTHENTICATION ||
           header == DESTINATION || header == MOBILITY || header == HIP || header == SHIM6;
}

enum chain { GOES_ON, IS_FRAGMENT, LEADS_ELSEWHERE, IS_CUT };

/* Goes past one extension header, if `next` names one. */
static inline enum chain skip_extension(struct __sk_buff *skb, u32 *offset, u8 *next)
{
    struct { u8 next_header, length; u16 fragment; } extension;
    if (!is_extension(*next))
        return LEADS_ELSEWHERE;
    if (bpf_skb_load_bytes(skb, *offset, &extension, sizeof(extension)))
        return IS_CUT;
    if (*next == FRAGMENT) {
        if (extension.fragment & bpf_htons(IPV6_MORE_FRAGMENTS_OR_OFFSET))
            return IS_FRAGMENT;
        *offset += 8; /* the only one of its datagram, RFC 6946 */
    } else if (*next == AUTHENTICATION) /* RFC 4302 section 2.2 */
        *offset += (extension.length + 2) * 4;
    else /* RFC 8200 section 4.2 */
        *offset += (extension.length + 1) * 8;
    *next = extension.next_header;
    return GOES_ON;
}

static inline enum verdict read_ipv6(struct __sk_buff *skb, struct place *at, struct event *event)
{
    struct ipv6_header ip;
    if (bpf_skb_load_bytes(skb, at->offset, &ip, sizeof(ip)) || ip.version_and_class >> 4 != 6)
        return MALFORMED;
    u32 offset = at->offset + sizeof(ip);
    at->end = ip.payload_length ? offset + bpf_ntohs(ip.payload_length) : skb->len; /* 0: as above */
    u8 next = ip.next_header;
    enum chain chain = GOES_ON;
    /* Without CAP_PERFMON the verifier also follows what a processor may speculate, for example that a loop goes on, and
     * so (Linux 5.10 to 6.12) comes to no end. So there it is no loop: clang unrolls it, if no round has a way out of its
     * own. The full filter, which is not loaded without CAP_PERFMON, takes the verifier half as long with the loop. */
#if APPETITE
#pragma clang loop unroll(disable)
#else
#pragma clang loop unroll(full)
#endif
    for (int count = 0; count < MAX_IPV6_EXTENSION_HEADERS; count++)
        if (chain == GOES_ON && next != TCP)
            chain = skip_extension(skb, &offset, &next);
    if (chain == IS_FRAGMENT)
        return HAND_UP;
    if (chain == LEADS_ELSEWHERE)
        return NOT_TCP;
    if (chain == IS_CUT || next != TCP)
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
    at->to_server = is_watched(bpf_ntohs(tcp.destination_port));
    at->to_client = is_watched(bpf_ntohs(tcp.source_port));
    if (!at->to_server && !at->to_client)
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
