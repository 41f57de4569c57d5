"""Every metric: its name, help text, labels, and the closed set of each label's values.

Dashboards, alerts and tests take the names from here, and docs/metrics.md is held to it. `smtp_` is what the
traffic did, `smtp_monitor_` how well the monitor watched it. No address, name or domain is ever a label.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Final

from monitor.anomalies import Anomaly
from monitor.greylisters import MODELS
from monitor.metrics.labels import (
    AUTH_MECHANISMS,
    NONE,
    TLS_VERSIONS,
    IncompleteReason,
    RecordResult,
    ReplyClass,
    Visibility,
    reach_labels,
)
from monitor.peers import RETURNS, After, GivenUp, Return, TlsNeed
from monitor.sessions.record import (
    By,
    Channel,
    Direction,
    Envelope,
    Reach,
    StarttlsOutcome,
    TapResult,
    TransactionOutcome,
)
from monitor.simulation.tallies import DECISIONS, FATES, Decision, Fate, Greylister
from probes.probe import DropSite, FilterVariant, Restart, Verdict


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    name: str
    values: tuple[str, ...] | None
    """The closed set; None where it is known only when the program runs."""


def _label(name: str, values: Iterable[str]) -> Label:
    return Label(name, tuple(str(value) for value in values))


PORT: Final = Label("port", None)
"""The watched ports, and `other`."""
DIRECTION: Final = _label("direction", Direction)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    combinations: tuple[tuple[str, ...], ...] | None = None
    """The label values that can stand together, where not all can."""

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    def children(self, ports: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Every combination of label values; `ports` are the values of the label `port`.

        Nothing for a family with a label whose values only the running program knows.
        """
        if self.combinations is not None:
            return iter(self.combinations)
        sets = [ports if label is PORT else label.values for label in self.labels]
        known = [values for values in sets if values is not None]
        return product(*known) if len(known) == len(sets) else iter(())


SESSIONS: Final = Family(
    "smtp_sessions_total",
    Kind.COUNTER,
    "Sessions that ended, by whether somebody reading the stream could see the envelope.",
    (PORT, DIRECTION, _label("channel", Channel), _label("envelope", Envelope)),
)
STARTTLS: Final = Family(
    "smtp_starttls_total",
    Kind.COUNTER,
    "Sessions that ended, by how far STARTTLS came.",
    (PORT, DIRECTION, _label("outcome", StarttlsOutcome)),
)
TLS_HANDSHAKES: Final = Family(
    "smtp_tls_handshakes_total",
    Kind.COUNTER,
    "Sessions whose encryption was established, by TLS version.",
    (PORT, _label("version", TLS_VERSIONS)),
)
MESSAGES: Final = Family(
    "smtp_messages_total",
    Kind.COUNTER,
    "Mail transactions seen in clear (one for each MAIL command), by outcome.",
    (PORT, _label("outcome", TransactionOutcome)),
)
RECIPIENTS: Final = Family(
    "smtp_recipients_total",
    Kind.COUNTER,
    "Recipients seen in clear (one for each RCPT command), by class of reply.",
    (PORT, _label("reply_class", ReplyClass)),
)
AUTH: Final = Family(
    "smtp_auth_total",
    Kind.COUNTER,
    "AUTH commands seen in clear, by mechanism.",
    (PORT, _label("mechanism", AUTH_MECHANISMS)),
)
NULL_SENDER_MESSAGES: Final = Family(
    "smtp_null_sender_messages_total",
    Kind.COUNTER,
    "Mail transactions from the null sender, in clear and as a tap saw them inside TLS; most are bounces.",
    (PORT, _label("visibility", Visibility)),
)
TAPPED_SESSIONS: Final = Family(
    "smtp_tapped_sessions_total",
    Kind.COUNTER,
    "Encrypted sessions that ended, by how well the tap of the server's TLS library saw them inside.",
    (PORT, _label("result", TapResult)),
)
TAPPED_MESSAGES: Final = Family(
    "smtp_tapped_messages_total",
    Kind.COUNTER,
    "Mail transactions seen inside TLS (one for each MAIL command), by outcome.",
    (PORT, _label("outcome", TransactionOutcome)),
)
TAPPED_RECIPIENTS: Final = Family(
    "smtp_tapped_recipients_total",
    Kind.COUNTER,
    "Recipients seen inside TLS (one for each RCPT command), by class of reply.",
    (PORT, _label("reply_class", ReplyClass)),
)
TAPPED_AUTH: Final = Family(
    "smtp_tapped_auth_total",
    Kind.COUNTER,
    "AUTH commands seen inside TLS, by mechanism.",
    (PORT, _label("mechanism", AUTH_MECHANISMS)),
)
TAPPED_RETURNS: Final = Family(
    "smtp_tapped_returns_total",
    Kind.COUNTER,
    "What was put off inside TLS, and how it came again for the first time, or never did within two days.",
    (_label("return", Return),),
)
TAPPED_RETURNS_UNKNOWN: Final = Family(
    "smtp_tapped_returns_unknown_total",
    Kind.COUNTER,
    "What was put off inside TLS and may have come again: nobody can tell, and why.",
    (_label("reason", GivenUp),),
)
TAPPED_RETURNS_PENDING: Final = Family(
    "smtp_tapped_returns_pending", Kind.GAUGE, "What was put off inside TLS, and may still come again."
)
BYTES: Final = Family(
    "smtp_bytes_total",
    Kind.COUNTER,
    "TCP payload of the sessions that ended, both directions, by whether the stream shows it.",
    (PORT, _label("visibility", Visibility)),
)
ANOMALIES: Final = Family(
    "smtp_anomalies_total",
    Kind.COUNTER,
    "Sessions that did something a well-behaved one does not.",
    (_label("anomaly", Anomaly),),
)


