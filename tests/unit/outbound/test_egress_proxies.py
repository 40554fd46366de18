"""Which proxy leads where, as the three variables say."""

from __future__ import annotations

import pytest

from ignition_broker.outbound.egress_proxies import EgressProxies, parse_proxy

PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("text", "name", "authorization"),
    [
        (PROXY, "proxy.example.com:3128", None),
        ("proxy.example.com:3128", "proxy.example.com:3128", None),
        ("http://proxy.example.com/", "proxy.example.com:80", None),
        ("http://[2001:db8::1]:3128", "[2001:db8::1]:3128", None),
        (
            "http://jo:p%40ss@proxy.example.com:3128",
            "proxy.example.com:3128",
            b"Basic am86cEBzcw==",
        ),
        ("jo@proxy.example.com:3128", "proxy.example.com:3128", b"Basic am86"),
    ],
)
def test_a_proxy_is_named_with_and_without_scheme_port_and_credentials(text, name, authorization):
    proxy = parse_proxy(text)
    assert (proxy.name, proxy.authorization) == (name, authorization)
    assert "am86" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "socks5://jo:hunter2@proxy.example.com:1080",
        "https://jo:hunter2@proxy.example.com",
        "http://jo:hunter2@:3128",
        "http://jo:hunter2@proxy.example.com:port",
        "http://jo:hunter2@proxy.example.com:3128/path",
        "http://jo:hunt#er2@proxy.example.com:3128",
        "http://jo:hunter2@proxy..example.com:3128",
        "http://jo:hunter2@[proxy]:3128",
    ],
)
def test_what_is_no_proxy_is_refused_without_a_word_of_it(text):
    with pytest.raises(ValueError, match="must") as refused:
        parse_proxy(text)
    assert "hunt" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("exempt", "host", "is_direct"),
    [
        ("", "api.ignition.com", False),
        ("*", "api.ignition.com", True),
        ("api.ignition.com", "api.ignition.com", True),
        ("API.Ignition.COM", "api.ignition.com", True),
        ("ignition.com", "api.ignition.com", True),
        (".ignition.com", "api.ignition.com", True),
        ("*.ignition.com", "api.ignition.com", True),
        ("tion.com", "api.ignition.com", False),
        ("example.com, ignition.com", "api.ignition.com", True),
        ("example.com ignition.com", "api.ignition.com", True),
        ("api.ignition.com:443", "api.ignition.com", True),
        ("api.ignition.com:8443", "api.ignition.com", False),
        ("https://api.ignition.com", "api.ignition.com", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "10.example.com", False),
        ("2001:db8::/32", "2001:db8::7", True),
        ("[2001:db8::7]:443", "2001:db8::7", True),
        ("2001:db8::7", "2001:db8:0::7", True),
        (" , ,.,", "api.ignition.com", False),
    ],
)
def test_what_is_exempt_is_reached_directly(exempt, host, is_direct):
    proxies = EgressProxies.of(https=PROXY, http=None, exempt=exempt)
    assert (proxies.leading_to("https", host, 443) is None) is is_direct


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1", "demo.localhost"])
def test_loopback_is_never_reached_through_a_proxy(host):
    proxies = EgressProxies.of(https=PROXY, http=PROXY, exempt="")
    assert proxies.leading_to("https", host, 443) is None
    assert proxies.leading_to("http", host, 80) is None


def test_each_scheme_has_its_own_proxy():
    proxies = EgressProxies.of(https="secure.example.com:1", http="plain.example.com:2", exempt="")
    names = [proxies.leading_to(scheme, "host", 1).name for scheme in ("https", "http")]
    assert names == ["secure.example.com:1", "plain.example.com:2"]
    assert EgressProxies().leading_to("https", "host", 443) is None
