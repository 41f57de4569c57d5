/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What goes up through the ring buffer, and what is counted of the rest. probes/ebpf/event.py unpacks it.
 */

/* What becomes of a packet: all but HAND_UP are counted in `passed_by`. probes/ebpf/program.py has the order too. HELD: it
 * waits for the next of its connection, handshake.c. */
enum verdict { HAND_UP, OTHER_PORT, NOT_TCP, MALFORMED, RING_BUFFER_FULL, UNNEEDED, HELD, VERDICTS };

enum kind { FRAGMENT_OF_A_PACKET = 0, IPV4_SEGMENT = 4, IPV4_NOTICE = 5, IPV6_SEGMENT = 6, IPV6_NOTICE = 7 };

/*
 * A segment, its payload behind it; and before that segment a stretch of its direction that nobody needed: `skipped`
 * bytes, which end before the sequence number `skipped_end`. A notice is a stretch alone.
 */
struct event {
    u64 at_boot_ns;
    u32 length;   /* payload by the IP header; of a fragment, the whole packet */
    u32 captured; /* payload bytes that follow */
    u32 sequence, acknowledgement;
    u32 skipped, skipped_end;
    s32 left;     /* where the stretch ended: probes/segment.py */
    u8 edge[4];   /* the stretch's last bytes, where they matter */
    u8 kind, flags;
    u16 unused;
    u8 flow[36];  /* addresses and ports as in the packet; IPv4: the first 12 bytes */
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(passed_by, u64, VERDICTS);

static inline void pass_by(int verdict)
{
    u64 *count = passed_by.lookup(&verdict);
    if (count)
        (*count)++;
}

static inline enum verdict write(struct __sk_buff *skb, u32 offset, struct event *event, const u32 room)
{
    struct event *record = events.ringbuf_reserve(sizeof(*record) + room);
    if (!record)
        return RING_BUFFER_FULL;
    *record = *event;
    /* Read back, for the verifier to forget how it came about: else it tries each way again that leads here. And one
     * comparison for both bounds, as before Linux 6.8 `!= 0` tells the verifier nothing about the least. */
    u64 all_but_one = *(volatile u32 *)&record->captured - 1ull;
    OPAQUE(all_but_one);
    if (all_but_one < room && bpf_skb_load_bytes(skb, offset, record + 1, all_but_one + 1))
        record->captured = 0;
    events.ringbuf_submit(record, 0);
    return HAND_UP;
}

/* `captured` bytes of the payload, which begin at `offset`. */
static inline enum verdict hand_up(struct __sk_buff *skb, u32 offset, struct event *event)
{
    if (event->captured == 0) /* SYN, FIN, RST, notices */
        return write(skb, 0, event, 0);
    if (event->captured <= 64) /* most commands and replies */
        return write(skb, offset, event, 64);
    if (event->captured <= 256) /* the longest of them, and EHLO's answer */
        return write(skb, offset, event, 256);
    if (event->captured <= 1536) /* an Ethernet frame */
        return write(skb, offset, event, 1536);
    if (event->captured <= 4096)
        return write(skb, offset, event, 4096);
    if (event->captured <= 16384)
        return write(skb, offset, event, 16384);
    if (event->captured > 65536)
        event->captured = 65536;
    return write(skb, offset, event, 65536);
}
