"""The integers of the tally -> the table that `read` prints.

    findings    what the numbers say: the answer, its error bar, the STARTTLS funnel
    table       how it looks in a terminal

Only counts are shown, nothing that came over the wire.
"""
