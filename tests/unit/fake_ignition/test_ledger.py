"""The ledger remembers everything, and its journal brings all of it back."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ignition_broker.fake_ignition.errors import OAuthError
from ignition_broker.fake_ignition.faults import Fault
from ignition_broker.fake_ignition.issuing import (
    Issued,
    issue_code,
    open_grant,
    redeem_code,
    refresh_grant,
    revoke_grant,
)
from ignition_broker.fake_ignition.journal import Journal, JournalError
from ignition_broker.fake_ignition.ledger import Ledger
from ignition_broker.fake_ignition.options import FakeIgnitionOptions
from ignition_broker.fake_ignition.provider import Provider

REDIRECT_URI = "http://localhost:3000/callback"


class SettableClock:
    """Time that passes when a test says so."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def make_provider(clock: SettableClock) -> Callable[..., Provider]:
    def make(ledger: Ledger | None = None, **options: object) -> Provider:
        return Provider(FakeIgnitionOptions(**options), ledger or Ledger(), clock)  # type: ignore[arg-type]

    return make


def refresh(provider: Provider, refresh_token: str | None, fault: Fault | None = None) -> Issued:
    assert refresh_token is not None
    return refresh_grant(provider, refresh_token=refresh_token, scope=None, fault=fault)


def test_a_grant_counts_its_refreshes_and_each_token_its_presentations(make_provider, clock):
    provider = make_provider()
    first = open_grant(provider, scope="read")
    second = refresh(provider, first.refresh_token)
    clock.now += 10
    refresh(provider, second.refresh_token)

    grant = provider.ledger.grants[first.grant]
    assert (grant.alive, grant.refreshes) == (True, 2)
    assert [token.presented_at for token in grant.refresh_tokens] == [[1e6], [1e6 + 10], []]
    assert [token.spent_at for token in grant.refresh_tokens] == [1e6, 1e6 + 10, None]


def test_a_spent_refresh_token_takes_the_whole_grant_with_it(make_provider, clock):
    provider = make_provider()
    first = open_grant(provider, scope="read")
    second = refresh(provider, first.refresh_token)
    assert provider.ledger.live_grant(second.access_token, clock.now)

    with pytest.raises(OAuthError, match="used before") as refused:
        refresh(provider, first.refresh_token)

    assert refused.value.error == "invalid_grant"
    assert provider.ledger.grants[first.grant].revoked_reason == "refresh_token_reused"
    assert provider.ledger.live_grant(second.access_token, clock.now) is None
    with pytest.raises(OAuthError, match="revoked"):
        refresh(provider, second.refresh_token)
    assert provider.counters.refresh_token_reuses == 1


def test_within_the_grace_a_spent_refresh_token_still_gets_an_answer(make_provider, clock):
    provider = make_provider(reuse_grace_seconds=10)
    first = open_grant(provider, scope="read")
    refresh(provider, first.refresh_token)

    clock.now += 9
    assert refresh(provider, first.refresh_token).refresh_token
    clock.now += 1
    with pytest.raises(OAuthError, match="used before"):
        refresh(provider, first.refresh_token)


def test_without_rotation_the_old_refresh_token_stays_good(make_provider):
    provider = make_provider(rotate_refresh_tokens=False)
    first = open_grant(provider, scope="read")
    assert refresh(provider, first.refresh_token).refresh_token is None
    assert refresh(provider, first.refresh_token).refresh_token is None
    assert provider.counters.refresh_token_reuses == 0


def test_the_ledger_says_which_answers_a_fault_took_away(make_provider):
    provider = make_provider()
    first = open_grant(provider, scope="read")
    second = refresh(provider, first.refresh_token, Fault(drop="after", delay_seconds=1))
    refresh(provider, second.refresh_token, Fault(drop=None))

    dropped, untouched, _ = provider.ledger.grants[first.grant].refresh_tokens
    assert (dropped.answer_dropped_at, dropped.answer_delayed_at) == ([1e6], [1e6])
    assert (untouched.answer_dropped_at, untouched.answer_delayed_at) == ([], [])


def test_an_access_token_lives_until_its_time_and_not_a_moment_longer(make_provider, clock):
    provider = make_provider(access_token_lifetime_seconds=5)
    issued = open_grant(provider, scope="read")
    clock.now += 4.999
    assert provider.ledger.live_grant(issued.access_token, clock.now)
    clock.now += 0.001
    assert provider.ledger.live_grant(issued.access_token, clock.now) is None


def test_the_first_reason_for_a_revocation_is_the_one_that_is_kept(make_provider):
    provider = make_provider()
    grant = open_grant(provider, scope="read").grant
    assert revoke_grant(provider, grant, "first")
    assert not revoke_grant(provider, grant, "second")
    assert provider.ledger.grants[grant].revoked_reason == "first"


def test_a_journal_brings_everything_back_and_holds_no_secret(make_provider, tmp_path: Path):
    path = tmp_path / "not-there-yet" / "journal"
    ledger = Ledger(Journal(path))
    provider = make_provider(ledger, require_pkce=False)
    code = issue_code(provider, redirect_uri=REDIRECT_URI, scope="read", code_challenge=None)
    first = redeem_code(provider, code=code, redirect_uri=REDIRECT_URI, code_verifier=None)
    second = refresh(provider, first.refresh_token, Fault(drop="after"))
    revoked = open_grant(provider, scope="write")
    revoke_grant(provider, revoked.grant, "why")
    ledger.close()

    again = Ledger(Journal(path))

    assert again.grants == ledger.grants
    for secret in (code, first.access_token, second.access_token, second.refresh_token):
        assert secret.encode() not in path.read_bytes()
    with pytest.raises(OAuthError, match="used before"):
        redeem_code(make_provider(again), code=code, redirect_uri=REDIRECT_URI, code_verifier=None)


def test_a_line_cut_short_by_a_kill_is_forgotten(make_provider, tmp_path: Path):
    path = tmp_path / "journal"
    ledger = Ledger(Journal(path))
    first = open_grant(make_provider(ledger), scope="read")
    ledger.close()
    path.write_bytes(path.read_bytes() + b'{"event":"Grant')

    again = Ledger(Journal(path))
    refresh(make_provider(again), first.refresh_token)
    again.close()

    assert Ledger(Journal(path)).grants == again.grants


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[]",
        b'{"event":"Unheard"}',
        b'{"event":"GrantRevoked","at":1}',
        b'{"event":"GrantRevoked","at":1,"grant":"grant_unknown","reason":"x"}',
    ],
)
def test_a_file_that_is_no_journal_is_refused(line: bytes, tmp_path: Path):
    path = tmp_path / "journal"
    path.write_bytes(line + b"\n")
    with pytest.raises(JournalError):
        Ledger(Journal(path))
