"""Where TLS ends, seen from the program that watches the stream."""

from enum import StrEnum


class TlsEnds(StrEnum):
    """It moves the line: what stands behind the end of TLS reads clear text."""

    SERVER = "server"
    """In the SMTP server, which the watcher stands before: it sees ciphertext."""
    UCSPI_TLS = "ucspi-tls"
    """In a program that starts TLS on the same socket when the SMTP server asks for it (UCSPI-TLS): the
    watcher and the TLS program race for the bytes."""
    PROXY = "proxy"
    """In a proxy before the watcher (stunnel, sslserver): it sees clear text throughout."""
