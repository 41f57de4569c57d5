"""The integers of the tally -> the table that `read` prints.

    findings    what the numbers say: the answer, its error bar, the STARTTLS funnel
    table       how it looks in a terminal
    greylisters the part of it that speaks of greylisters
    layout      how numbers and blocks look

Only counts are shown, nothing that came over the wire.
"""
