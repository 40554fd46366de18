"""Every attack on the proxy, through Envoy and Traefik with the files of ``deploy``."""

from __future__ import annotations

import pytest
from tests.engines.conftest import Engine
from tests.service.conftest import upstream  # noqa: F401
from tests.service.hidden_route import (  # noqa: F401
    test_no_spelling_of_the_tokens_route_gives_one,
)
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


@pytest.fixture(scope="module", params=["envoy", "traefik"])
def caller(request, broker, tmp_path_factory):
    broker.connect("acme")
    key = broker.make_key(request.param, ["proxy"], ["acme"])
    folder = tmp_path_factory.mktemp(request.param)
    api_url = broker.settings["IGNITION_API_URL"]
    with Engine(request.param, broker.port, api_url, folder).running() as engine:
        yield RawCaller(engine.port, key)
