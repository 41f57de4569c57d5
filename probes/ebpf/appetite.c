/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Which bytes of a connection nobody needs. A verdict from user space would come too late: a megabyte over a LAN is over
 * in milliseconds. So the few cues that must act at once are seen here, each by the first bytes of a segment:
 *
 *   354 from the server      a message begins: after its first 16 kB only what may be its end goes up
 *   BDAT n from the client   a chunk of n bytes begins, none of which goes up
 *   a TLS record from the    from now on records are walked by their headers; once both sides have sent application data
 *   client                   often enough for encryption to be established, nothing more goes up
 *
 * Of chunks whose BDAT is not seen here, as it stands behind other commands, user space says how long they are (`asked`).
 * Acknowledgements without data never go up, but for that which ends a handshake (handshake.c).
 *
 * Only the next bytes in order are ever left out. A retransmission, a hole, anything that is not as expected goes up
 * whole, and what was left out before it goes with it as a number: so the reader in user space, who knows the protocol,
 * always has the last word, and never has to believe more than "so many bytes, in order, that began and ended here".
 *
 * Two processors may see two segments of a connection at once. What they then get wrong is a stretch which is too short,
 * and that is a hole to the reader, never a wrong number.
 */

#define WHOLE_MESSAGE_BYTES 16384 /* what the parser keeps behind a loose end, monitor/smtp/body.py; most mail is shorter */
#define SEARCHED_BYTES 2048       /* of each segment the last: all of one from a cable, and what commands may stand behind
                                     the end of a message in a super-segment */
#define MAX_RECORDS 48            /* TLS records that begin in one segment: 64 kB of those that are 1.4 kB */
#define MAX_STRETCH_BYTES (1 << 30) /* before it is told of; half of what a sequence number can tell apart */
#define BIG_SEGMENT_BYTES 1024    /* smaller ones cost less than asking whether user space needs them */

/* monitor/tls/establishment.py */
#define APPLICATION_DATA 23
#define MAX_RECORD_BYTES 18432
#define TURNS 4
#define TURNS_AFTER_EARLY_DATA 8 /* so many more: early data comes before the server has spoken */

enum appetite { EVERYTHING, MESSAGE, CHUNK, RECORDS };

struct side {
    u32 next;         /* the sequence number of the next byte in order */
    u32 until;        /* CHUNK: behind its last byte; RECORDS: where the next one begins */
    u32 skipped;      /* bytes before `next` that were left out since anything went up */
    s32 left;         /* where those ended: probes/segment.py */
    u32 acknowledged; /* how far this side has acknowledged the other */
    u32 furthest;     /* behind the last byte seen, where there is a hole before it */
    u32 shown;        /* MESSAGE: its bytes so far */
    u8 edge[4];       /* MESSAGE: the last bytes so far, if the last is not 0; RECORDS: the last, if a header begins
                         in them */
    u8 appetite;
    u8 held;          /* RECORDS: how many bytes of a header stand in `edge` */
    u8 in_data;       /* RECORDS: in one that counts as a turn at its end */
    bool unsearched : 1; /* MESSAGE: its end may be in what was left out */
    bool begun : 1, has_acknowledged : 1, has_hole : 1, had_hole : 1;
};

struct flow {
    u64 first_at_boot_ns; /* of the packet since which it is followed */
    u64 last_at_boot_ns;
    struct side client, server;
    u8 turns;            /* of application data, client first: monitor/tls/establishment.py */
    u8 turns_needed;
    bool dead;           /* its address and port pair was taken by another connection */
    bool in_tls, server_sent_records;
};

struct ask {
    u32 from, until; /* sequence numbers of the client's bytes that nobody needs */
};

/* Of the packet at hand. Not on the stack: the verifier follows what stands there, and would go every way again. */
struct work {
    struct event event, notice;
    struct place at;
    struct flow_key this_way, other_way;
    struct handshake handshake;
};

struct window {
    u8 before[8];
    u8 bytes[SEARCHED_BYTES + 8];
    u32 found;
};

