/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Whose bytes a TLS library decrypts. It does not know: a connection is a file descriptor to it, or not even that. But it
 * must get its bytes from somewhere, and the kernel knows from where: each time a thread takes bytes off a TCP socket, the
 * tracepoint tcp:tcp_rcv_space_adjust is passed, with both addresses and the socket's cookie.
 *
 *   within a call of the library   the library reads the socket itself: what it decrypts is that socket's, for sure
 *   before such a call             the program reads the socket, and feeds the library (OpenSSL's memory BIO): an event
 *                                  loop does both at once, on one thread. Believed as long as nothing speaks against it
 *
 * So nothing has to be asked of the process, which may be gone by the time that somebody asks; and the processes that read
 * from a watched port are the mail servers, wherever they run.
 */

/* A call of the library that a thread is in. */
struct call {
    u64 session;          /* the library's own pointer: SSL *, gnutls_session_t */
    u64 buffer;
    u64 size_at;          /* where the library says how many bytes, if it does not return that */
    struct socket socket; /* what was read within the call; no cookie: nothing was */
    u32 total, position;  /* of the bytes at `buffer`: how many, and how many are done with */
    s32 success;          /* what a handshake that succeeded returns */
    bool is_mixed;        /* more than one socket was read */
    bool is_elsewhere;    /* a socket was read that is no mail server's: a client's, say */
    bool is_uncorking;    /* what is written within it is known already */
};

BPF_TABLE("lru_hash", u64, struct call, calls, CALLS);           /* by thread */
BPF_TABLE("lru_hash", u64, struct socket, received, CALLS);      /* by thread: what it read last, outside of any call */
BPF_TABLE("lru_hash", u32, u8, servers, SERVERS);                /* processes that read from watched ports */
BPF_RINGBUF_OUTPUT(arrivals, ARRIVAL_PAGES);                     /* the same, when they are seen first */

static inline void see_server(u32 process)
{
    u8 one = 1;
    if (servers.lookup(&process))
        return;
    servers.update(&process, &one);
    arrivals.ringbuf_output(&process, sizeof(process), 0);
}

/* tracepoint:tcp:tcp_rcv_space_adjust. Where its fields are, the kernel says; loading has asked it. */
int on_receive(void *context)
{
    struct socket socket = {};
    u64 thread = bpf_get_current_pid_tgid();
    struct call *call = calls.lookup(&thread);
    socket.server_port = *(u16 *)(context + SPORT_AT);
    if (!is_watched(socket.server_port)) {
        if (call)
            call->is_elsewhere = true;
        else if (received.lookup(&thread))
            received.delete(&thread);
        return 0;
    }
    socket.client_port = *(u16 *)(context + DPORT_AT);
    socket.cookie = *(u64 *)(context + COOKIE_AT);
    bpf_probe_read_kernel(socket.server, 16, context + SADDR_V6_AT);
    bpf_probe_read_kernel(socket.client, 16, context + DADDR_V6_AT);
    if (call) {
        if (call->socket.cookie && call->socket.cookie != socket.cookie)
            call->is_mixed = true;
        call->socket = socket;
    } else {
        received.update(&thread, &socket);
    }
    see_server(thread >> 32);
    return 0;
}
