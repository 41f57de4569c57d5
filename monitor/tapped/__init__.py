"""Mail inside TLS, as the server's machine sees it: from what its TLS library decrypts to a part of the
record.

stream.py   `TappedStream`: one connection; events in, what it carried out
opening.py  whether the server greeted inside TLS
streams.py  `TappedStreams`: which session each belongs to; bounds, idling, eviction
check.py    what a bystander said of a session, held against what was seen inside

Sans-IO, as the readers of the protocols: the same `Dialogue` reads both, and the same `Ledger` lists what it
reports. Only who watches with --tls-tap loads this.
"""