BPF_TABLE("lru_hash", struct flow_key, struct flow, flows, FLOWS);
BPF_TABLE("lru_hash", struct flow_key, struct ask, asked, 4096);
BPF_PERCPU_ARRAY(windows, struct window, 1);
BPF_PERCPU_ARRAY(works, struct work, 1);

static inline bool is_dark(const struct flow *flow)
{
    return flow->in_tls && flow->turns >= flow->turns_needed;
}

/* Lets an event tell of what was left out before it. */
static inline void add_stretch(struct event *event, const struct side *own)
{
    event->skipped = own->skipped;
    event->skipped_end = own->next;
    event->left = own->left;
    __builtin_memcpy(event->edge, own->edge, 4);
}

/* Tells of what was left out of a side, if anything was, with no segment behind it. */
static inline void give_notice(struct __sk_buff *skb, struct side *own, const struct flow_key *flow,
                               const struct event *now, struct event *notice)
{
    if (!own->skipped)
        return;
    notice->at_boot_ns = now->at_boot_ns;
    notice->kind = now->kind | 1;
    add_stretch(notice, own);
    __builtin_memcpy(notice->flow, flow->flow, 36);
    enum verdict verdict = write(skb, 0, notice, 0);
    if (verdict == HAND_UP)
        own->skipped = 0;
    else
        pass_by(verdict);
}

/* ---------------------------------------------------------------- messages */

/* The top bit of each byte that is this one (and perhaps of some behind the first such). */
static inline u64 where_is(u8 byte, const u8 *eight)
{
    u64 difference = *(const u64 *)eight ^ 0x0101010101010101ull * byte;
    return (difference - 0x0101010101010101ull) & ~difference & 0x8080808080808080ull;
}

/* May the end of a message stand where two segments meet? `edge`: the last bytes of the first; `edge[3]` 0: not known. */
static inline bool may_end_here(struct __sk_buff *skb, u32 offset, const u8 *edge)
{
    u8 next[2];
    bool behind_dot = (edge[3] == '.' && edge[2] == '\n') || (edge[3] == '\r' && edge[2] == '.' && edge[1] == '\n');
    if (edge[3] && edge[3] != '\n' && !behind_dot)
        return false;
    if (bpf_skb_load_bytes(skb, offset, next, 2))
        return true;
    bool is_dot = next[0] == '.' && (next[1] == '\r' || next[1] == '\n');
    bool is_line_end = next[0] == '\r' || next[0] == '\n';
    return edge[3] == '\n' ? is_dot : is_line_end || (is_dot && !edge[3]);
}

/* How many of the segment's first bytes are certainly not the end of the message, nor behind it. */
static inline u32 before_end_of_message(struct __sk_buff *skb, u32 offset, u32 length, struct side *own)
{
    own->shown += length;
    if (own->shown <= WHOLE_MESSAGE_BYTES || length < 4) {
        if (length < 4 || bpf_skb_load_bytes(skb, offset + length - 4, own->edge, 4))
            own->edge[3] = 0;
        return 0;
    }
    if (may_end_here(skb, offset, own->edge)) {
        own->appetite = EVERYTHING;
        return 0;
    }
    int zero = 0;
    struct window *window = windows.lookup(&zero);
    if (!window)
        return 0;
    u64 searched = length < SEARCHED_BYTES ? length : SEARCHED_BYTES;
    u64 over = searched - 4; /* one comparison for both bounds, as in end_of_chunk */
    OPAQUE(over);
    if (over > SEARCHED_BYTES - 4)
        return 0;
    searched = over + 4;
    if (bpf_skb_load_bytes(skb, offset + length - searched, window->bytes, searched))
        return 0;
    if (length > searched)
        own->unsearched = true;
    *(u64 *)window->before = 0;
    *(u64 *)(window->bytes + searched) = 0;
    u32 found = SEARCHED_BYTES;
#pragma clang loop unroll(disable)
    for (u32 place = 0; place < SEARCHED_BYTES; place += 8) {
        if (place >= searched)
            break;
        const u8 *eight = window->bytes + place;
        u64 dots = where_is('.', eight);
        /* A dot behind which no line end stands is the first byte of a line like any other. */
        if (dots && dots & where_is('\n', eight - 1) & (where_is('\r', eight + 1) | where_is('\n', eight + 1))) {
            found = place;
            break;
        }
    }
    *(volatile u32 *)&window->found = found;
    found = *(volatile u32 *)&window->found; /* for the verifier to forget in which round it was */
    if (bpf_skb_load_bytes(skb, offset + length - 4, own->edge, 4))
        return 0;
    if (found >= searched)
        return length;
    own->appetite = EVERYTHING;
    /* From a few bytes before the word on: the reader wants to see the line end before the dot. */
    u32 at = length - searched + found;
    return at > 8 ? at - 8 : 0;
}

