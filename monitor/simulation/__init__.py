"""What if a greylister stood here? Its table, kept over what can be seen in clear, and its decisions counted.

    simulation   the front: finished session records in, counters out
    greylite     what greylite 2.3 would have decided, one decision a session
    postgrey     what postgrey 1.37 would have decided, one decision a recipient
    rules        what the two have in common
    attempts     session record -> what a greylister is asked
    tallies      decisions, fates and delays, as plain integers
    tables       the rows: triplets that wait, and who is known
    store        the database: commits, a full disk
    state_file   the file, its key, and who else has it open

docs/simulation.md says what the numbers mean.
"""
