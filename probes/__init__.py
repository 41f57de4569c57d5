"""Where packets come from.

Each probe turns its source into the same small `Segment` and knows nothing of SMTP beyond port numbers:

    segment.py    the Segment, and the flags of a TCP header
    probe.py      what every probe offers, what it counts, how it fails
    frames.py     bytes of a captured frame -> Segment (link layers, IPv4, IPv6)
    fragments.py  IP fragments -> whole datagrams
    pcap/         capture files; and libpcap: plain live capture
    ebpf/         bcc: a filter in the kernel on an AF_PACKET socket
    tshark/       pyshark: dumpcap, editcap and tshark

And what no packet shows:

    tls_tap/      probes in the mail server's TLS library -> TapEvents

Nothing here imports `monitor`.
"""
