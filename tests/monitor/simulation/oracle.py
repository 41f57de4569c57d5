"""The two greylisters once more, as plainly as they can be written: dictionaries, nothing ever taken away."""

from datetime import datetime

from monitor.greylisters.greylite import address_in
from monitor.sessions.record import Envelope, Reach, SessionRecord

HOUR, DAY = 3_600, 86_400


def seconds(record: SessionRecord, after: float) -> float:
    return datetime.fromisoformat(record.start).timestamp() + after


class PlainGreylite:
    def __init__(self) -> None:
        self.pending: dict[tuple[str, bytes, bytes], int] = {}
        self.verified: dict[str, tuple[float, int]] = {}

    def decisions(self, record: SessionRecord) -> list[str]:
        ip, connected = record.client.ip, seconds(record, 0)
        since, last = self.verified.get(ip, (float("inf"), 0))
        if since <= connected and int(connected) - last <= 480 * HOUR:
            self.verified[ip] = (since, max(last, int(connected)))
            return ["passed_known"]
        reach = record.greylisters["greylite"]
        if reach.reach is not Reach.DECIDED:
            return ["unread_tls"]
        (transaction,) = record.transactions
        to = next(rcpt for rcpt in transaction.recipients if rcpt.code == 250)
        sender, recipient = (
            address_in(f"<{transaction.mail_from}>".encode()),
            address_in(f"<{to.address}>".encode()),
        )
        assert sender is not None
        assert recipient is not None
        now = int(seconds(record, to.after_seconds or 0))
        triplet = (ip, sender, recipient)
        if now - self.pending.get(triplet, -100 * HOUR) <= 18 * HOUR:
            self.verified[ip] = (seconds(record, to.after_seconds or 0), now)
            self.pending = {key: first for key, first in self.pending.items() if key[0] != ip}
            return ["passed_on_retry"]
        self.pending[triplet] = now
        return ["deferred"]


class PlainPostgrey:
    def __init__(self) -> None:
        self.triplets: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.clients: dict[str, tuple[int, int]] = {}

    def decisions(self, record: SessionRecord) -> list[str]:
        if record.envelope is Envelope.HIDDEN:
            return ["out_of_sight"]
        (transaction,) = record.transactions
        return [
            self.decision(
                record.client.ip,
                transaction.mail_from or "",
                recipient.address or "",
                int(seconds(record, recipient.after_seconds or 0)),
            )
            for recipient in transaction.recipients
            if recipient.code in (250, 450)
        ]

    def decision(self, ip: str, sender: str, recipient: str, now: int) -> str:
        """As it is in the program: one table, a first and a last time for each triplet."""
        times, used = self.clients.get(ip, (0, 0))
        if now - used > 35 * DAY:
            times = 0
        if times >= 5:
            if now >= used + HOUR or used > now:
                self.clients[ip] = (times, now)
            return "passed_known"
        key = (ip.rpartition(".")[0], sender.lower(), recipient.lower())
        first, last = self.triplets.get(key, (now, now))
        has_passed = last - first >= 300
        if (now - last > 35 * DAY) if has_passed else (now - first > 2 * DAY):
            first, last, has_passed = now, now, False
        first = min(first, now)
        self.triplets[key] = (first, max(last, now) if has_passed else now)
        if has_passed:
            return "passed_known"
        if now - first < 300:
            return "deferred"
        if not times or now >= used + HOUR or used > now:
            self.clients[ip] = (times + 1, now)
        return "passed_on_retry"
