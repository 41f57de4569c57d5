"""Capture files, and plain live capture with libpcap.

files       several files, one after the other -> segments
opening     a path or standard input -> bytes, uncompressed, known to begin like a capture
reader      bytes -> frames -> segments: what the formats have in common
classic     the pcap format
pcapng      the pcapng format
live        interfaces -> segments, through libpcap, where bcc is missing
filter      what the kernel is asked for, by libpcap here and by dumpcap in probes.tshark
"""
