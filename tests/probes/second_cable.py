"""Another cable between the two hosts, beside the first."""

from typing import Final

from tests.lab.network import Network

SECOND: Final = "mail1"
SECOND_ADDRESS: Final = "10.78.0.1"


def second_cable(network: Network) -> None:
    server, client = network.server, network.client
    server.run(["ip", "link", "add", SECOND, "type", "veth", "peer", "name", SECOND, "netns", client.name])
    for namespace, address in ((server, SECOND_ADDRESS), (client, "10.78.0.2")):
        namespace.run(["ip", "address", "add", f"{address}/24", "dev", SECOND])
        namespace.run(["ip", "link", "set", SECOND, "up"])
