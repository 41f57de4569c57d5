"""The floor under every reader in Python: libpcap's binding hands over each packet, unread."""

import sys

import pcapy


def main() -> None:
    reader = pcapy.open_offline(sys.argv[1])
    packets = 0
    while reader.next()[0] is not None:
        packets += 1
    print(packets)


if __name__ == "__main__":
    main()
