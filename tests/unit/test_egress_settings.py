"""Egress proxies and further authorities, as the environment names them."""

from __future__ import annotations

import pytest
from tests.service.certificates import Authority

from ignition_broker.settings import SettingsError

PROXY = "http://jo:hunter%402@proxy.example.com:3128"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_either_case_names_the_proxy(load, name):
    proxy = load(**{name: f" {PROXY}\n"}).egress_proxies.leading_to("https", "ignition.com", 443)
    assert proxy is not None
    assert proxy.name == "proxy.example.com:3128"


@pytest.mark.parametrize("first", ["HTTPS_PROXY", "https_proxy"])
def test_of_both_cases_the_lower_one_counts(load, first):
    second = "https_proxy" if first == "HTTPS_PROXY" else "HTTPS_PROXY"
    named = {"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:2"}
    settings = load(**{first: named[first], second: named[second]})
    assert settings.egress_proxies.leading_to("https", "ignition.com", 443).name == "lower:2"


def test_hosts_without_a_proxy_are_listed_in_any_way(load):
    settings = load(HTTPS_PROXY=PROXY, NO_PROXY="a.example.com, b.example.com\nc.example.com")
    proxies = settings.egress_proxies
    for host in ("a.example.com", "b.example.com", "c.example.com"):
        assert proxies.leading_to("https", host, 443) is None


def test_the_credentials_are_shown_nowhere_and_masked_in_the_log(load):
    settings = load(HTTPS_PROXY=PROXY)
    assert "hunter" not in repr(settings)
    assert {"hunter%402", "hunter@2"} <= set(settings.secrets())


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "HTTP_PROXY"])
def test_what_is_no_proxy_stops_the_start_by_its_name(load, name):
    with pytest.raises(SettingsError) as told:
        load(**{name: "socks5://jo:hunter2@proxy.example.com:1080"})
    (line,) = told.value.lines
    assert line.startswith(f"{name}: must be an http:// URL")
    assert "example: " in line
    assert "hunter2" not in line


def test_a_file_of_authorities_is_looked_into_at_the_start(load, tmp_path):
    authority = Authority(tmp_path, "inner")
    assert load(BROKER_CA_FILE=str(authority.certificate)).broker_ca_file
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "folder.pem").mkdir()
    for name, why in [
        ("missing.pem", "can't be read (No such file"),
        ("text.pem", "holds no certificate in PEM form"),
        ("folder.pem", ""),
    ]:
        with pytest.raises(SettingsError) as told:
            load(BROKER_CA_FILE=str(tmp_path / name))
        (line,) = told.value.lines
        assert line.startswith(f"BROKER_CA_FILE: {why}"), line
        assert "example: BROKER_CA_FILE=" in line
