"""Functions of TLS libraries through which servers read and write, and the tap's programs that they call."""

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """Of a library."""

    OPENSSL = "openssl"
    GNUTLS = "gnutls"


class Hook(NamedTuple):
    """The programs, by the names of their functions in tap.c."""

    enter: str
    leave: str | None = None
    within: str | None = None
    """It ends in a call of that function, in releases that have it: hooked there, it is seen."""


HOOKS: Final[dict[Kind, dict[str, Hook]]] = {
    # SSL_accept ends in SSL_do_handshake, in all releases.
    Kind.OPENSSL: {
        "SSL_do_handshake": Hook("enter_handshake_openssl", "leave_handshake"),
        "SSL_read": Hook("enter_call", "leave_read"),
        "SSL_read_ex": Hook("enter_call_ex", "leave_read"),
        "SSL_write": Hook("enter_call", "leave_write"),
        "SSL_write_ex": Hook("enter_call_ex", "leave_write"),
        "SSL_free": Hook("on_free"),
    },
    Kind.GNUTLS: {
        "gnutls_handshake": Hook("enter_handshake_gnutls", "leave_handshake"),
        "gnutls_record_recv": Hook("enter_call", "leave_read"),
        "gnutls_record_recv_seq": Hook("enter_call", "leave_read"),
        "gnutls_record_send": Hook("enter_call", "leave_write", within="gnutls_record_send2"),
        "gnutls_record_send2": Hook("enter_call", "leave_write"),
        # It hands to gnutls_record_send what that already had while it was corked.
        "gnutls_record_uncork": Hook("enter_uncork", "leave_uncork"),
        "gnutls_deinit": Hook("on_free"),
    },
}
"""A library has not all of them in every release: SSL_read_ex came with OpenSSL 1.1.1, gnutls_record_send2
with GnuTLS 3.6.3."""
