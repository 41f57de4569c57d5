"""The pyshark probe: Wireshark's programs capture, take encapsulations off, and put IP fragments together.

    dumpcap ─┐                                            ┌─▶ rows ──▶ Segment
    (live)   ├─pcapng─▶ blocks ──frames──▶ dissector ──▶ tshark
    editcap ─┘
    (files)

Wireshark's part ends with TCP: what is in the segments is read by the parser that all probes feed.
`dissector` is the one file that knows pyshark.
"""
