"""Passive TLS: what can be known of a TLS connection by who only watches it. Sans-IO.

records         each direction's bytes -> records; knows when framing was lost and when clear text is back
messages        handshake records -> whole hello messages; everything else is skipped by its length
hellos          ClientHello and ServerHello -> their fields
names           numbers -> OpenSSL's names of versions and cipher suites
ja4             ClientHello -> JA4 fingerprint
establishment   types and lengths of records -> did both sides send application data?
handshake       `TlsReader`: all of it together, for one connection
"""
