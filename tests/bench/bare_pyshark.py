"""pyshark as its documentation shows it: each packet an object, made of all that tshark can say of it."""

import sys

import pyshark


def main() -> None:
    packets = 0
    with pyshark.FileCapture(sys.argv[1], keep_packets=False) as capture:
        for packet in capture:
            packets += 1
            if "TCP" in packet:
                _ = packet.tcp.srcport
    print(packets)


if __name__ == "__main__":
    main()