_REACH: Final = (
    _label("greylister", [model.name for model in MODELS]),
    _label("reach", Reach),
    _label("by", [*By, NONE]),
)
_REACH_COMBINATIONS: Final = tuple(
    sorted(reach_labels(model.name, found) for model in MODELS for found in model.results)
)
GREYLISTER_SESSIONS: Final = Family(
    "smtp_greylister_sessions_total",
    Kind.COUNTER,
    "Sessions that ended, but for outbound ones, by what a program that watches the stream could do.",
    _REACH,
    _REACH_COMBINATIONS,
)
GREYLISTER_MESSAGES: Final = Family(
    "smtp_greylister_messages_total",
    Kind.COUNTER,
    "Mail transactions seen in clear, by how far the program's sight reached into their session.",
    _REACH,
    _REACH_COMBINATIONS,
)
GREYLISTER_RECIPIENTS: Final = Family(
    "smtp_greylister_recipients_total",
    Kind.COUNTER,
    "Recipients seen in clear, by how far the program's sight reached into their session.",
    _REACH,
    _REACH_COMBINATIONS,
)
COUNTRY_SESSIONS: Final = Family(
    "smtp_country_sessions_total",
    Kind.COUNTER,
    "Sessions that ended, by the country of the client's address. Nothing without a GeoIP database.",
    (Label("country", None), _label("envelope", Envelope)),
)
PEER_RETURNS: Final = Family(
    "smtp_peer_returns_total",
    Kind.COUNTER,
    "What was put off, and how it came again for the first time, or never did within two days.",
    (_label("after", After), _label("return", dict.fromkeys(how for _, how in RETURNS))),
    tuple((after.value, how.value) for after, how in RETURNS),
)
PEER_RETURNS_UNKNOWN: Final = Family(
    "smtp_peer_returns_unknown_total",
    Kind.COUNTER,
    "What was put off and may have come again: nobody can tell, and why.",
    (_label("after", After), _label("reason", GivenUp)),
)
PEER_RETURNS_PENDING: Final = Family(
    "smtp_peer_returns_pending",
    Kind.GAUGE,
    "What was put off, and may still come again.",
    (_label("after", After),),
)
PEERS: Final = Family(
    "smtp_peers",
    Kind.GAUGE,
    "Peers that are remembered, by what they did when they got no TLS.",
    (_label("tls_need", TlsNeed),),
)
PEER_DARK_SESSIONS: Final = Family(
    "smtp_peer_dark_sessions",
    Kind.GAUGE,
    "Sessions that STARTTLS hid, of the peers that are remembered, by what these did when they got no TLS.",
    (_label("tls_need", TlsNeed),),
)
PEERS_FORGOTTEN: Final = Family(
    "smtp_peers_forgotten_total", Kind.COUNTER, "Peers that were forgotten for want of room."
)
SIMULATION_DECISIONS: Final = Family(
    "smtp_simulation_decisions_total",
    Kind.COUNTER,
    "What the simulated greylister would have decided: greylite once a session, postgrey once a recipient.",
    (_label("greylister", Greylister), _label("decision", Decision)),
    tuple((name.value, choice.value) for name in Greylister for choice in sorted(DECISIONS[name])),
)
SIMULATION_TRIPLETS: Final = Family(
    "smtp_simulation_triplets_total",
    Kind.COUNTER,
    "What became of the triplets that the simulated greylister put off.",
    (_label("greylister", Greylister), _label("fate", Fate)),
    tuple((name.value, choice.value) for name in Greylister for choice in sorted(FATES[name])),
)
SIMULATION_PENDING: Final = Family(
    "smtp_simulation_pending",
    Kind.GAUGE,
    "Triplets that the simulated greylister has put off and that may still come again.",
    (_label("greylister", Greylister),),
)
SIMULATION_KNOWN: Final = Family(
    "smtp_simulation_known",
    Kind.GAUGE,
    "What the simulated greylister lets through: to greylite, addresses; to postgrey, triplets.",
    (_label("greylister", Greylister),),
)
SIMULATION_KNOWN_FORGOTTEN: Final = Family(
    "smtp_simulation_known_forgotten_total",
    Kind.COUNTER,
    "Known ones that the simulated greylister forgot before their time, because its table was full.",
    (_label("greylister", Greylister),),
)
SIMULATION_RETRY_DELAY: Final = Family(
    "smtp_simulation_retry_delay_seconds",
    Kind.HISTOGRAM,
    "Time from the first attempt to the one that passed, where the real server put off the first.",
    (_label("greylister", Greylister),),
)
SESSION_DURATION: Final = Family(
    "smtp_session_duration_seconds", Kind.HISTOGRAM, "Time from a session's first packet to its last."
)
SESSIONS_OPEN: Final = Family("smtp_sessions_open", Kind.GAUGE, "Sessions that are open now.")
HANDSHAKES_INCOMPLETE: Final = Family(
    "smtp_tcp_handshakes_incomplete_total",
    Kind.COUNTER,
    "Connections whose TCP handshake never completed: refused, unanswered or half-open. They have no record.",
)
STRAYS: Final = Family(
    "smtp_tcp_stray_segments_total",
    Kind.COUNTER,
    "TCP segments without data that belong to no known connection: probes of scans, what trails a session.",
)
PACKETS: Final = Family(
    "smtp_monitor_packets_total",
    Kind.COUNTER,
    "Packets that reached the probe, by what became of them.",
    (_label("verdict", Verdict),),
)
PACKETS_DROPPED: Final = Family(
    "smtp_monitor_packets_dropped_total",
    Kind.COUNTER,
    "Packets lost before they could be read, by where.",
    (_label("where", DropSite),),
)
LAG: Final = Family(
    "smtp_monitor_lag_seconds",
    Kind.GAUGE,
    "Age of the packet that was read last, while packets come or wait; 0 when none do.",
)
TSHARK_RESTARTS: Final = Family(
    "smtp_monitor_tshark_restarts_total",
    Kind.COUNTER,
    "How often the pyshark probe replaced its tshark, by why; no packet is lost by it.",
    (_label("reason", Restart),),
)
SESSIONS_INCOMPLETE: Final = Family(
    "smtp_monitor_sessions_incomplete_total",
    Kind.COUNTER,
    "Sessions that were not seen whole; one session counts under each reason that it has.",
    (_label("reason", IncompleteReason),),
)
RECORDS: Final = Family(
    "smtp_monitor_records_total",
    Kind.COUNTER,
    "Session records, by whether they could be written. Zero where no records were asked for.",
    (_label("result", RecordResult),),
)
EBPF_FILTER: Final = Family(
    "smtp_monitor_ebpf_filter",
    Kind.GAUGE,
    "Which filter the eBPF probe has in the kernel (1); 0 for the others, and for all with another probe.",
    (_label("variant", FilterVariant),),
)
CAPTURE_UP: Final = Family(
    "smtp_monitor_capture_up",
    Kind.GAUGE,
    "Whether the interface is being captured now (1) or not (0).",
    (Label("interface", None), Label("probe", None)),
)
CONFINED: Final = Family(
    "smtp_monitor_confined",
    Kind.GAUGE,
    "Whether the process that reads the packets has given this up (1) or not (0).",
    (Label("by", None),),
)
VERDICT_MISMATCHES: Final = Family(
    "smtp_monitor_verdict_mismatches_total",
    Kind.COUNTER,
    "Sessions of which the packets were read one way, and the tap saw the other inside TLS. A fault of ours.",
)
TLS_TAP_ENABLED: Final = Family(
    "smtp_monitor_tls_tap_enabled",
    Kind.GAUGE,
    "Whether a tap of the mail server's TLS library was asked for (1) or not (0).",
)
TLS_TAP_LIBRARIES: Final = Family(
    "smtp_monitor_tls_tap_libraries", Kind.GAUGE, "Files of TLS libraries that the tap is attached to now."
)
TLS_TAP_EVENTS_LOST: Final = Family(
    "smtp_monitor_tls_tap_events_lost_total",
    Kind.COUNTER,
    "Events of the tap that were lost before they could be read.",
)
BUILD_INFO: Final = Family(
    "smtp_monitor_build_info",
    Kind.GAUGE,
    "Always 1; its labels say what is running.",
    (Label("version", None), Label("python", None)),
)

