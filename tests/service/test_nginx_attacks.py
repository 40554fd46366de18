"""Every attack on the proxy, through nginx with the files of ``deploy/nginx``."""

from __future__ import annotations

import pytest
from tests.service.hidden_route import (  # noqa: F401
    test_no_spelling_of_the_tokens_route_gives_one,
)
from tests.service.nginx import Nginx
from tests.service.test_proxy_attacks import (  # noqa: F401
    access_token,
    more_settings,
    test_no_header_redirects_or_smuggles,
    test_no_method_has_the_api_send_its_token_back,
    test_no_path_leaves_the_base,
    test_no_target_is_more_than_a_tenant_and_a_path,
    test_the_fuzz_finds_no_way_out,
)
from tests.service.wire import RawCaller


@pytest.fixture(scope="module")
def caller(broker, tmp_path_factory):
    broker.connect("acme")
    key = broker.make_key("nginx", ["proxy"], ["acme"])
    server = Nginx(
        tmp_path_factory.mktemp("nginx"), broker.port, broker.settings["IGNITION_API_URL"]
    ).start()
    yield RawCaller(server.port, key)
    server.stop()
