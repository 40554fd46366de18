"""Why a grant that Ignition has not refused works, does not work now, or was never made. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from ignition_broker.broker.explanations.causes import (
    Cause,
    Confidence,
    Evidence,
    newest,
    seen,
    text_of,
)
from ignition_broker.model import RecordedEvent
from ignition_broker.storage.grant_facts import GrantFacts

OVERDUE: Final = timedelta(minutes=5)
TROUBLES: Final = {
    "misconfigured": (
        "client_rejected",
        "Ignition rejects this broker's client id or secret, so no grant of it can be renewed.",
        "Compare IGNITION_CLIENT_ID and IGNITION_CLIENT_SECRET with the registration at Ignition.",
    ),
    "rejected": (
        "request_rejected",
        "Ignition rejects this grant's request for another reason than the grant or the client.",
        "Look at Ignition's words; if they mean that the grant has ended, name their code in "
        "IGNITION_REFUSAL_CODES.",
    ),
    "not_sent": (
        "provider_unreachable",
        "Ignition's token endpoint can't be reached. The grant is as good as before.",
        "Look at IGNITION_TOKEN_URL, the network and the egress proxy; the broker tries on.",
    ),
    "throttled": (
        "provider_busy",
        "Ignition's token endpoint is busy or throttles the broker. The grant is as good as "
        "before.",
        "Wait; the broker tries again when Ignition asks it to.",
    ),
    "answer_lost": (
        "answer_outstanding",
        "The answer to the last refresh was lost, so its refresh token may be spent. The access "
        "token is used to its end before the refresh token is tried again.",
        "Wait until then; look at the network between the broker and Ignition.",
    ),
    "no_access_token": (
        "no_access_token",
        "Ignition's last answer held a new refresh token, which is stored, and no access token "
        "that can be handed out.",
        "Look at Ignition's answer in the log; the broker tries again.",
    ),
}
"""By the outcome of the last refresh: code, text, next step."""


def causes_without_grant(facts: GrantFacts, events: Sequence[RecordedEvent]) -> list[Cause]:
    """Of a tenant that is disconnected, or was never connected."""
    disconnect = newest(events, "disconnect", "done")
    if facts.status is not None and (disconnect is not None or facts.connected_at is not None):
        actor = "somebody" if disconnect is None else disconnect.event.actor
        evidence = seen(disconnect, f"{actor} disconnected the tenant")
        return [
            Cause(
                "disconnected",
                Confidence.CERTAIN,
                f"{actor} disconnected the tenant; its tokens were forgotten and revoked.",
                "Connect the tenant again, if it is to be used.",
                evidence,
            )
        ]
    tried = newest(events, "connect")
    failed = newest(events, "connect", "failed")
    text = "The tenant was never connected."
    if failed is not None:
        text = "The tenant was never connected; the last try failed."
    elif tried is not None:
        text = "The tenant was never connected; a sign-in was begun and has not ended."
    told = text_of(failed, "error") or text_of(failed, "reason")
    happened = f"a sign-in failed {told}".strip() if failed else "a sign-in was begun"
    return [
        Cause(
            "never_connected",
            Confidence.CERTAIN,
            text,
            "Connect it, or send its connect link to the customer.",
            seen(failed or tried, happened),
        )
    ]


def causes_of_connected(
    facts: GrantFacts, events: Sequence[RecordedEvent], *, is_readable: bool
) -> list[Cause]:
    """Of a grant that Ignition has not refused; never none, what hinders most comes first."""
    found = [
        *_unreadable(events, is_readable=is_readable),
        *_trouble(facts, events),
        *_unrenewable(facts),
        *_overdue(facts),
    ]
    return found or [_healthy(facts, events)]


def held_account(facts: GrantFacts, events: Sequence[RecordedEvent]) -> list[Cause]:
    """A reconnect that waits for an admin, besides whatever else is so."""
    if facts.held_account is None:
        return []
    mismatch = newest(events, "connect", "account_mismatch")
    return [
        Cause(
            "account_held",
            Confidence.CERTAIN,
            "A reconnect was for another account at Ignition; its grant waits for an admin.",
            "Confirm or discard the other account, in the console or by "
            "`ignition-broker tenants confirm-account` or `discard-account`.",
            seen(mismatch, "a reconnect brought another account"),
        )
    ]


def _unreadable(events: Sequence[RecordedEvent], *, is_readable: bool) -> list[Cause]:
    if is_readable:
        return []
    misplaced = newest(events, "decrypt", "misplaced")
    if misplaced is not None:
        return [
            Cause(
                "ciphertext_misplaced",
                Confidence.CERTAIN,
                "The stored tokens belong to another row: somebody moved them in the database.",
                "Find out who wrote to the database (SECURITY.md); then connect the tenant again.",
                seen(misplaced, "a ciphertext was found in another row"),
            )
        ]
    return [
        Cause(
            "key_missing",
            Confidence.CERTAIN,
            "None of the encryption keys opens the stored tokens.",
            "Bring the missing key back into BROKER_ENCRYPTION_KEYS (`ignition-broker keys status` "
            "names its fingerprint). If it is lost, connect the tenant again.",
            (Evidence("the row can't be decrypted with the keys of this process"),),
        )
    ]


def _trouble(facts: GrantFacts, events: Sequence[RecordedEvent]) -> list[Cause]:
    last = newest(events, "refresh")
    if facts.failures == 0 and not facts.is_uncertain:
        return []
    if last is None or last.event.outcome not in TROUBLES:
        return []
    code, text, next_step = TROUBLES[last.event.outcome]
    words = text_of(last, "error") or text_of(last, "reason") or facts.last_error or ""
    times = f", {facts.failures} times in a row" if facts.failures > 1 else ""
    evidence = seen(last, f"the last refresh: {words}{times}")
    if facts.next_refresh_at is not None:
        evidence += (Evidence("the next try", facts.next_refresh_at),)
    return [Cause(code, Confidence.CERTAIN, text, next_step, evidence)]


def _unrenewable(facts: GrantFacts) -> list[Cause]:
    if facts.renewable:
        return []
    end = "its end is not known"
    evidence: tuple[Evidence, ...] = ()
    if facts.expires_at is not None:
        end = "it ends with its access token"
        evidence = (Evidence("the access token ends", facts.expires_at),)
    return [
        Cause(
            "not_renewable",
            Confidence.CERTAIN,
            f"The grant works, and can't be renewed: Ignition gave no refresh token; {end}.",
            "Connect the tenant again before that; have Ignition issue refresh tokens.",
            evidence,
        )
    ]


def _overdue(facts: GrantFacts) -> list[Cause]:
    due = facts.next_refresh_at
    if not facts.renewable or facts.failures or due is None or due > facts.now - OVERDUE:
        return []
    return [
        Cause(
            "renewal_overdue",
            Confidence.LIKELY,
            "The grant is due and nobody renews it: no replica's background refresher runs, or it "
            "is far behind.",
            "Look at `broker_refresh_overdue_seconds` and the log for `renewals_postponed`.",
            (Evidence("the renewal was due", due),),
        )
    ]


def _healthy(facts: GrantFacts, events: Sequence[RecordedEvent]) -> Cause:
    good = newest(events, "refresh", "renewed") or newest(events, "connect", "done")
    evidence = seen(good, "tokens came from Ignition")
    if facts.next_refresh_at is not None:
        evidence += (Evidence("the next renewal", facts.next_refresh_at),)
    if facts.refresh_token_expires_at is not None:
        evidence += (Evidence("the refresh token ends", facts.refresh_token_expires_at),)
    return Cause(
        "connected",
        Confidence.CERTAIN,
        "The grant works.",
        "Nothing is to be done.",
        evidence,
    )
