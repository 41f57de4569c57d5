"""TLS as a passive reader sees it: version, cipher, SNI, ALPN, JA4, and how the handshake ended.

    records.py    the record layer: framing, and where it ends
    hellos.py     ClientHello and ServerHello
    handshake.py  both directions together: `TlsReader`
    names.py      numbers -> names
    ja4.py        the JA4 client fingerprint
"""
