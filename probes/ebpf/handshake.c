/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * A handshake under way stays here: its SYN and the SYN/ACK that answers it, until another segment of their connection
 * comes. Then they go up before that one, with the times and numbers they had. So user space sees of a connection the same
 * segments in the same order, and a flood of SYNs, of which nothing comes, costs it nothing.
 *
 * What does not look like the first two packets of a handshake goes up, and what is held goes before it: data in a SYN
 * (RFC 7413), another answer, a SYN behind its answer. From then on that handshake is user space's (`told`), so that it is counted once.
 * Only three things end here, each as monitor/sessions/table.py would end them: the same SYN or SYN/ACK once more is no
 * news; a reset refuses the handshake; another SYN takes its place.
 *
 * How many came to nothing can't be counted where it happens, as the map forgets without a word. User space finds it:
 * those that began, less those that went up, less those that are held yet (probes/ebpf/handshakes.py).
 *
 * A connection whose handshake was forgotten before its client answered goes up as one that began before the capture.
 */

/* A handshake that is older does not go up: its time would seem to be that of another day (_CLOCK_STEP_NS in
 * monitor/sessions/table.py). A retransmission after a fifth of that goes up, and what is held before it: packets are
 * repeated after 1, 3, 7, 15 seconds (RFC 6298), so of one that gets anywhere nothing is held for as long. */
#define HELD_NS (HELD_SECONDS * 1000000000ull)
#define HELD_QUIETLY_NS (HELD_NS / 5)

struct handshake {
    u64 since_boot_ns; /* when its first packet was seen; `told`: when it went up */
    u64 answered_boot_ns;
    u32 client_sequence, server_sequence; /* of the SYN, of the SYN/ACK */
    u32 acknowledgement;                  /* in the SYN/ACK */
    u8 syn, syn_ack;                      /* their flags; 0: not seen */
    bool told;
    u8 unused;
};

struct handshake_counts {
    u64 begun, told;  /* handshakes: those held, and how many of them went up */
    u64 told_packets; /* `passed_by` has how many were held */
};

BPF_TABLE("lru_hash", struct flow_key, struct handshake, handshakes, HANDSHAKES);
BPF_PERCPU_ARRAY(handshake_counts, struct handshake_counts, 1);

static inline void tell_packet(struct __sk_buff *skb, struct event *notice)
{
    enum verdict verdict = write(skb, 0, notice, 0);
    if (verdict != HAND_UP)
        pass_by(verdict);
}

/* Hands up what is held of a handshake, and forgets it. */
static inline void tell(struct __sk_buff *skb, const struct event *now, const struct flow_key *from_client,
                        const struct flow_key *from_server, struct handshake *held, struct event *notice)
{
    int zero = 0;
    struct handshake_counts *counts = handshake_counts.lookup(&zero);
    if (handshakes.delete((struct flow_key *)from_client) || !counts) /* another processor was faster */
        return;
    if (now->at_boot_ns - held->since_boot_ns > HELD_NS)
        return;
    counts->told++;
    __builtin_memset(notice, 0, sizeof(*notice));
    notice->kind = now->kind;
    if (held->syn) {
        counts->told_packets++;
        notice->at_boot_ns = held->since_boot_ns;
        notice->sequence = held->client_sequence;
        notice->flags = held->syn;
        __builtin_memcpy(notice->flow, from_client->flow, 36);
        tell_packet(skb, notice);
    }
    if (held->syn_ack) {
        counts->told_packets++;
        notice->at_boot_ns = held->answered_boot_ns;
        notice->sequence = held->server_sequence;
        notice->acknowledgement = held->acknowledgement;
        notice->flags = held->syn_ack;
        __builtin_memcpy(notice->flow, from_server->flow, 36);
        tell_packet(skb, notice);
    }
}

static inline void add_syn(struct handshake *handshake, const struct event *event)
{
    handshake->client_sequence = event->sequence;
    handshake->syn = event->flags;
}

static inline void add_syn_ack(struct handshake *handshake, const struct event *event)
{
    handshake->answered_boot_ns = event->at_boot_ns;
    handshake->server_sequence = event->sequence;
    handshake->acknowledgement = event->acknowledgement;
    handshake->syn_ack = event->flags;
}

/* Puts this one in the place of any that is held of the pair; false where the map has no room. */
static inline bool begin(const struct flow_key *key, const struct event *event, bool told, struct handshake *fresh)
{
    __builtin_memset(fresh, 0, sizeof(*fresh));
    fresh->since_boot_ns = event->at_boot_ns;
    fresh->told = told;
    if (event->flags & TCP_ACK)
        add_syn_ack(fresh, event);
    else
        add_syn(fresh, event);
    return !handshakes.update((struct flow_key *)key, fresh);
}

/* Of the first two packets of a handshake, one that carries nothing else: what becomes of it here. HAND_UP: nothing. */
static inline enum verdict hold(const struct flow_key *key, const struct event *event, struct handshake *known,
                                struct handshake *fresh)
{
    bool is_syn = !(event->flags & TCP_ACK);
    if (!known || (is_syn && known->syn && !known->told && known->client_sequence != event->sequence)) {
        int zero = 0;
        struct handshake_counts *counts = handshake_counts.lookup(&zero);
        if (!counts || !begin(key, event, false, fresh))
            return HAND_UP;
        counts->begun++;
        return HELD;
    }
    bool is_quiet = event->at_boot_ns - known->since_boot_ns < HELD_QUIETLY_NS;
    if (is_syn)
        return known->syn && known->client_sequence == event->sequence && is_quiet ? UNNEEDED : HAND_UP;
    if (known->told)
        return HAND_UP;
    if (known->syn_ack)
        return known->server_sequence == event->sequence && known->acknowledgement == event->acknowledgement && is_quiet
                   ? UNNEEDED
                   : HAND_UP;
    add_syn_ack(known, event);
    return HELD;
}

/*
 * Decides about a segment of a connection that is not followed yet, or with a SYN. `is_followed`: the pair has had a
 * connection that user space may be reading still, which this SYN ends. `mine`, `notice`: room to work in.
 */
static inline enum verdict judge_handshake(struct __sk_buff *skb, const struct event *event,
                                           const struct flow_key *from_client, const struct flow_key *from_server,
                                           bool is_from_client, bool is_followed, struct handshake *mine,
                                           struct event *notice)
{
    if (event->flags & TCP_SYN && is_from_client == !!(event->flags & TCP_ACK))
        return HAND_UP; /* from the wrong side: it begins nothing */
    struct handshake *known = handshakes.lookup((struct flow_key *)from_client);
    u8 kind = event->flags & (TCP_SYN | TCP_RST);
    if (kind == TCP_SYN && !event->length && !is_followed) {
        enum verdict verdict = hold(from_client, event, known, mine);
        if (verdict != HAND_UP)
            return verdict;
    }
    bool was_told = known && known->told;
    if (known && kind == TCP_RST) {
        handshakes.delete((struct flow_key *)from_client);
        return was_told ? HAND_UP : UNNEEDED;
    }
    if (known && !was_told) {
        *mine = *known;
        tell(skb, event, from_client, from_server, mine, notice);
    }
    if (event->flags & TCP_SYN)
        begin(from_client, event, true, mine);
    return HAND_UP;
}
