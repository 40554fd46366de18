"""The compose files: published ports, and whose word on callers' addresses is trusted."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "docker-compose.yml", ROOT / "deploy" / "nginx" / "docker-compose.nginx.yml"]


def read(file: Path) -> dict:
    """With the defaults of its variables."""
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text()))


def test_nothing_is_published_beyond_this_machine_by_itself():
    for file in FILES:
        for name, service in read(file)["services"].items():
            for port in service.get("ports", []):
                assert port.startswith("127.0.0.1:"), (file.name, name)


def test_nginx_alone_is_believed_about_callers_addresses():
    compose = read(FILES[1])
    broker, nginx = compose["services"]["broker"], compose["services"]["nginx"]
    address = nginx["networks"]["front"]["ipv4_address"]
    assert broker["environment"]["BROKER_TRUSTED_PROXIES"] == address
    (config,) = compose["networks"]["front"]["ipam"]["config"]
    assert ip_address(address) in list(ip_network(config["subnet"]).hosts())[1:]
    # nginx uses a name of that network only; otherwise its address would be another one.
    (alias,) = broker["networks"]["front"]["aliases"]
    assert nginx["environment"]["BROKER_ADDRESS"] == f"{alias}:3000"
    assert alias not in read(FILES[0])["services"]
    others = [each for each in read(FILES[0])["services"].values() if "front" in each["networks"]]
    assert others == []
