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
    bool has_replied;  /* the server has, or it has greeted the client */
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
    u8 unused[2];
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

static inline struct stream *stream_of(u64 pointer)
{
    struct session session = session_of(pointer);
    return streams.lookup(&session);
}

static inline bool is_process_unsure()
{
    u32 process = bpf_get_current_pid_tgid() >> 32;
    struct server *server = servers.lookup(&process);
    return !server || server->is_unsure;
}

/* `event->text` holds the text. */
static inline void tell(struct stream *stream, struct event *event, enum kind kind, u64 length, u64 text_bytes)
{
    event->length = length;
    event->socket = stream->socket;
    event->number = stream->number++;
    event->kind = kind;
    event->is_unsure = stream->is_unsure || (stream->is_fed && is_process_unsure());
    write(event, text_bytes);
}

static inline void go_blind(struct stream *stream, struct event *event, u64 length)
{
    stream->phase = BLIND;
    tell(stream, event, LOST, length, 0);
}

static inline struct stream *begin(const struct session *session, const struct socket *socket, bool is_fed)
{
    struct stream stream = {.is_fed = is_fed};
    stream.socket = *socket;
    streams.update((struct session *)session, &stream);
    return streams.lookup((struct session *)session);
}

/* The library has read a socket itself. */
static inline struct stream *settle_read(const struct thread *thread, const struct session *session, struct stream *stream,
                                         bool in_handshake)
{
    if (!stream || (stream->socket.cookie != thread->within.cookie && (!stream->has_begun || in_handshake)))
        stream = begin(session, &thread->within, false);
    else if (stream->socket.cookie != thread->within.cookie)
        stream->is_unsure = true;
    else
        stream->is_fed = false; /* as it seemed while the library found nothing to read */
    if (stream && thread->is_mixed)
        stream->is_unsure = true;
    return stream;
}

/* The program has read a socket, perhaps for the library. What it read was clear text if nothing was fed with it before. */
static inline struct stream *settle_fed(struct thread *thread, const struct session *session, struct stream *stream)
{
    u8 one = 1;
    u32 process = session->process;
    u64 cookie = thread->read.cookie;
    if (!cookie || thread->has_read_elsewhere || (stream && !stream->is_fed))
        return stream;
    if (!stream || (stream->socket.cookie != cookie && !stream->has_begun)) {
        stream = begin(session, &thread->read, true);
    } else if (stream->socket.cookie != cookie && fed.lookup(&cookie)) {
        struct server *server = servers.lookup(&process);
        if (server)
            server->is_unsure = true;
    }
    thread->is_fed = stream && stream->socket.cookie == cookie;
    if (thread->is_fed)
        fed.update(&cookie, &one);
    thread->read.cookie = 0;
    return stream;
}

/* The stream of the session that a call is about, by what was read for it. */
static inline struct stream *settle(struct thread *thread, bool in_handshake)
{
    struct session session = session_of(thread->session);
    struct stream *stream = streams.lookup(&session);
    if (thread->has_read)
        return settle_read(thread, &session, stream, in_handshake);
    return settle_fed(thread, &session, stream);
}
