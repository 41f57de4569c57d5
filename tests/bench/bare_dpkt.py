"""dpkt as its documentation shows it: Ethernet, IP and TCP headers of each packet, and nothing else."""

import sys
from pathlib import Path

import dpkt


def main() -> None:
    packets = 0
    with Path(sys.argv[1]).open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            dpkt.ethernet.Ethernet(frame)
            packets += 1
    print(packets)


if __name__ == "__main__":
    main()
