"""All tokens that the fake issued, and how often each refresh token was presented."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from ignition_broker.fake_ignition.events import (
    AccessTokenExpired,
    AccessTokenIssued,
    CodeIssued,
    Event,
    GrantOpened,
    GrantRefreshed,
    GrantRevoked,
    LateAnswerEnded,
    RefreshTokenIssued,
    RefreshTokenPresented,
    RefreshTokenSpent,
    fingerprint,
)
from ignition_broker.fake_ignition.journal import Journal, JournalError
from ignition_broker.fake_ignition.practices import DEFAULT_PRACTICE


@dataclass
class RefreshToken:
    """One refresh token, by fingerprint, and its whole history."""

    sha256: str
    grant: str
    expires_at: float | None = None
    spent_at: float | None = None
    presented_at: list[float] = field(default_factory=list)
    presented_host: list[str] = field(default_factory=list)
    answer_dropped_at: list[float] = field(default_factory=list)
    answer_delayed_at: list[float] = field(default_factory=list)
    late_answer_ended_at: list[float] = field(default_factory=list)


@dataclass
class AccessToken:
    """One access token, by fingerprint."""

    sha256: str
    grant: str
    expires_at: float


@dataclass
class Grant:
    """What one user once approved, for one practice."""

    id: str
    scope: str
    opened_at: float
    practice: str = DEFAULT_PRACTICE
    revoked_at: float | None = None
    revoked_reason: str | None = None
    refreshes: int = 0
    refresh_tokens: list[RefreshToken] = field(default_factory=list)
    access_tokens: list[AccessToken] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Tell whether the grant's tokens may still be accepted."""
        return self.revoked_reason is None


@dataclass
class Code:
    """An authorization code and the grant it was redeemed for, if it was."""

    issued: CodeIssued
    grant: str | None = None


class Ledger:
    """The state after all events; only ``record`` changes it."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.grants: dict[str, Grant] = {}
        self._codes: dict[str, Code] = {}
        self._refresh_tokens: dict[str, RefreshToken] = {}
        self._access_tokens: dict[str, AccessToken] = {}
        self._journal = journal
        if journal is not None:
            self._replay(journal)

    def record(self, event: Event) -> None:
        """Take note of an event, in memory and in the journal."""
        self._apply(event)
        if self._journal is not None:
            self._journal.append(event)

    def close(self) -> None:
        """Close the journal's file."""
        if self._journal is not None:
            self._journal.close()

    def find_code(self, code: str) -> Code | None:
        """Return what is known of a code, redeemed or not."""
        return self._codes.get(fingerprint(code))

    def find_refresh_token(self, token: str) -> RefreshToken | None:
        """Return what is known of a refresh token, spent or not."""
        return self._refresh_tokens.get(fingerprint(token))

    def find_access_token(self, sha256: str) -> AccessToken | None:
        """Return what is known of an access token, live or not."""
        return self._access_tokens.get(sha256)

    def live_grant(self, access_token: str, now: float) -> Grant | None:
        """Return the grant that an acceptable access token stands for."""
        token = self._access_tokens.get(fingerprint(access_token))
        if token is None or not self.is_live(token, now):
            return None
        return self.grants[token.grant]

    def is_live(self, token: AccessToken, now: float) -> bool:
        """Tell whether an access token is neither expired nor revoked with its grant."""
        return now < token.expires_at and self.grants[token.grant].alive

    def live_access_tokens(self, now: float) -> Iterator[AccessToken]:
        """Yield the access tokens that would be accepted now."""
        return (token for token in self._access_tokens.values() if self.is_live(token, now))

    def _replay(self, journal: Journal) -> None:
        for event in journal.read():
            try:
                self._apply(event)
            except KeyError as error:
                raise JournalError(f"{type(event).__name__} names what is not there") from error

    def _apply(self, event: Event) -> None:
        match event:
            case CodeIssued():
                self._codes[event.code_sha256] = Code(event)
            case GrantOpened():
                self.grants[event.grant] = Grant(event.grant, event.scope, event.at, event.practice)
                if event.code_sha256 is not None:
                    self._codes[event.code_sha256].grant = event.grant
            case AccessTokenIssued():
                access = AccessToken(event.access_token_sha256, event.grant, event.expires_at)
                self._access_tokens[access.sha256] = access
                self.grants[event.grant].access_tokens.append(access)
            case RefreshTokenIssued():
                refresh = RefreshToken(event.refresh_token_sha256, event.grant, event.expires_at)
                self._refresh_tokens[refresh.sha256] = refresh
                self.grants[event.grant].refresh_tokens.append(refresh)
            case RefreshTokenPresented():
                presented = self._refresh_tokens[event.refresh_token_sha256]
                presented.presented_at.append(event.at)
                presented.presented_host.append(event.host)
                if event.answer_dropped:
                    presented.answer_dropped_at.append(event.at)
                if event.answer_delayed:
                    presented.answer_delayed_at.append(event.at)
            case LateAnswerEnded():
                answered = self._refresh_tokens[event.refresh_token_sha256]
                answered.late_answer_ended_at.append(event.at)
            case GrantRefreshed():
                self.grants[event.grant].refreshes += 1
            case RefreshTokenSpent():
                self._refresh_tokens[event.refresh_token_sha256].spent_at = event.at
            case AccessTokenExpired():
                self._access_tokens[event.access_token_sha256].expires_at = event.at
            case GrantRevoked():
                revoked = self.grants[event.grant]
                if revoked.alive:
                    revoked.revoked_at, revoked.revoked_reason = event.at, event.reason
            case _:
                assert_never(event)
