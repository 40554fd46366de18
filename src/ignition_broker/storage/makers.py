"""What created a link or began a sign-in, and whether that is still valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Maker:
    """The hash of an API key (``key``), of something in the settings (``setting``: the bootstrap
    admin key or a rule for JWTs), or of a browser session (``session``). None of them: the operator
    at the command line."""

    key: bytes | None = None
    setting: bytes | None = None
    session: bytes | None = None

    def parameters(self) -> dict[str, object]:
        return {
            "made_by_key": self.key,
            "made_by_setting": self.setting,
            "made_by_session": self.session,
        }


OPERATOR = Maker()


@dataclass(frozen=True, slots=True)
class Standing:
    """What the settings say about makers and Postgres does not know.

    ``vouched``: the hashes that `Maker.setting` may have. None if the settings are unknown, as at
    the command line: whatever depends on them then counts as valid. ``issuer``, ``admin_groups``:
    the identity provider, and the groups whose members are admins.
    """

    vouched: Sequence[bytes] | None
    issuer: str | None
    admin_groups: Sequence[str]
    session_lifetime_seconds: float
    session_idle_seconds: float

    def parameters(self) -> dict[str, object]:
        return {
            "vouched": None if self.vouched is None else list(self.vouched),
            "issuer": self.issuer,
            "admin_groups": list(self.admin_groups),
            "session_lifetime": self.session_lifetime_seconds,
            "session_idle": self.session_idle_seconds,
        }


def maker_stands(row: str, lock: str = "") -> str:
    """An SQL condition: whether the maker of ``row`` (a table's alias) is still valid.

    The statement binds `Standing.parameters`. ``lock``, such as ``FOR SHARE``, makes a revocation
    of the maker wait until the transaction ends.
    """
    return f"""
    (({row}.made_by_key IS NULL
      OR EXISTS (
        SELECT FROM api_keys k
        WHERE k.key_hash = {row}.made_by_key AND k.revoked_at IS NULL
          AND 'admin' = ANY(k.scopes) AND coalesce(k.expires_at > clock_timestamp(), true) {lock})
      OR EXISTS (
        SELECT FROM api_key_predecessors p JOIN api_keys k ON k.name = p.name
        WHERE p.key_hash = {row}.made_by_key AND p.replaced_at > k.created_at
          AND k.revoked_at IS NULL AND 'admin' = ANY(k.scopes)
          AND least(k.expires_at, p.expires_at) > clock_timestamp() {lock}))
     AND ({row}.made_by_setting IS NULL OR CAST(:vouched AS bytea[]) IS NULL
          OR {row}.made_by_setting = ANY(CAST(:vouched AS bytea[])))
     AND ({row}.made_by_session IS NULL OR EXISTS (
        SELECT FROM sessions s
        WHERE s.token_hash = {row}.made_by_session AND s.ended_at IS NULL
          AND s.begun_at > now() - make_interval(secs => :session_lifetime)
          AND s.seen_at > now() - make_interval(secs => :session_idle)
          AND (s.issuer IS NULL OR CAST(:vouched AS bytea[]) IS NULL
               OR s.issuer = :issuer AND s.groups && CAST(:admin_groups AS text[])) {lock})))
    """  # noqa: S608  # an alias of this package's own
