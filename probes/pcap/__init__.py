"""Capture files, and plain live capture with libpcap.

files       several files, one after the other -> segments
opening     a path or standard input -> bytes, uncompressed, known to begin like a capture
libpcap     bytes -> frames, through libpcap: nearly all captures
pcapng      bytes -> frames, through python-pcapng: the few pcapng files that libpcap refuses
live        interfaces -> segments, where bcc is missing
filter      what the kernel is asked for, by libpcap here and by dumpcap in probes.tshark
"""
