/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Reads along what a mail server's TLS library decrypts and encrypts: of that, the envelope.
 *
 *   event.c     the way up
 *   socket.c    which connection it is
 *   stream.c    what is known of each
 *   commands.c  what the server reads
 *   replies.c   what it writes
 *   tap.c       the library's functions
 *
 * They are compiled as one text in this order, behind common.c of probes/ebpf, as bcc understands its maps only in the main
 * file.
 *
 * Hooks: uprobes and uretprobes on functions of OpenSSL and GnuTLS, which have the same arguments in the same order:
 *
 *   enter_handshake_*, leave_handshake   SSL_do_handshake; gnutls_handshake
 *   enter_call, leave_read, leave_write  SSL_read, SSL_write; gnutls_record_recv, ..._recv_seq, ..._send, ..._send2
 *   enter_call_ex, the same two          SSL_read_ex, SSL_write_ex, which say in the fourth argument how many bytes
 *   enter_uncork, leave_uncork           gnutls_record_uncork: sends within it were seen when they were corked
 *   on_free                              SSL_free; gnutls_deinit
 *
 *   and the tracepoint tcp:tcp_rcv_space_adjust (on_receive). Of functions of which one calls the other (SSL_accept,
 *   gnutls_record_send) the inner one is enough. Where both are hooked they are seen once all the same: the inner call takes
 *   the place of the outer, which finds nothing when it returns.
 * Kernel: 5.8, for the BPF ring buffer. CAP_BPF and CAP_PERFMON.
 * Caveats: a probe is in the file, and so in every program that has mapped it. What is no mail server's is left after two
 *   look-ups, but a trap into the kernel is made; and a thread that makes a handshake gets its entry among `threads`. Nothing of
 *   it is copied: a stream is one whose socket has a watched port.
 * Overhead: docs/benchmarks.md.
 *
 * Knobs, as -D constants: RING_PAGES, ARRIVAL_PAGES (powers of 2), THREADS, SERVERS, STREAMS; where registers and the
 * tracepoint's fields are: ARGUMENT_1_AT ... ARGUMENT_4_AT, RESULT_AT, SPORT_AT, DPORT_AT, COOKIE_AT, SADDR_V6_AT, DADDR_V6_AT.
 */

/* How many windows one program goes through before it hands over to itself: as many as the verifier has patience for. The
 * kernel allows 33 such turns. */
#define STEPS 8
#define STEPS_AT_ONCE 2 /* in the program that is called first, which has more to do. Most calls are one line */

/* gnutls.h */
#define GNUTLS_E_PULL_ERROR -54
#define GNUTLS_E_PREMATURE_TERMINATION -110

#define REGISTER(context, at) (*(u64 *)((context) + (at)))

enum turn { ON_COMMANDS, ON_REPLIES };

BPF_PROG_ARRAY(turns, 2);

static inline void enter(struct thread *thread, void *context, s32 success, u64 size_at)
{
    u64 session = REGISTER(context, ARGUMENT_1_AT);
    if (thread->is_open && thread->is_uncork && thread->session == session)
        return;
    thread->session = session;
    thread->buffer = REGISTER(context, ARGUMENT_2_AT);
    thread->size_at = size_at;
    thread->success = success;
    thread->has_read = thread->has_read_elsewhere = thread->is_mixed = thread->is_uncork = thread->is_fed = false;
    thread->is_open = true;
}

/* Whose handshake it is shows only when something is read within it. */
static inline void enter_handshake(void *context, s32 success)
{
    struct thread *thread = this_thread();
    if (!thread)
        thread = new_thread();
    if (thread)
        enter(thread, context, success, 0);
}

int enter_handshake_openssl(void *context)
{
    enter_handshake(context, 1);
    return 0;
}

int enter_handshake_gnutls(void *context)
{
    enter_handshake(context, 0);
    return 0;
}

/* Of a thread that reads and writes for a server. */
static inline struct thread *serving_thread()
{
    struct thread *thread = this_thread();
    if (thread)
        return thread->is_known || is_server() ? thread : 0;
    return is_server() ? new_thread() : 0;
}

int enter_call(void *context)
{
    struct thread *thread = serving_thread();
    if (thread)
        enter(thread, context, 0, 0);
    return 0;
}

int enter_call_ex(void *context)
{
    struct thread *thread = serving_thread();
    if (thread)
        enter(thread, context, 0, REGISTER(context, ARGUMENT_4_AT));
    return 0;
}

int enter_uncork(void *context)
{
    struct thread *thread = serving_thread();
    if (thread) {
        enter(thread, context, 0, 0);
        thread->is_uncork = true;
    }
    return 0;
}

int leave_uncork(void *context)
{
    struct thread *thread = this_thread();
    if (thread)
        thread->is_open = false;
    return 0;
}

