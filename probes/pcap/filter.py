"""What the kernel is asked for where a packet socket takes a classic BPF program: libpcap and dumpcap."""


def kernel_filter(ports: frozenset[int]) -> str:
    """A pcap-filter(7) expression for what the decoder may want.

    `vlan` is no part of it: that word shifts all that stands behind it, and `any` does not know it. The
    kernel takes the outer tag out of a received frame before the filter sees it; frames with another one
    pass as they are. On `any` those are lost: a kernel like Linux 6.18 names the innermost protocol there,
    yet leaves the inner tag in front of it.
    """
    return " or ".join(
        (
            *(f"tcp port {port}" for port in sorted(ports)),
            "(ip proto 6 and ip[6:2] & 0x3fff != 0)",
            # hop-by-hop, routing, fragment, authentication, destination options
            *(f"ip6[6] == {header}" for header in (0, 43, 44, 51, 60)),
            *(f"ether proto {ethertype:#x}" for ethertype in (0x8100, 0x88A8, 0x9100)),
        )
    )