/* ---------------------------------------------------------------- TLS */

/* A header as a number, its first byte lowest; false where no record begins so. */
static inline bool read_header(u64 header, u32 *type, u32 *length)
{
    *type = header & 0xFF;
    *length = (header >> 24 & 0xFF) << 8 | (header >> 32 & 0xFF);
    return *type >= 20 && *type <= 24 && (header >> 8 & 0xFF) == 3 && (header >> 16 & 0xFF) <= 4 && *length > 0 &&
           *length <= MAX_RECORD_BYTES;
}

/* In numbers and not by branches: the verifier goes each way of each branch for each record. */
static inline u32 is_zero(u64 number)
{
    number = (number | -number) >> 63;
    OPAQUE(number);
    return number ^ 1;
}

static inline u32 is_less(u32 one, u32 other)
{
    u64 difference = (u64)one - other;
    OPAQUE(difference);
    return difference >> 63;
}

/* A record came to its end: if it is application data, as far as can be told, and this is the side whose turn it is, that
 * is a turn. */
static inline void count_turn(struct flow *flow, bool from_client, u32 is_data)
{
    flow->turns += is_data & (from_client ^ (flow->turns & 1)) & is_less(flow->turns, 255);
}

/* A header was read, and its body begins at `at`: returns where that ends, in this segment or in one to come. */
static inline u32 enter_record(struct flow *flow, struct side *own, bool from_client, u32 type, u32 body, u32 at,
                               u32 length)
{
    /* An alert's length proves nothing. */
    u32 is_data = is_zero(type ^ APPLICATION_DATA) & ~is_zero(body ^ 11) & ~is_zero(body ^ 19) & 1;
    if (from_client)
        flow->turns_needed |= (is_data & is_zero(flow->server_sent_records)) * TURNS_AFTER_EARLY_DATA;
    else
        flow->server_sent_records = true;
    at += body;
    u32 is_whole = is_less(at, length + 1);
    own->in_data = is_data & ~is_whole;
    count_turn(flow, from_client, is_data & is_whole);
    return at;
}

/* Walks the headers in the next segment; false where no record begins when one should, or there are too many. */
static inline bool walk_records(struct __sk_buff *skb, u32 offset, u32 length, struct flow *flow, struct side *own,
                                bool from_client, u32 sequence)
{
    u32 at = own->until - sequence;
    u32 type, body;
    u64 header = 0;
    if (own->in_data && at <= length) {
        own->in_data = 0;
        count_turn(flow, from_client, true);
    }
    if (own->held) {
        u32 rest, begun;
        if (length < 4 || bpf_skb_load_bytes(skb, offset, &rest, 4))
            return false;
        __builtin_memcpy(&begun, own->edge, 4);
        u32 held = own->held & 7;
        header = (u64)begun >> 8 * (4 - held) | (u64)rest << 8 * held;
        if (!read_header(header, &type, &body))
            return false;
        at = enter_record(flow, own, from_client, type, body, 5 - held, length);
        own->held = 0;
    }
#pragma clang loop unroll(disable)
    for (int i = 0; i < MAX_RECORDS; i++) {
        if (at >= length) {
            own->until = sequence + at;
            return true;
        }
        if (length - at < 5) {
            if (length < 4 || bpf_skb_load_bytes(skb, offset + length - 4, own->edge, 4))
                return false;
            own->held = length - at;
            own->until = sequence + at;
            return true;
        }
        header = 0;
        if (bpf_skb_load_bytes(skb, offset + at, &header, 5) || !read_header(header, &type, &body))
            return false;
        own->until = sequence + enter_record(flow, own, from_client, type, body, at + 5, length);
        at = *(volatile u32 *)&own->until - sequence; /* for the verifier to forget what was before */
    }
    return false;
}

