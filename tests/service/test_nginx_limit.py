"""The limit on failed attempts through nginx with the files of ``deploy/nginx``."""

from __future__ import annotations

import pytest
from tests.service import limit_attacks
from tests.service.nginx import Nginx


@pytest.fixture(scope="module")
def more_settings():
    return limit_attacks.SETTINGS


@pytest.fixture(scope="module")
def port(broker, fake, tmp_path_factory):
    broker.connect("acme")
    server = Nginx(tmp_path_factory.mktemp("nginx"), broker.port, fake.url)
    yield server.start().port
    server.stop()


def test_a_strangers_wrong_keys_shut_nobody_else_out(broker, port):
    limit_attacks.check_a_stranger_shuts_out_nobody_else(broker, port)


def test_no_header_of_its_own_frees_a_caller_from_the_limit(port):
    limit_attacks.check_no_header_frees_its_sender(port)


def test_no_header_of_its_own_locks_another_address_out(port):
    limit_attacks.check_no_header_locks_another_out(port)
