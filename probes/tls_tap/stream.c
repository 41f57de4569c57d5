/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What is known of a connection inside TLS: as much of SMTP as it takes to leave out what must not go up.
 *
 *   READ      command lines are read
 *   AWAIT     AUTH, DATA or STARTTLS was read: what comes next depends on the reply
 *   SECRET    AUTH was answered 334: lines of a secret, until another reply comes
 *   BODY      DATA was answered 354: a message, until its end
 *   IN_CHUNK  BDAT: a counted piece of a message
 *   BLIND     something came that was not expected: nothing of this connection goes up any more
 */

enum phase { READ, AWAIT, SECRET, BODY, IN_CHUNK, BLIND };

/* Of a command line in READ: what becomes of the rest of it. */
enum rest { VERB, PASS, WORD, DROP };

struct stream {
    struct socket socket;
    u32 number;        /* of the next event */
    bool has_begun;    /* its handshake succeeded before our eyes */
    bool is_fed;       /* by a memory BIO, see socket.c */
    bool is_unsure;
    u8 phase;
    u64 length;        /* BODY: its bytes so far. IN_CHUNK: those to come. AWAIT: those that were not looked at */
    u64 size;          /* the number behind BDAT */
    u32 verb;          /* of the line at hand, or awaited; in capitals */
    u32 pending;       /* commands that were read and not yet answered */
    u8 rest;           /* enum rest */
    u8 verb_bytes;     /* how many bytes of the verb there are */
    u8 word_bytes;     /* WORD: how many bytes of it there were */
    u8 matched;        /* BODY: how much of CR LF . CR LF the last bytes are */
    u8 reply_bytes;    /* how many bytes of a reply's line there are in `reply`; the rest is not looked at */
    u8 reply[4];
    u8 unused[3];
};

struct session {
    u64 pointer; /* the library's: SSL *, gnutls_session_t */
    u32 process, unused;
};

BPF_TABLE("lru_hash", struct session, struct stream, streams, STREAMS);

static inline struct session session_of(u64 pointer)
{
    struct session session = {.pointer = pointer, .process = bpf_get_current_pid_tgid() >> 32};
    return session;
}

/* `event->text` holds the text. */
static inline void tell(struct stream *stream, struct event *event, enum kind kind, u64 length, u64 text_bytes)
{
    event->length = length;
    event->socket = stream->socket;
    event->number = stream->number++;
    event->kind = kind;
    event->is_unsure = stream->is_unsure;
    write(event, text_bytes);
}

static inline void go_blind(struct stream *stream, struct event *event, u64 length)
{
    stream->phase = BLIND;
    tell(stream, event, LOST, length, 0);
}

/* The stream of the session that a call is about, and which socket's it is, by what the call has read. */
static inline struct stream *settle(struct call *call, u64 thread, bool in_handshake)
{
    struct session session = session_of(call->session);
    struct stream *stream = streams.lookup(&session);
    struct socket *socket = call->socket.cookie ? &call->socket : 0;
    bool is_fed = false;
    if (!socket && call->is_elsewhere) {
        /* A server that is a client meanwhile, and speaks TLS there, too. What it read before was not for this. */
        received.delete(&thread);
        streams.delete(&session);
        return 0;
    }
    if (!socket) {
        socket = received.lookup(&thread);
        is_fed = true;
    }
    if (!socket || (is_fed && stream && !stream->is_fed))
        return stream;
    if (!stream || (stream->socket.cookie != socket->cookie && (!stream->has_begun || in_handshake))) {
        struct stream fresh = {.is_fed = is_fed};
        fresh.socket = *socket;
        streams.update(&session, &fresh);
        stream = streams.lookup(&session);
    } else if (stream->socket.cookie != socket->cookie) {
        stream->is_unsure = true;
    }
    if (stream && call->is_mixed)
        stream->is_unsure = true;
    if (is_fed)
        received.delete(&thread);
    return stream;
}