FAMILIES: Final = (
    SESSIONS,
    STARTTLS,
    TLS_HANDSHAKES,
    MESSAGES,
    RECIPIENTS,
    AUTH,
    NULL_SENDER_MESSAGES,
    TAPPED_SESSIONS,
    TAPPED_MESSAGES,
    TAPPED_RECIPIENTS,
    TAPPED_AUTH,
    TAPPED_RETURNS,
    TAPPED_RETURNS_UNKNOWN,
    TAPPED_RETURNS_PENDING,
    BYTES,
    ANOMALIES,
    GREYLISTER_SESSIONS,
    GREYLISTER_MESSAGES,
    GREYLISTER_RECIPIENTS,
    COUNTRY_SESSIONS,
    PEER_RETURNS,
    PEER_RETURNS_UNKNOWN,
    PEER_RETURNS_PENDING,
    PEERS,
    PEER_DARK_SESSIONS,
    PEERS_FORGOTTEN,
    SIMULATION_DECISIONS,
    SIMULATION_TRIPLETS,
    SIMULATION_PENDING,
    SIMULATION_KNOWN,
    SIMULATION_KNOWN_FORGOTTEN,
    SIMULATION_RETRY_DELAY,
    SESSION_DURATION,
    SESSIONS_OPEN,
    HANDSHAKES_INCOMPLETE,
    STRAYS,
    PACKETS,
    PACKETS_DROPPED,
    LAG,
    TSHARK_RESTARTS,
    SESSIONS_INCOMPLETE,
    RECORDS,
    EBPF_FILTER,
    CAPTURE_UP,
    CONFINED,
    VERDICT_MISMATCHES,
    TLS_TAP_ENABLED,
    TLS_TAP_LIBRARIES,
    TLS_TAP_EVENTS_LOST,
    BUILD_INFO,
)
