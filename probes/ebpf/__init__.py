"""Live capture in the kernel, through bcc.

    filter.c           the socket filter, of six files: common.c, event.c, packet.c, handshake.c, appetite.c
                       and itself; it writes what is needed of the watched ports' segments into a ring buffer
    kernel_source/     the few headers that bcc wants of a kernel; it needs no others
    loading            how it is compiled and loaded: by loader, in a process of its own, which says why it
                       can't. probes.tls_tap is loaded so, too
    program            the loaded filter, and the ways into its maps
    tap                the packet sockets that the filter hangs on, each following an interface by its name
    ring               the ring buffer, read where it lies
    event              what the filter wrote -> Segment
    flows              what the filter knows of each connection, and what it is told
    handshakes         how many of those that the filter holds came to nothing
    clock              the kernel's boot time -> UTC
    probe              EbpfProbe: all of them together

Only the loader's process imports bcc.
"""
