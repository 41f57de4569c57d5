/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Whose bytes a TLS library decrypts. It does not know: a connection is a file descriptor to it, or not even that. But it
 * must get its bytes from somewhere, and the kernel knows from where: each time a thread takes bytes off a TCP socket, the
 * tracepoint tcp:tcp_rcv_space_adjust is passed, with both addresses and the socket's cookie.
 *
 *   within a call of the library   the library reads the socket itself: what it decrypts is that socket's, for sure
 *   before such a call             the program reads the socket, and feeds the library (OpenSSL's memory BIO). An event loop
 *                                  does both at once, on one thread; then that is whose bytes they are. A program whose
 *                                  threads read for each other looks the same now and then, and now and then not: once a
 *                                  thread has read one connection and then decrypts another, all of that process is unsure
 *
 * So nothing has to be asked of the process, which may be gone by the time that somebody asks; and the processes that read
 * from a watched port are the mail servers, wherever they run.
 */

/* What a thread has read, and the call of the library that it is in. One for both, and never deleted: each look into a map
 * counts, as the mail server waits for it. */
struct thread {
    bool is_known;          /* as a server's */
    struct socket read;     /* the last that it read outside of any call; no cookie: none, or it is done with */
    /* The call. */
    struct socket within;   /* the last that was read within a call, this one or one before */
    bool is_open;
    bool is_uncork;         /* gnutls_record_uncork, which sends what was sent already */
    bool has_read;          /* something was read within this one, of a watched port */
    bool has_read_elsewhere;
    bool is_mixed;          /* from more than one socket */
    bool is_fed;            /* `read` was for this one */
    s32 success;            /* what a handshake that succeeded returns */
    u64 session;            /* the library's own pointer: SSL *, gnutls_session_t */
    u64 buffer;
    u64 size_at;            /* where the library says how many bytes, if it does not return that */
    u32 total, position;    /* of the bytes at `buffer`: how many, and how many are done with */
    struct event event;     /* with the window that is looked at. Not on the stack: the verifier follows what stands there,
                               and would go every way again; not by processor: a program can be interrupted by another */
};

struct server {
    bool is_unsure; /* its threads read for each other */
};

BPF_TABLE("lru_hash", u64, struct thread, threads, THREADS);
BPF_ARRAY(blank, struct thread, 1);
BPF_TABLE("lru_hash", u64, u8, fed, STREAMS);                /* cookies of sockets that are read for a library */
BPF_TABLE("lru_hash", u32, struct server, servers, SERVERS); /* processes that read from watched ports */
BPF_RINGBUF_OUTPUT(arrivals, ARRIVAL_PAGES);                 /* the same, when they are seen first */

static inline struct thread *this_thread()
{
    u64 thread = bpf_get_current_pid_tgid();
    return threads.lookup(&thread);
}

static inline struct thread *new_thread()
{
    u64 thread = bpf_get_current_pid_tgid();
    int zero = 0;
    struct thread *empty = blank.lookup(&zero);
    if (!empty)
        return 0;
    threads.update(&thread, empty);
    return threads.lookup(&thread);
}

static inline void see_server()
{
    u32 process = bpf_get_current_pid_tgid() >> 32;
    struct server server = {};
    if (servers.lookup(&process))
        return;
    servers.update(&process, &server);
    arrivals.ringbuf_output(&process, sizeof(process), 0);
}

static inline bool is_server()
{
    u32 process = bpf_get_current_pid_tgid() >> 32;
    return servers.lookup(&process);
}

static inline void take_down(void *context, struct socket *socket, u64 cookie, u16 server_port)
{
    socket->cookie = cookie;
    socket->server_port = server_port;
    socket->client_port = *(u16 *)(context + DPORT_AT);
    bpf_probe_read_kernel(socket->server, 16, context + SADDR_V6_AT);
    bpf_probe_read_kernel(socket->client, 16, context + DADDR_V6_AT);
}

/* A server may be a client as well, in the same process: Exim asks another server about a recipient. What it reads there is
 * fed to nobody whom it serves. */
static inline void read_elsewhere(struct thread *thread)
{
    if (!thread)
        return;
    if (thread->is_open)
        thread->has_read_elsewhere = true;
    else
        thread->read.cookie = 0;
}

/* tracepoint:tcp:tcp_rcv_space_adjust. Where its fields are, the kernel says; loading has asked it. */
int on_receive(void *context)
{
    u16 server_port = *(u16 *)(context + SPORT_AT);
    struct thread *thread = this_thread();
    if (!is_watched(server_port)) {
        read_elsewhere(thread);
        return 0;
    }
    u64 cookie = *(u64 *)(context + COOKIE_AT);
    if (!thread)
        thread = new_thread();
    if (!thread)
        return 0;
    if (!thread->is_known)
        see_server();
    thread->is_known = true;
    if (!thread->is_open) {
        take_down(context, &thread->read, cookie, server_port);
        return 0;
    }
    if (thread->within.cookie != cookie) {
        thread->is_mixed |= thread->has_read;
        take_down(context, &thread->within, cookie, server_port);
    }
    thread->has_read = true;
    return 0;
}
