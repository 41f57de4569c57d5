/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the server reads. Only what is listed here goes up, the rest of a line is left out:
 *
 *   MAIL, RCPT                                the whole line
 *   BDAT                                      the whole line, and of the chunk its size
 *   AUTH                                      the mechanism
 *   HELO, EHLO, LHLO, RSET, NOOP, QUIT, ...   the verb
 *   anything else                             "?"
 *
 * Of messages their length goes up. A secret or a byte of a message gets no further than the window in which it is looked
 * at: a map that no process has hold of, and that is wiped at the end of each call.
 */

#define FOUR(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)
#define CAPITALS 0xdfdfdfdf
#define WORD_BYTES_MAX 24 /* a mechanism has 20 at most (RFC 4422 section 3.1), a chunk's size as many digits */

#define CHUNK_MAX (1ull << 56) /* of a chunk: what is said to be larger is as good as endless */

/* Of a window in which a message may end: as many as the verifier has patience for. */
#define BODY_BYTES_AT_ONCE 64

#define IS_AUTH FOUR('A', 'U', 'T', 'H')
#define IS_BDAT FOUR('B', 'D', 'A', 'T')
#define IS_DATA FOUR('D', 'A', 'T', 'A')
#define IS_STARTTLS FOUR('S', 'T', 'A', 'R')

static inline enum rest rest_behind(u32 verb, u8 separator)
{
    if (separator > ' ')
        return DROP;
    if (verb == FOUR('M', 'A', 'I', 'L') || verb == FOUR('R', 'C', 'P', 'T'))
        return PASS;
    return verb == IS_AUTH || verb == IS_BDAT ? WORD : DROP;
}

/* Those whose verb goes up alone. */
static inline bool is_known(u32 verb)
{
    return verb == FOUR('E', 'H', 'L', 'O') || verb == FOUR('H', 'E', 'L', 'O') || verb == FOUR('L', 'H', 'L', 'O') ||
           verb == IS_DATA || verb == FOUR('R', 'S', 'E', 'T') || verb == FOUR('Q', 'U', 'I', 'T') ||
           verb == FOUR('N', 'O', 'O', 'P') || verb == FOUR('V', 'R', 'F', 'Y') || verb == FOUR('E', 'X', 'P', 'N') ||
           verb == FOUR('H', 'E', 'L', 'P') || verb == FOUR('E', 'T', 'R', 'N');
}

/* Where in the window this byte stands first; WINDOW_BYTES or more: nowhere. */
static inline u64 find(struct event *event, u8 byte)
{
    u64 found = WINDOW_BYTES;
#pragma clang loop unroll(disable)
    for (u32 at = 0; at < WINDOW_BYTES; at += 8) {
        u64 difference = *(const u64 *)(event->text + at) ^ 0x0101010101010101ull * byte;
        u64 hits = (difference - 0x0101010101010101ull) & ~difference & 0x8080808080808080ull;
        if (hits) {
            u64 lowest = (hits & -hits) >> 7;
            found = at + (lowest * 0x0001020304050607ull >> 56);
            break;
        }
    }
    FORGET(event, found);
    return found;
}

/* A command line is over. */
static inline void end_line(struct stream *stream)
{
    stream->pending++;
    stream->rest = VERB;
    stream->verb_bytes = 0;
    if (stream->verb == IS_AUTH || stream->verb == IS_DATA || stream->verb == IS_STARTTLS) {
        stream->phase = AWAIT;
        stream->length = 0;
        return;
    }
    if (stream->verb == IS_BDAT && stream->size) {
        stream->phase = IN_CHUNK;
        stream->length = stream->size;
    }
    stream->verb = 0;
}

/* The verb is known, and what separates it from the rest. It goes up; the rest follows. */
static inline void take_verb(struct stream *stream, struct event *event, u8 separator)
{
    u32 verb = stream->verb;
    enum rest rest = stream->verb_bytes == 4 ? rest_behind(verb, separator) : DROP;
    bool is_listed = rest != DROP || (stream->verb_bytes == 4 && separator <= ' ' && is_known(verb));
    bool is_starttls = verb == IS_STARTTLS && stream->verb_bytes == 4;
    stream->rest = rest;
    stream->size = 0;
    stream->word_bytes = 0;
    if (!is_listed && !is_starttls)
        stream->verb = 0;
    *(u32 *)event->text = is_listed ? verb : '?';
    tell(stream, event, COMMANDS, 0, is_listed ? 4 : 1);
}

/* VERB: the bytes of the verb, which may come one by one. How many of the window are done with. */
static inline u64 read_verb(struct stream *stream, struct event *event, u64 there)
{
    u64 used = 0;
    u8 separator = 0;
    bool is_whole = false;
#pragma clang loop unroll(disable)
    for (u32 at = 0; at < 5; at++) {
        if (is_whole || at >= there)
            break;
        u8 byte = event->text[at];
        if (byte <= ' ' || stream->verb_bytes >= 4) {
            separator = byte;
            is_whole = true;
        } else {
            stream->verb |= (u32)(byte & 0xdf) << (stream->verb_bytes * 8 & 31);
            stream->verb_bytes++;
            used++;
        }
    }
    if (is_whole)
        take_verb(stream, event, separator);
    return used;
}

