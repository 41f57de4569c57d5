/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What goes up through the ring buffer. probes/tls_tap/program.py unpacks it.
 */

/* How much of what a server reads or writes is looked at in one step. */
#define WINDOW_BYTES 256

/* probes/tls_tap/event.py says what they mean. */
enum kind { BEGUN = 1, COMMANDS, REPLY, MESSAGE, CHUNK, LOST, ENDED, CLOSED };

/* The two ends of a connection, as the server's socket has them. IPv4 addresses are mapped into IPv6. */
struct socket {
    u64 cookie; /* the kernel's name for it, unique until the machine restarts */
    u8 server[16], client[16];
    u16 server_port, client_port;
    u32 unused;
};

struct event {
    u64 at_boot_ns;
    u64 length;
    struct socket socket;
    u32 number; /* of this event in its stream: a number that is missing is an event for which there was no room */
    u8 kind, is_unsure;
    u16 text_bytes;
    u8 text[WINDOW_BYTES];
};

/* Lets the verifier forget what it knows of a number: else it goes the rest of the way once for each value. `length` is set
 * when an event is told, and serves as a place to forget in. */
#define FORGET(event, number)                                                                                               \
    ({                                                                                                                     \
        *(volatile u64 *)&(event)->length = (number);                                                                      \
        (number) = *(volatile u64 *)&(event)->length;                                                                      \
    })

#define HEADER_BYTES (sizeof(struct event) - WINDOW_BYTES)

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(events_lost, u64, 1);

static inline void write(struct event *event, u64 text_bytes)
{
    event->at_boot_ns = bpf_ktime_get_boot_ns();
    event->text_bytes = text_bytes;
    u64 size = HEADER_BYTES + text_bytes;
    OPAQUE(size);
    if (size > sizeof(*event))
        return;
    if (events.ringbuf_output(event, size, BPF_RB_NO_WAKEUP)) { /* who reads it looks now and then */
        int zero = 0;
        u64 *lost = events_lost.lookup(&zero);
        if (lost)
            (*lost)++;
    }
}
