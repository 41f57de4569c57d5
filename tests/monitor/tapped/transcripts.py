"""Sessions inside TLS, after STARTTLS: the client speaks first."""

from typing import Final

GREETING: Final = """
    C: EHLO client.example
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250 CHUNKING
"""
QUIT: Final = """
    C: QUIT
    S: 221 bye
"""
MESSAGE: Final = """
    C: MAIL FROM:<a@client.example> SIZE=120
    S: 250 ok
    C: RCPT TO:<b@example.test>
    S: 250 ok
    C: DATA
    S: 354 go ahead
    C: Subject: s3cret
    C:
    C: s3cret
    C: ..
    C: .
    S: 250 queued
"""
SEVERAL: Final = """
    C: MAIL FROM:<>
    S: 250 ok
    C: RCPT TO:<refused@example.test>
    S: 550 no such user
    C: RCPT TO:<later@example.test> NOTIFY=NEVER
    S: 450 greylisted
    C: DATA
    S: 554 no valid recipients
    C: RSET
    S: 250 ok
    C: MAIL FROM:<c@client.example>
    S: 250 ok
    C: RCPT TO:<d@example.test>
    S: 250 ok
    C: RSET
    S: 250 ok
    C: MAIL FROM:<refused@client.example>
    S: 553 no
"""
EMPTY_MESSAGE: Final = """
    C: MAIL FROM:<a@client.example>
    S: 250 ok
    C: RCPT TO:<b@example.test>
    S: 250 ok
    C: DATA
    S: 354 go ahead
    C: .
    S: 451 try later
"""
ONE_EMPTY_LINE: Final = EMPTY_MESSAGE.replace("    C: .\n", "    C:\n    C: .\n")
PIPELINED: Final = """
    C: MAIL FROM:<a@client.example>
    C: RCPT TO:<b@example.test>
    C: RCPT TO:<nobody@example.test>
    C: DATA
    S: 250 ok
    S: 250 ok
    S: 550 no such user
    S: 354 go ahead
    C: s3cret
    C: .
    C: MAIL FROM:<e@client.example>
    C: RCPT TO:<f@example.test>
    C: DATA
    S: 250 queued
    S: 250 ok
    S: 451 later
    S: 554 no valid recipients
"""
CHUNKS: Final = r"""
    C: MAIL FROM:<a@client.example> BODY=BINARYMIME
    S: 250 ok
    C: RCPT TO:<b@example.test>
    S: 250 ok
    C< BDAT 12\r\ns3cret\r\n.\r\n\x00BDAT 0\r\nBDAT 8 LAST\r\nQUIT\r\n\r\n
    S: 250 12 octets
    S: 250 0 octets
    S: 250 queued
"""
PLAIN: Final = """
    C: AUTH PLAIN s3cret
    S: 235 ok
"""
LOGIN: Final = """
    C: AUTH LOGIN
    S: 334 VXNlcm5hbWU6
    C: s3cret
    S: 334 UGFzc3dvcmQ6
    C: s3cret
    S: 235 ok
"""
CANCELLED: Final = """
    C: AUTH CRAM-MD5
    S: 334 challenge
    C: *
    S: 501 cancelled
"""
REFUSED: Final = """
    C: AUTH LOGIN s3cret
    S: 334 UGFzc3dvcmQ6
    C: s3cret
    S: 535 no
"""
UNKNOWN_VERBS: Final = """
    C: s3cret
    S: 500 what
    C: XS3CRET some s3cret
    S: 502 no
"""
PER_RECIPIENT: Final = """
    C: LHLO client.example
    S: 250 mx.example
    C: MAIL FROM:<a@client.example>
    S: 250 ok
    C: RCPT TO:<b@example.test>
    S: 250 ok
    C: RCPT TO:<c@example.test>
    S: 250 ok
    C: DATA
    S: 354 go ahead
    C: s3cret
    C: .
    S: 451 b: later
    S: 250 c: queued
"""
SESSIONS: Final = {
    "message": GREETING + MESSAGE + QUIT,
    "without_quit": GREETING + MESSAGE,
    "two_messages": GREETING + MESSAGE + MESSAGE + QUIT,
    "several": GREETING + SEVERAL + QUIT,
    "empty": GREETING + EMPTY_MESSAGE + ONE_EMPTY_LINE + QUIT,
    "pipelined": GREETING + PIPELINED + QUIT,
    "chunks": GREETING + CHUNKS + QUIT,
    "auth": GREETING + PLAIN + MESSAGE + QUIT,
    "login": GREETING + LOGIN + MESSAGE + QUIT,
    "cancelled": GREETING + CANCELLED + REFUSED + LOGIN + MESSAGE,
    "unknown_verbs": GREETING + UNKNOWN_VERBS + MESSAGE + QUIT,
    "lmtp": PER_RECIPIENT + QUIT,
    "data_refused": GREETING + SEVERAL + MESSAGE + QUIT,
    "nothing": "",
    "greeting": GREETING,
}