/* WORD: the first behind the verb. How many of the window are done with. */
static inline u64 read_word(struct stream *stream, struct event *event, u64 there)
{
    u64 used = 0, is_over = 0, size = stream->size, bytes = stream->word_bytes;
#pragma clang loop unroll(disable)
    for (u32 at = 0; at < WORD_BYTES_MAX; at++) {
        u8 byte = event->text[at];
        if (at < there && !is_over) {
            used = at + 1;
            if (byte > ' ') {
                bytes++;
                size = byte < '0' || byte > '9' ? 0 : size > CHUNK_MAX ? size : size * 10 + (byte - '0');
            } else if (bytes || byte == '\r' || byte == '\n') {
                is_over = 1;
                used = at;
            }
        }
        FORGET(event, bytes);
        FORGET(event, size);
        FORGET(event, used);
        FORGET(event, is_over);
    }
    stream->size = size;
    stream->word_bytes = bytes < 255 ? bytes : 255;
    if (is_over || bytes > WORD_BYTES_MAX || used >= WORD_BYTES_MAX)
        stream->rest = stream->verb == IS_BDAT ? PASS : DROP;
    if (used)
        tell(stream, event, COMMANDS, 0, used);
    return used;
}

/* A line that is there whole, as most are, and has no word that goes up alone. */
static inline void take_line(struct stream *stream, struct event *event, u32 verb, enum rest rest, u64 piece)
{
    bool is_listed = rest == PASS || (event->text[4] <= ' ' && is_known(verb));
    stream->verb = is_listed || verb == IS_STARTTLS ? verb : 0;
    if (rest == DROP) {
        u8 at = is_listed ? 4 : 1;
        if (!is_listed)
            event->text[0] = '?';
        event->text[at] = '\r';
        event->text[at + 1] = '\n';
        piece = at + 2;
    }
    tell(stream, event, COMMANDS, 0, piece);
    end_line(stream);
}

/* One step through what was read in READ. How many bytes are done with: of a line, or of a part of one. */
static inline u64 read_line(struct stream *stream, struct event *event, u64 there)
{
    u64 line_feed = find(event, '\n');
    bool is_end = line_feed < there;
    u64 piece = is_end ? line_feed + 1 : there;
    if (stream->rest == VERB) {
        bool begins_here = !stream->verb_bytes && is_end && line_feed >= 4;
        u32 verb = *(u32 *)event->text & CAPITALS;
        enum rest rest = rest_behind(verb, event->text[4]);
        if (!begins_here || rest == WORD)
            return read_verb(stream, event, there);
        take_line(stream, event, verb, rest, piece);
        return piece;
    }
    if (stream->rest == WORD)
        return read_word(stream, event, there);
    if (stream->rest == PASS) {
        tell(stream, event, COMMANDS, 0, piece);
    } else if (is_end) {
        event->text[0] = '\r';
        event->text[1] = '\n';
        tell(stream, event, COMMANDS, 0, 2);
    }
    if (is_end)
        end_line(stream);
    return piece;
}

/* Does a line begin with a dot in this window? Most windows are done with by that question. */
static inline bool has_dotted_line(const struct stream *stream, const u8 *window)
{
    const u64 low = 0x7f7f7f7f7f7f7f7full;
    u64 carried = stream->matched == 2 ? 0x80 : 0; /* the last byte before was a line feed */
    u64 found = stream->matched > 2;
#pragma clang loop unroll(disable)
    for (u32 at = 0; at < WINDOW_BYTES; at += 8) {
        u64 eight = *(const u64 *)(window + at);
        u64 no_feed = eight ^ 0x0a0a0a0a0a0a0a0aull, no_dot = eight ^ 0x2e2e2e2e2e2e2e2eull;
        u64 feeds = ~(((no_feed & low) + low) | no_feed | low);
        u64 dots = ~(((no_dot & low) + low) | no_dot | low);
        found |= (feeds << 8 | carried) & dots;
        carried = feeds >> 56;
    }
    return found;
}

/* Of CR LF . CR LF, how much the last two bytes before `end` are. */
static inline u32 matched_before(u64 end)
{
    u8 last[2];
    if (bpf_probe_read_user(last, 2, (void *)(end - 2)))
        return 0;
    return last[1] == '\r' ? 1 : last[0] == '\r' && last[1] == '\n' ? 2 : 0;
}

/* BODY: goes on through a message. How many bytes are done with. `end`: where what is there ends. */
static inline u64 read_body(struct stream *stream, struct event *event, u64 there, u64 end)
{
    u64 matched = stream->matched, used = 0;
    if (there < 2 || has_dotted_line(stream, event->text)) {
        for (u32 at = 0; at < BODY_BYTES_AT_ONCE; at++) {
            if (at >= there || matched == 5)
                break;
            u8 byte = event->text[at];
            if (byte == '\r')
                matched = matched == 3 ? 4 : 1;
            else if (byte == '\n')
                matched = matched == 1 ? 2 : matched == 4 ? 5 : 0;
            else
                matched = byte == '.' && matched == 2 ? 3 : 0;
            used = at + 1;
            FORGET(event, matched);
            FORGET(event, used);
        }
    } else {
        used = there;
        matched = matched_before(end);
    }
    stream->length += used;
    stream->matched = matched;
    if (matched == 5) {
        stream->phase = READ;
        stream->verb = 0;
        stream->pending = 1;
        tell(stream, event, MESSAGE, stream->length, 0);
    }
    return used;
}
