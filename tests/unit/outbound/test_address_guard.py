"""Which destinations are refused, in every spelling, and that the checked address is the one that
is connected to."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from ignition_broker.outbound import dialing
from ignition_broker.outbound.address_guard import AddressGuard, AddressRefused, as_address
from ignition_broker.outbound.client import (
    ClientLimits,
    PoolTransport,
    exchange_error,
    http_client,
)
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.egress_proxies import EgressProxies

REFUSED = [
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.1.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
# What resolvers make of these is judged, since nobody else reads them alike.
ODD_FORMS = [
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "0x7f.1",
    "10.1",
    "3232235777",
    "0xa9fea9fe",
    "localhost",
]
PUBLIC = [
    "93.184.215.14",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:93.184.215.14",
    "64:ff9b::5db8:d70e",
]


def found(*addresses: str) -> list:
    return [(0, 0, 0, "", (address, 443)) for address in addresses]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_lies_inside_is_refused(address):
    with pytest.raises(AddressRefused, match="not a public one"):
        AddressGuard().check("hooks.example.com", found(address), is_tls=True)
    with pytest.raises(AddressRefused):
        AddressGuard().check_literal(address, is_tls=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_reached_by_tls_alone(address):
    AddressGuard().check("hooks.example.com", found(address), is_tls=True)
    with pytest.raises(AddressRefused, match="must be https"):
        AddressGuard().check("hooks.example.com", found(address), is_tls=False)


def test_one_inner_address_among_public_ones_is_enough_to_refuse():
    with pytest.raises(AddressRefused):
        AddressGuard().check("h", found("1.1.1.1", "10.0.0.1"), is_tls=True)


@pytest.mark.parametrize("host", ODD_FORMS)
async def test_a_spelling_that_resolves_to_this_machine_or_inside_is_refused(host):
    try:
        detail = await refusal(f"https://{host}/", AddressGuard())
    except httpx.InvalidURL:
        # The client itself refuses it, before anything is resolved.
        return
    assert "not a public one" in detail or "no address" in detail


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("127.0.0.1", "127.0.0.1"),
        ("fd00::/8,::1", "fd00::1"),
        ("hooks.internal", "192.168.0.1"),
    ],
)
def test_what_is_allowed_is_reached_without_tls_too(allowed, address):
    AddressGuard.of(allowed).check("hooks.internal", found(address), is_tls=False)


def test_what_is_allowed_allows_nothing_else():
    guard = AddressGuard.of("10.0.0.0/8,hooks.internal")
    for host, address in (("other.internal", "192.168.0.1"), ("sub.hooks.internal", "127.0.0.1")):
        with pytest.raises(AddressRefused):
            guard.check(host, found(address), is_tls=True)


@pytest.mark.parametrize("allowed", ["10.0.0.1/8", "https://host", "a b", "host:80", "-/-", "*"])
def test_what_is_no_host_and_no_network_is_told(allowed):
    with pytest.raises(ValueError, match="hosts, addresses and networks"):
        AddressGuard.of(allowed)


def test_an_address_is_read_without_its_scope_and_brackets():
    assert str(as_address("[fe80::1%lo]")) == "fe80::1"
    assert as_address("hooks.example.com") is None


class Listening:
    """Counts who connects."""

    def __init__(self) -> None:
        self.connections = 0

    async def __aenter__(self):
        def met(_reader, writer):
            self.connections += 1
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /inside\r\nContent-Length: 0\r\n\r\n")

        self.server = await asyncio.start_server(met, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error):
        self.server.close()


async def refusal(url: str, guard: AddressGuard, proxies: EgressProxies | None = None) -> str:
    egress = Egress(proxies=proxies).guarded(guard)
    limits = ClientLimits(connections=2, connect_timeout_seconds=5)
    async with http_client(
        PoolTransport(limits, egress=egress, server="the destination")
    ) as client:
        with pytest.raises((httpx.ConnectError, httpx.ProxyError)) as error:
            await client.post(url)
    return exchange_error(error.value).detail


async def test_a_name_that_leads_elsewhere_at_the_second_look_up_is_looked_up_once(monkeypatch):
    """The first answer is public, every other one is this machine (DNS rebinding)."""
    real, asked, dialled = socket.getaddrinfo, [], []

    def rebinding(host, *arguments, **more):
        if host != "rebinding.example":
            return real(host, *arguments, **more)
        asked.append(host)
        address = "192.0.2.7" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, arguments[0]))]

    async def dial(addresses, **_more):
        dialled.extend(entry[4][0] for entry in addresses)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(dialing, "start_connection", dial)
    # Documentation addresses stand for public ones here.
    guard = AddressGuard.of("192.0.2.0/24")
    await refusal("https://rebinding.example/", guard)
    assert (asked, dialled) == (["rebinding.example"], ["192.0.2.7"])
    monkeypatch.undo()
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with Listening() as inside:
        detail = await refusal(f"http://rebinding.example:{inside.port}/", guard)
    assert "not a public one" in detail
    assert inside.connections == 0


async def test_nothing_is_connected_to_a_refused_address():
    async with Listening() as inside:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"):
            detail = await refusal(f"http://{host}:{inside.port}/", AddressGuard())
            assert "not a public one" in detail
    assert inside.connections == 0


async def test_a_redirect_to_the_inside_is_not_followed():
    async with Listening() as inside:
        egress = Egress().guarded(AddressGuard.of("127.0.0.1"))
        limits = ClientLimits(connections=2, connect_timeout_seconds=5)
        async with http_client(PoolTransport(limits, egress=egress, server="it")) as client:
            answer = await client.post(f"http://127.0.0.1:{inside.port}/")
    assert (answer.status_code, inside.connections) == (302, 1)


async def test_behind_an_egress_proxy_addresses_and_what_this_machine_resolves_are_judged(
    monkeypatch,
):
    real = socket.getaddrinfo

    def inner(host, *arguments, **more):
        if host == "inner.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.5", 443))]
        if host == "unknown.example":
            raise socket.gaierror(-2, "unknown")
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", inner)
    proxies = EgressProxies.of(https="http://127.0.0.1:9", http=None, exempt="")
    for host in ("10.0.0.1", "[fd00::1]", "inner.example"):
        assert "not a public one" in await refusal(f"https://{host}/", AddressGuard(), proxies)
    # The proxy is asked for what only it can resolve.
    detail = await refusal("https://unknown.example/", AddressGuard(), proxies)
    assert "egress proxy at 127.0.0.1:9" in detail
