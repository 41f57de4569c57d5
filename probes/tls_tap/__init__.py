"""What a mail server's TLS library decrypts and encrypts: the envelope inside TLS, on its own machine.

In the kernel (ADR 22; the C files are one text, in this order, behind ebpf/common.c):

    event.c       what goes up
    socket.c      whose bytes a library decrypts
    stream.c      what is known of a connection inside TLS
    commands.c    what the server reads, and what of it may be seen
    replies.c     what it writes
    tap.c         the functions and the tracepoint that call them

Beside `watch`, in a process of its own that keeps the privileges:

    keeper        loads them, and keeps them attached
    attachments   to which files they are attached
    servers       who is a mail server, and which libraries it uses
    mapped        which libraries a process has mapped, or would; and how to open them
    roots         files as a process sees them
    elf, libraries, linkage   what is in these files
    hooks         the functions that are looked for there, and what each calls
    tracing       perf_event_open(2)
    availability  whether all this can be had here

In `watch`:

    tap           TlsTap: the events, and what the keeper says (news)
    program       what is compiled, and how events are unpacked
    event         TapEvent
"""
