/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the server writes: of each reply the code goes up, and it says what the client's next bytes are.
 */

static inline bool is_digit(u8 byte)
{
    return byte >= '0' && byte <= '9';
}

/* A command was answered. Was it the last of those that were read? */
static inline bool answers_last(struct stream *stream)
{
    if (stream->pending)
        stream->pending--;
    return !stream->pending;
}

/* The reply to AUTH, DATA or STARTTLS, or to a command before it. */
static inline void answer_awaited(struct stream *stream, struct event *event, u8 hundreds)
{
    u64 unread = stream->length;
    bool is_asked_to_go_on = hundreds == '3';
    if (is_asked_to_go_on && stream->verb == IS_AUTH) {
        stream->phase = SECRET;
        return;
    }
    if (is_asked_to_go_on && stream->verb == IS_DATA && !unread) {
        stream->phase = BODY;
        stream->matched = 2; /* the line with DATA has just ended */
        return;
    }
    if (is_asked_to_go_on || (hundreds == '2' && stream->verb == IS_STARTTLS)) {
        go_blind(stream, event, unread);
        return;
    }
    if (!answers_last(stream))
        return;
    stream->phase = READ;
    stream->verb = 0;
    if (unread)
        tell(stream, event, LOST, unread, 0);
}

/* Nobody asked for it: it is no greeting, nor does it end the connection. So a command was read that we did not see. */
static inline bool is_unasked(const struct stream *stream)
{
    const u8 *code = stream->reply;
    bool is_closing = code[0] == '4' && code[1] == '2' && code[2] == '1';
    bool is_in_line = stream->rest != VERB || stream->verb_bytes; /* that never ends: some answer it all the same */
    return stream->phase == READ && !stream->pending && stream->has_replied && !is_in_line && !is_closing;
}

/* A reply's last line is over, and `stream->reply` has its code. */
static inline void take_reply(struct stream *stream, struct event *event)
{
    u8 hundreds = stream->reply[0];
    if (is_unasked(stream))
        tell(stream, event, LOST, 0, 0);
    stream->has_replied = true;
    __builtin_memcpy(event->text, stream->reply, 4);
    tell(stream, event, REPLY, 0, 3);
    if (stream->phase == AWAIT) {
        answer_awaited(stream, event, hundreds);
    } else if (stream->phase == SECRET) {
        if (hundreds != '3') {
            stream->phase = READ;
            stream->verb = 0;
            stream->pending = 0;
        }
    } else if (stream->phase == BODY || (hundreds == '3' && stream->phase == READ)) {
        /* It ended somewhere that we did not see, or something begins that we don't know. */
        go_blind(stream, event, stream->phase == BODY ? stream->length : 0);
    } else {
        answers_last(stream);
    }
}

/* One step through what the server wrote: a line, or a part of one. How many bytes are done with. */
static inline u64 read_reply_line(struct stream *stream, struct event *event, u64 there)
{
    u64 line_feed = find(event, '\n');
    bool is_end = line_feed < there;
    u64 bytes = stream->reply_bytes;
    OPAQUE(bytes);
#pragma clang loop unroll(disable)
    for (u32 at = 0; at < 4; at++) {
        u8 byte = event->text[at];
        if (at < there && at < line_feed && bytes < 4 && byte != '\r') {
            u64 place = bytes++;
            OPAQUE(place);
            stream->reply[place & 3] = byte;
        }
        OPAQUE(bytes);
    }
    stream->reply_bytes = bytes;
    if (!is_end)
        return there;
    stream->reply_bytes = 0;
    bool has_code = bytes >= 3 && is_digit(stream->reply[0]) && is_digit(stream->reply[1]) && is_digit(stream->reply[2]);
    if (has_code && (bytes < 4 || stream->reply[3] != '-'))
        take_reply(stream, event);
    return line_feed + 1;
}
