"""Connections, from their packets to one frozen record each.

table.py         `SessionTable`: which connection a segment belongs to; bounds, idling, eviction
session.py       one connection: packets in, one `SessionRecord` out
verdicts.py      what its record says of encryption
conversation.py  which protocol its bytes belong to: PROXY header, SMTP, TLS, and SMTP again
ledger.py        answered commands -> what a record lists of them, within its bound
transactions.py  of these, the mail transactions
reach.py         how a model of a greylister reads along
site.py          what is known of the place beside the packets
direction.py     inbound, outbound, internal: by the addresses that are ours
community_id.py  the flow hash by which other logs join
record.py        the record itself
"""
