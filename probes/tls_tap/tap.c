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
 * They are compiled as one text in this order, behind ports.c of probes/ebpf, as bcc understands its maps only in the main
 * file.
 *
 * Hooks: uprobes and uretprobes on functions of OpenSSL and GnuTLS, which have the same arguments in the same order:
 *
 *   enter_handshake_*, leave_handshake   SSL_do_handshake, SSL_accept; gnutls_handshake
 *   enter_call, leave_read, leave_write  SSL_read, SSL_write; gnutls_record_recv, gnutls_record_send, ..._send2
 *   enter_uncork, leave_uncork           gnutls_record_uncork
 *   enter_call_ex, the same two          SSL_read_ex, SSL_write_ex, which say in the fourth argument how many bytes
 *   on_free                              SSL_free; gnutls_deinit
 *
 *   and the tracepoint tcp:tcp_rcv_space_adjust (on_receive). A function that calls another of these is seen once: the inner
 *   call takes the place of the outer, which finds nothing when it returns.
 * Kernel: 5.8, for the BPF ring buffer. CAP_BPF and CAP_PERFMON.
 * Caveats: a probe is in the file, and so in every program that has mapped it. What is no mail server's is left after two
 *   look-ups, but a trap into the kernel is made. Nothing of it is copied: a stream is one whose socket has a watched port.
 * Overhead: docs/benchmarks.md.
 *
 * Knobs, as -D constants: RING_PAGES, ARRIVAL_PAGES (powers of 2), CALLS, SERVERS, STREAMS, WINDOWS; where registers and the
 * tracepoint's fields are: ARGUMENT_1_AT ... ARGUMENT_4_AT, RESULT_AT, SPORT_AT, DPORT_AT, COOKIE_AT, SADDR_V6_AT, DADDR_V6_AT.
 */

/* How many windows one program goes through before it hands over to itself: as many as the verifier has patience for. The
 * kernel allows 33 such turns. */
#define STEPS 8

#define REGISTER(context, at) (*(u64 *)((context) + (at)))

enum turn { ON_COMMANDS, ON_REPLIES };

BPF_PROG_ARRAY(turns, 2);

/* The window that is looked at, in the event that may go up. By thread, as a program can be interrupted, and another run in
 * its place; not on the stack, as the verifier follows what stands there, and would go every way again. */
BPF_TABLE("lru_hash", u64, struct event, windows, WINDOWS);

static inline void enter(void *context, s32 success, u64 size_at)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call call = {.success = success, .size_at = size_at};
    call.session = REGISTER(context, ARGUMENT_1_AT);
    call.buffer = REGISTER(context, ARGUMENT_2_AT);
    calls.update(&thread, &call);
}

int enter_handshake_openssl(void *context)
{
    enter(context, 1, 0);
    return 0;
}

int enter_handshake_gnutls(void *context)
{
    enter(context, 0, 0);
    return 0;
}

static inline bool is_server()
{
    u32 process = bpf_get_current_pid_tgid() >> 32;
    return servers.lookup(&process);
}

static inline bool is_uncorking()
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    return call && call->is_uncorking;
}

int enter_call(void *context)
{
    if (is_server() && !is_uncorking())
        enter(context, 0, 0);
    return 0;
}

/* Hands to gnutls_record_send what that was given before, while the session was corked, and took at once: it was told then. */
int enter_uncork(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call call = {.is_uncorking = true};
    if (is_server())
        calls.update(&thread, &call);
    return 0;
}

int leave_uncork(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    calls.delete(&thread);
    return 0;
}

int enter_call_ex(void *context)
{
    if (is_server())
        enter(context, 1, REGISTER(context, ARGUMENT_4_AT));
    return 0;
}

int leave_handshake(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    if (!call)
        return 0;
    struct stream *stream = settle(call, thread, true);
    s32 result = REGISTER(context, RESULT_AT);
    if (stream && result == call->success && !stream->has_begun) {
        struct event event = {};
        stream->has_begun = true;
        tell(stream, &event, BEGUN, 0, 0);
    }
    calls.delete(&thread);
    return 0;
}

/* How many bytes a call has read or written. */
static inline u32 bytes_of(void *context, const struct call *call)
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

static inline bool has_window(u64 thread)
{
    if (windows.lookup(&thread))
        return true;
    struct event event = {};
    windows.update(&thread, &event);
    return true;
}

int leave_read(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    if (!call)
        return 0;
    struct stream *stream = settle(call, thread, false);
    call->total = bytes_of(context, call);
    if (stream && call->total && stream->phase != BLIND && has_window(thread))
        turns.call(context, ON_COMMANDS);
    calls.delete(&thread);
    return 0;
}

int leave_write(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    if (!call || call->is_uncorking)
        return 0;
    struct session session = session_of(call->session);
    struct stream *stream = streams.lookup(&session);
    call->total = bytes_of(context, call);
    if (stream && call->total && stream->phase != BLIND && has_window(thread))
        turns.call(context, ON_REPLIES);
    calls.delete(&thread);
    return 0;
}

/* Puts the next window into the event. How many bytes of it are there; 0: it can't be read, and the stream is blind. */
static inline u64 look(const struct call *call, struct stream *stream, struct event *event)
{
    u64 left = call->total - call->position;
    u64 there = left < WINDOW_BYTES ? left : WINDOW_BYTES;
    __builtin_memset(event->text, 0, WINDOW_BYTES);
    OPAQUE(there);
    if (there <= WINDOW_BYTES && !bpf_probe_read_user(event->text, there, (void *)(call->buffer + call->position)))
        return there;
    go_blind(stream, event, left);
    return 0;
}

/* The call is over: nothing of what it read stays in the window. */
static inline void leave(u64 thread, struct event *event)
{
    __builtin_memset(event->text, 0, WINDOW_BYTES);
    calls.delete(&thread);
}

static inline void step_through_commands(struct call *call, struct stream *stream, struct event *event)
{
    u64 left = call->total - call->position, used = left;
    if (stream->phase == READ || stream->phase == BODY) {
        u64 there = look(call, stream, event);
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

int go_on_with_commands(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    struct event *event = windows.lookup(&thread);
    if (!call || !event)
        return 0;
    struct session session = session_of(call->session);
    struct stream *stream = streams.lookup(&session);
    for (u32 step = 0; stream && step < STEPS; step++) {
        if (call->position >= call->total || stream->phase == BLIND)
            break;
        step_through_commands(call, stream, event);
    }
    if (stream && call->position < call->total && stream->phase != BLIND) {
        turns.call(context, ON_COMMANDS);
        go_blind(stream, event, call->total - call->position); /* one turn too many */
    }
    leave(thread, event);
    return 0;
}

int go_on_with_replies(void *context)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    struct event *event = windows.lookup(&thread);
    if (!call || !event)
        return 0;
    struct session session = session_of(call->session);
    struct stream *stream = streams.lookup(&session);
    for (u32 step = 0; stream && step < STEPS; step++) {
        if (call->position >= call->total || stream->phase == BLIND)
            break;
        u64 there = look(call, stream, event);
        if (there)
            call->position += read_reply_line(stream, event, there);
    }
    if (stream && call->position < call->total && stream->phase != BLIND) {
        turns.call(context, ON_REPLIES);
        go_blind(stream, event, 0);
    }
    leave(thread, event);
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