int leave_handshake(void *context)
{
    struct thread *thread = this_thread();
    if (!thread || !thread->is_open)
        return 0;
    thread->is_open = false;
    struct stream *stream = settle(thread, true);
    s32 result = REGISTER(context, RESULT_AT);
    if (!stream || result != thread->success || stream->has_begun)
        return 0;
    if (stream->is_fed && !thread->is_fed) {
        /* A server's handshake ends with what its client says: this is a client's, which never was that socket's. */
        struct session session = session_of(thread->session);
        streams.delete(&session);
        return 0;
    }
    stream->has_begun = true;
    tell(stream, &thread->event, BEGUN, 0, 0);
    return 0;
}

/* How many bytes a call has read or written. */
static inline u32 bytes_of(void *context, const struct thread *call)
{
    s32 result = REGISTER(context, RESULT_AT);
    u64 size = 0;
    if (result <= 0)
        return 0;
    if (!call->size_at)
        return result;
    if (bpf_probe_read_user(&size, sizeof(size), (void *)call->size_at))
        return 0;
    return size;
}

/* That there is nothing more to read: the client has ended TLS, or left without, or (with GnuTLS) its connection is broken.
 * SSL_read_ex does not tell it from having to wait. */
static inline bool has_client_gone(void *context, const struct thread *call)
{
    s32 result = REGISTER(context, RESULT_AT);
    return !call->size_at && (!result || result == GNUTLS_E_PREMATURE_TERMINATION || result == GNUTLS_E_PULL_ERROR);
}

/* Puts the next window into the event. How many bytes of it are there; 0: it can't be read, and the stream is blind. */
static inline u64 look(struct thread *call, struct stream *stream)
{
    struct event *event = &call->event;
    u64 left = call->total - call->position;
    u64 there = left < WINDOW_BYTES ? left : WINDOW_BYTES;
    __builtin_memset(event->text, 0, WINDOW_BYTES);
    OPAQUE(there);
    if (there <= WINDOW_BYTES && !bpf_probe_read_user(event->text, there, (void *)(call->buffer + call->position)))
        return there;
    go_blind(stream, event, left);
    return 0;
}

static inline void step_through_commands(struct thread *call, struct stream *stream)
{
    struct event *event = &call->event;
    u64 left = call->total - call->position, used = left;
    if (stream->phase == READ || stream->phase == BODY) {
        u64 there = look(call, stream);
        if (!there)
            return;
        if (stream->phase == READ)
            used = read_line(stream, event, there);
        else
            used = read_body(stream, event, there, call->buffer + call->position + there);
    } else if (stream->phase == IN_CHUNK) {
        if (used > stream->length)
            used = stream->length;
        stream->length -= used;
        if (!stream->length) {
            stream->phase = READ;
            tell(stream, event, CHUNK, stream->size, 0);
        }
    } else if (stream->phase == AWAIT) {
        stream->length += used;
    }
    call->position += used;
}

static inline void step_through_replies(struct thread *call, struct stream *stream)
{
    u64 there = look(call, stream);
    if (there)
        call->position += read_reply_line(stream, &call->event, there);
}

/* Through what a call has read or written, as far as one program goes. `returns`: the call has just returned. */
static inline void go_on(void *context, enum turn turn, bool returns)
{
    struct thread *call = this_thread();
    if (!call || !call->is_open || call->is_uncork)
        return;
    bool has_read = returns && turn == ON_COMMANDS;
    struct stream *stream = has_read ? settle(call, false) : stream_of(call->session);
    if (returns) {
        call->total = bytes_of(context, call);
        call->position = 0;
    }
    if (stream && call->total && stream->phase != BLIND) {
        for (u32 step = 0; step < (returns ? STEPS_AT_ONCE : STEPS); step++) {
            if (call->position >= call->total || stream->phase == BLIND)
                break;
            if (turn == ON_COMMANDS)
                step_through_commands(call, stream);
            else
                step_through_replies(call, stream);
        }
        if (call->position < call->total && stream->phase != BLIND) {
            turns.call(context, turn);
            /* One turn too many. */
            go_blind(stream, &call->event, turn == ON_COMMANDS ? call->total - call->position : 0);
        }
        /* Nothing of what it read stays in the window. */
        __builtin_memset(call->event.text, 0, WINDOW_BYTES);
    } else if (stream && has_read && has_client_gone(context, call)) {
        tell(stream, &call->event, CLOSED, 0, 0);
    }
    call->is_open = false;
}

int leave_read(void *context)
{
    go_on(context, ON_COMMANDS, true);
    return 0;
}

int leave_write(void *context)
{
    go_on(context, ON_REPLIES, true);
    return 0;
}

int go_on_with_commands(void *context)
{
    go_on(context, ON_COMMANDS, false);
    return 0;
}

int go_on_with_replies(void *context)
{
    go_on(context, ON_REPLIES, false);
    return 0;
}

int on_free(void *context)
{
    struct session session = session_of(REGISTER(context, ARGUMENT_1_AT));
    struct stream *stream = streams.lookup(&session);
    if (!stream)
        return 0;
    struct event event = {};
    tell(stream, &event, ENDED, 0, 0);
    streams.delete(&session);
    return 0;
}