/* How many of the segment's first bytes nobody needs. */
static inline u32 before_clear_text(struct __sk_buff *skb, u32 offset, u32 length, struct flow *flow, struct side *own,
                                    bool from_client, u32 sequence)
{
    bool was_dark = is_dark(flow);
    if (!own->until && !own->held)
        own->until = sequence;
    if (walk_records(skb, offset, length, flow, own, from_client, sequence))
        return was_dark ? length : 0;
    own->appetite = EVERYTHING;
    return 0;
}

static inline void begin_records(struct flow *flow, u32 sequence)
{
    flow->in_tls = true;
    flow->client.appetite = flow->server.appetite = RECORDS;
    flow->client.until = sequence;
    flow->server.until = flow->server.begun ? flow->server.next : 0;
}

/* ---------------------------------------------------------------- cues */

/*
 * Behind the last byte of the chunk that a BDAT at `sequence` announces (RFC 3030 section 2), or `sequence` where it is
 * written otherwise than programs write it: what it means then is for user space to say.
 */
static inline u32 end_of_chunk(struct __sk_buff *skb, u32 offset, u32 length, u32 sequence)
{
    int zero = 0;
    struct window *window = windows.lookup(&zero);
    u64 there = length < 32 ? length : 32;
    /* One comparison for both bounds: between two of them clang may put the number on the stack, and before Linux 6.8 the
     * verifier may forget there what the first has told it. */
    u64 over = there - 8;
    OPAQUE(over);
    if (!window || over > 32 - 8)
        return sequence;
    there = over + 8;
    if (bpf_skb_load_bytes(skb, offset, window->bytes, there))
        return sequence;
    *(u64 *)(window->bytes + there) = 0;
    u32 size = 0, at = 5;
#pragma clang loop unroll(disable)
    for (; at < 14; at++) { /* nine digits; more is more than a sequence number can tell apart */
        u8 digit = window->bytes[at] - '0';
        if (digit > 9)
            break;
        size = size * 10 + digit;
    }
    *(volatile u32 *)&window->found = at;
    at = *(volatile u32 *)&window->found & 15;
    u64 rest = *(u64 *)(window->bytes + at) | 0x2020202000ull;
    if ((rest & 0xFF) == '\n')
        return sequence + at + 1 + size;
    if (*(u16 *)(window->bytes + at) == 0x0A0D) /* CR LF */
        return sequence + at + 2 + size;
    if ((rest & 0xFFFFFFFFFFFFFFull) == 0x0A0D7473616C20ull) /* LAST CR LF */
        return sequence + at + 7 + size;
    return sequence;
}

/* How many of the segment's first bytes nobody needs, at a place where all are needed as far as is known. Where TLS records
 * begin, `own->appetite` says so, and nothing is said yet. */
