"""Live capture in the kernel, through bcc.

    filter.c           the socket filter: writes the segments of the watched ports into a ring buffer
    kernel_source/     the few headers that bcc wants of a kernel; it needs no others
    program            compiles filter.c, loads it, reaches its maps; says why it can't
    tap                the packet sockets that the filter hangs on, each following an interface by its name
    event              what the filter wrote -> Segment
    clock              the kernel's boot time -> UTC
    probe              EbpfProbe: all of them together

Nothing here imports bcc before a probe is made or `why_unavailable` is asked.
"""
