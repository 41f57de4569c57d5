"""Many sessions: `mail_client.py SERVER RECIPIENT clear|starttls SESSIONS BYTES PARALLEL PER_SECOND`.

smtplib does it all but hand over the message: its own way of that reads each line. The message goes out
whole, in segments as large as the card takes. PER_SECOND 0: no pauses.
"""

import smtplib
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

LINE: Final = b"A line of mail, as long as they often are, with its end of two bytes.\r\n"
_TIMEOUT_SECONDS: Final = 60.0


def send(server: str, recipient: str, body: bytes, context: ssl.SSLContext | None, not_before: float) -> None:
    time.sleep(max(0.0, not_before - time.monotonic()))
    with smtplib.SMTP(server, local_hostname="client.test", timeout=_TIMEOUT_SECONDS) as session:
        session.ehlo()
        if context is not None:
            session.starttls(context=context)
            session.ehlo()
        for expected, command in (
            (250, "MAIL FROM:<a@client.test>"),
            (250, f"RCPT TO:<{recipient}>"),
            (354, "DATA"),
        ):
            code, text = session.docmd(command)
            if code != expected:
                raise smtplib.SMTPResponseException(code, text)
        session.send(body)
        code, text = session.getreply()
        if code != 250:
            raise smtplib.SMTPResponseException(code, text)


def any_certificate() -> ssl.SSLContext:
    """As opportunistic TLS has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def message(size: int) -> bytes:
    """Of about that size, and one line at least."""
    return b"Subject: measured\r\n\r\n" + LINE * max(1, size // len(LINE)) + b".\r\n"


def main() -> None:
    server, recipient, channel, *rest = sys.argv[1:]
    sessions, size, parallel, per_second = map(int, rest)
    context = any_certificate() if channel == "starttls" else None
    body = message(size)
    started = time.monotonic()
    with ThreadPoolExecutor(parallel) as threads:
        waiting = [
            threads.submit(send, server, recipient, body, context, started + number / (per_second or 1e9))
            for number in range(sessions)
        ]
    for session in waiting:
        session.result()


if __name__ == "__main__":
    main()