static inline u32 look_for_cue(struct __sk_buff *skb, u32 offset, u32 length, struct flow *flow, struct side *own,
                               const struct flow_key *key, bool from_client, u32 sequence)
{
    u8 head[5];
    if (flow->in_tls || length < 5 || bpf_skb_load_bytes(skb, offset, head, 5))
        return 0;
    if (!from_client) {
        if (head[0] == '3' && head[1] == '5' && head[2] == '4') {
            flow->client.appetite = MESSAGE;
            flow->client.shown = 0;
            flow->client.unsearched = false;
            flow->client.edge[3] = '\n'; /* of the DATA line */
        }
        return 0;
    }
    if (head[0] == 22 && head[1] == 3 && head[2] <= 4) {
        begin_records(flow, sequence);
        return 0;
    }
    if ((head[0] | 0x20) == 'b' && (head[1] | 0x20) == 'd' && (head[2] | 0x20) == 'a' && (head[3] | 0x20) == 't' &&
        head[4] == ' ') {
        own->until = end_of_chunk(skb, offset, length, sequence);
        if ((s32)(own->until - (sequence + length)) > 0)
            own->appetite = CHUNK;
        own->unsearched = false;
        return 0;
    }
    if (length < BIG_SEGMENT_BYTES)
        return 0;
    struct ask *ask = asked.lookup((struct flow_key *)key);
    if (!ask || (s32)(sequence - ask->from) < 0 || (s32)(ask->until - sequence) <= 0)
        return 0;
    own->until = ask->until;
    own->unsearched = false;
    own->appetite = CHUNK;
    u32 unneeded = own->until - sequence;
    if (unneeded > length)
        return length;
    own->appetite = EVERYTHING;
    return unneeded;
}

/* How many of the first bytes of the next segment in order nobody needs. */
static inline u32 unneeded_bytes(struct __sk_buff *skb, u32 offset, u32 length, struct flow *flow, struct side *own,
                                 const struct flow_key *key, bool from_client, u32 sequence)
{
    if (from_client && own->appetite == MESSAGE)
        return before_end_of_message(skb, offset, length, own);
    if (from_client && own->appetite == CHUNK) {
        u32 unneeded = own->until - sequence;
        if (unneeded >= length)
            return length;
        own->appetite = EVERYTHING;
        if (unneeded)
            return unneeded;
    }
    u32 unneeded = 0;
    if (own->appetite != RECORDS)
        unneeded = look_for_cue(skb, offset, length, flow, own, key, from_client, sequence);
    if (own->appetite == RECORDS) /* now, or since before. In one place: it is half of what the verifier has to walk */
        return before_clear_text(skb, offset, length, flow, own, from_client, sequence);
    return unneeded;
}

/* Goes on at another place than the next in order: what is between was handed up. */
static inline void go_on_at(struct side *own, u32 next)
{
    own->next = next;
    own->edge[3] = 0;
    if (own->appetite == CHUNK && (s32)(own->until - next) <= 0)
        own->appetite = EVERYTHING;
    if (own->appetite == RECORDS && (own->held || (s32)(own->until - next) < 0))
        own->appetite = EVERYTHING; /* where the next record begins is not known any more */
}

