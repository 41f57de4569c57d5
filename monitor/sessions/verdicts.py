"""What the record says of encryption, as functions over plain facts.

Two words run through all of it. *Established*: both sides sent encrypted data after a handshake. *Ruled out*:
what was captured shows that this did not happen. Where bytes were lost neither may hold, and then the verdict
is unknown; a missing packet never turns into a guess.
"""

from typing import Final

from monitor.sessions.record import Channel, Envelope, StarttlsOutcome


class Facts:
    """What is known of a session at its end."""

    __slots__ = (
        "client_sent_clear_text",
        "client_sent_tls",
        "codes",
        "commands_lost",
        "ehlo_answered",
        "end_seen",
        "established",
        "implicit",
        "keyword_masked",
        "mail_in_clear",
        "offer_unseen",
        "offered",
        "request_masked",
        "requested",
        "ruled_out",
        "server_sent_clear_text",
        "server_sent_tls",
        "upgraded",
        "whole",
    )

    def __init__(
        self,
        *,
        established: bool,
        ruled_out: bool,
        whole: bool,
        end_seen: bool,
        client_sent_tls: bool,
        server_sent_tls: bool,
        implicit: bool,
        upgraded: bool,
        client_sent_clear_text: bool,
        server_sent_clear_text: bool,
        mail_in_clear: bool,
        commands_lost: bool,
        ehlo_answered: bool,
        offered: bool,
        offer_unseen: bool,
        keyword_masked: bool,
        requested: int,
        request_masked: bool,
        codes: tuple[int | None, ...],
    ) -> None:
        self.established: Final = established
        self.ruled_out: Final = ruled_out
        self.whole: Final = whole
        """Every byte up to here was captured."""
        self.end_seen: Final = end_seen
        """And its end, too."""
        self.client_sent_tls: Final = client_sent_tls
        self.server_sent_tls: Final = server_sent_tls
        self.implicit: Final = implicit
        """The client's first bytes of all were TLS."""
        self.upgraded: Final = upgraded
        """STARTTLS was answered 2xx."""
        self.client_sent_clear_text: Final = client_sent_clear_text
        self.server_sent_clear_text: Final = server_sent_clear_text
        self.mail_in_clear: Final = mail_in_clear
        """A MAIL in clear, before encryption was established if it ever was."""
        self.commands_lost: Final = commands_lost
        """Bytes were lost that may have held commands; before encryption was established if it ever was."""
        self.ehlo_answered: Final = ehlo_answered
        """A positive reply to EHLO came in clear."""
        self.offered: Final = offered
        self.offer_unseen: Final = offer_unseen
        """A reply to EHLO was lost, or a part of it."""
        self.keyword_masked: Final = keyword_masked
        self.requested: Final = requested
        self.request_masked: Final = request_masked
        self.codes: Final = codes
        """The replies to STARTTLS."""


def channel(facts: Facts) -> Channel:
    """What carried the session."""
    if facts.implicit:
        if facts.server_sent_tls:
            return Channel.IMPLICIT_TLS
        # A client that speaks TLS to a server which answers in clear has no TLS channel.
        if facts.server_sent_clear_text:
            return Channel.CLEARTEXT
        return Channel.IMPLICIT_TLS if facts.whole and facts.end_seen else Channel.UNKNOWN
    if facts.client_sent_tls:
        if facts.upgraded:
            return Channel.STARTTLS
        if facts.requested and None in facts.codes and not facts.whole:
            return Channel.STARTTLS  # only the 220 was lost
        if facts.commands_lost:
            # Nothing but STARTTLS leads both sides from clear text to TLS.
            seen_both = facts.client_sent_clear_text and facts.server_sent_clear_text
            return Channel.STARTTLS if seen_both and facts.server_sent_tls else Channel.UNKNOWN
        # TLS that nobody had agreed on is not STARTTLS.
    return Channel.CLEARTEXT if facts.ruled_out else Channel.UNKNOWN


def envelope(facts: Facts) -> Envelope:
    """Could somebody reading the byte stream see the envelope?"""
    if facts.established:
        if facts.mail_in_clear:
            return Envelope.PARTIAL
        return Envelope.UNKNOWN if facts.commands_lost else Envelope.HIDDEN
    if not facts.ruled_out:
        return Envelope.UNKNOWN
    if facts.mail_in_clear:
        return Envelope.VISIBLE
    return Envelope.UNKNOWN if facts.commands_lost else Envelope.NONE


def starttls_offered(facts: Facts) -> bool | None:
    """By the answers to EHLO in clear; None where none was seen whole."""
    if facts.offered:
        return True
    return False if facts.ehlo_answered and not (facts.offer_unseen or facts.commands_lost) else None


def starttls_outcome(facts: Facts, carried_by: Channel) -> StarttlsOutcome:
    """How far STARTTLS came. `carried_by`: as `channel` says."""
    if carried_by is Channel.STARTTLS:
        if facts.established:
            return StarttlsOutcome.ESTABLISHED
        return StarttlsOutcome.FAILED if facts.ruled_out else StarttlsOutcome.UNKNOWN
    if carried_by is Channel.UNKNOWN or not (facts.ruled_out or carried_by is Channel.IMPLICIT_TLS):
        return StarttlsOutcome.UNKNOWN
    if facts.upgraded:
        return StarttlsOutcome.ABANDONED
    if facts.commands_lost or (None in facts.codes and not facts.whole):
        return StarttlsOutcome.UNKNOWN  # one more request, or its 220, may be among what was lost
    if facts.request_masked:
        return StarttlsOutcome.MASKED
    if facts.requested:
        refused = any(code is not None and code // 100 != 2 for code in facts.codes)
        return StarttlsOutcome.REFUSED if refused else StarttlsOutcome.ABANDONED
    if facts.offer_unseen:
        return StarttlsOutcome.UNKNOWN
    if not facts.ehlo_answered:
        return StarttlsOutcome.NOT_REACHED
    if facts.offered:
        return StarttlsOutcome.UNUSED
    return StarttlsOutcome.MASKED if facts.keyword_masked else StarttlsOutcome.NOT_OFFERED
