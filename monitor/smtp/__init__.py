"""Clear-text SMTP as a passive reader sees it: both directions in, events out (RFC 5321 and its extensions).

    transitions.py   the client side's phases and the one table that moves between them
    grammar.py       a command line -> `Command`
    replies.py       reply lines -> `Reply`
    body.py          where the message after DATA ends
    events.py        what the dialogue reports
    matching.py      `ReplyQueue`: which command a reply answers
    dialogue.py      `Dialogue`: everything above put together

Secrets end here: the argument of AUTH beyond its mechanism, every line of its exchange and every byte of a
body are skipped by count and never become part of an event.
"""