/* Puts into `event` what is to go up of a segment: all of it, a part, or nothing (UNNEEDED). */
static inline enum verdict cut(struct __sk_buff *skb, struct place *at, struct event *event, struct flow *flow,
                               const struct flow_key *key, bool is_new)
{
    bool from_client = at->to_server;
    struct side *own = from_client ? &flow->client : &flow->server;
    struct side *other = from_client ? &flow->server : &flow->client;
    bool ends = event->flags & (TCP_FIN | TCP_RST), is_first = !own->begun;
    flow->last_at_boot_ns = event->at_boot_ns;
    if (event->flags & TCP_ACK &&
        (!own->has_acknowledged || (s32)(event->acknowledgement - own->acknowledged) > 0)) {
        own->acknowledged = event->acknowledgement;
        own->has_acknowledged = true;
    }
    if (is_first) {
        own->begun = true;
        own->next = event->sequence;
    }
    if (!event->length && !ends && !is_new && !(is_first && from_client))
        return UNNEEDED;
    add_stretch(event, own);
    u32 end = event->sequence + event->length;
    s32 ahead = event->sequence - own->next;
    if (event->length && !from_client && other->appetite == MESSAGE)
        other->appetite = EVERYTHING; /* the message is over, or the server will take no more of it */
    if (ends || !event->length) {
        if (!ahead)
            own->next = end;
        return HAND_UP;
    }
    if (event->captured != event->length) { /* the kernel has less of it than its header says */
        own->appetite = EVERYTHING;
        own->has_hole = own->had_hole = true;
        own->furthest = end;
        return HAND_UP;
    }
    if (ahead) {
        if ((s32)(end - own->next) <= 0) /* an old one */
            return own->had_hole || own->appetite == EVERYTHING || (own->appetite == RECORDS && !is_dark(flow))
                       ? HAND_UP
                       : UNNEEDED;
        own->had_hole = true;
        if (ahead < 0)
            go_on_at(own, end);
        else if (!own->has_hole || (s32)(end - own->furthest) > 0) {
            own->has_hole = true;
            own->furthest = end;
        }
        return HAND_UP;
    }
    if (own->has_hole) {
        own->has_hole = false;
        go_on_at(own, (s32)(own->furthest - end) > 0 ? own->furthest : end);
        return HAND_UP;
    }
    /* Read back, for the verifier to forget by which of the ways above it came here: before Linux 6.8 it goes the rest once
     * for each, and its patience ends at 1,000,000 instructions. */
    u32 offset = *(volatile u32 *)&at->offset, length = *(volatile u32 *)&event->length;
    u32 sequence = *(volatile u32 *)&event->sequence;
    u32 unneeded = unneeded_bytes(skb, offset, length, flow, own, key, from_client, sequence);
    own->next = end;
    if (unneeded >= event->length && own->skipped < MAX_STRETCH_BYTES) {
        own->skipped += event->length;
        own->left = own->appetite == MESSAGE ? own->unsearched : (s32)(own->until - end);
        return UNNEEDED;
    }
    if (unneeded && unneeded < event->length) {
        event->skipped += unneeded;
        event->skipped_end += unneeded;
        event->sequence += unneeded;
        event->length -= unneeded;
        event->captured -= unneeded;
        event->left = own->unsearched; /* in a chunk, its end: none is left of it */
        __builtin_memset(event->edge, 0, 4);
        at->offset += unneeded;
    }
    return HAND_UP;
}

/*
 * Decides about a segment, and tells first of what was left out of the other side: each goes up behind all that its
 * sender had heard. `told` is then the side of which the segment itself will tell; none where it is of no known flow.
 */
static inline enum verdict judge_in_flow(struct __sk_buff *skb, struct work *work, struct side **told)
{
    struct event *event = &work->event, *notice = &work->notice;
    struct place *at = &work->at;
    struct flow_key *this_way = &work->this_way, *other_way = &work->other_way;
    bool from_client = at->to_server;
    __builtin_memcpy(this_way, event->flow, sizeof(*this_way));
    __builtin_memset(other_way, 0, sizeof(*other_way));
    reverse(other_way->flow, event->flow, event->kind == IPV4_SEGMENT);
    struct flow_key *key = from_client ? this_way : other_way;
    struct flow *flow = flows.lookup(key);
    bool is_new = !flow;
    if (is_new || event->flags & TCP_SYN) {
        enum verdict verdict =
            judge_handshake(skb, event, key, from_client ? other_way : this_way, from_client, !is_new,
                            &work->handshake, notice);
        if (verdict != HAND_UP)
            return verdict;
    }
    if (is_new && !(event->flags & (TCP_SYN | TCP_RST))) {
        struct flow fresh = {.first_at_boot_ns = event->at_boot_ns, .turns_needed = TURNS};
        flows.update(key, &fresh);
        flow = flows.lookup(key);
    }
    if (!flow || flow->dead)
        return HAND_UP;
    struct side *own = from_client ? &flow->client : &flow->server;
    struct side *other = from_client ? &flow->server : &flow->client;
    if (event->flags & TCP_SYN) {
        /* Another connection has taken the pair. User space, which reads this one yet, takes it away. */
        flow->dead = true;
        give_notice(skb, own, this_way, event, notice);
    } else {
        if (cut(skb, at, event, flow, key, is_new) != HAND_UP)
            return UNNEEDED;
        *told = own;
    }
    give_notice(skb, other, other_way, event, notice);
    return HAND_UP;
}
