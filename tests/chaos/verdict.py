"""Compares the provider's ledger with the list of faults: was each loss caused by one?"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from tests.chaos.callers import Outage
from tests.chaos.cluster import query_of
from tests.chaos.faults import PROVIDER_TIMEOUT_SECONDS, Faults

STORE_SECONDS = 1.5
"""How long after Ignition's answer a replica may still be about to commit it."""
NOTED_LATE_SECONDS = 0.2
"""By how much the ledger may be behind what a replica did, on a machine this busy."""


@dataclass
class Verdict:
    refreshes: int = 0
    provoked_reuses: int = 0
    reuses: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def judge(ledger: list[dict], faults: Faults) -> Verdict:
    """Reads the ledger's grants."""
    verdict = Verdict()
    for grant in ledger:
        verdict.refreshes += grant["refreshes"]
        is_provoked = True
        for token in grant["refresh_tokens"]:
            spent_at = token["spent_at"]
            again = [at for at in token["presented_at"] if spent_at is not None and at > spent_at]
            if not again:
                continue
            if _was_provoked(token, spent_at, again[0], faults):
                verdict.provoked_reuses += 1
            else:
                is_provoked = False
                verdict.reuses.append(
                    f"{token['sha256'][:12]} spent at {spent_at:.2f}, again at {again[0]:.2f}"
                )
        if not grant["alive"] and not is_provoked:
            verdict.lost.append(f"{grant['id']}: {grant['revoked_reason']}")
    return verdict


def recoveries(faults: Faults, outages: list[Outage]) -> dict[str, dict]:
    """For each kind of fault: from its end to the end of the last outage that it overlaps."""
    seconds: dict[str, list[float]] = {}
    for window in faults.windows:
        if window.kind == "slow":
            continue
        ends = [
            outage.ended
            for outage in outages
            if outage.began <= window.ended and outage.ended >= window.began
        ]
        seconds.setdefault(window.kind, []).append(
            max(0.0, max(ends, default=window.ended) - window.ended)
        )
    return {
        kind: {
            "faults": len(each),
            "median": round(statistics.median(each), 2),
            "max": round(max(each), 2),
        }
        for kind, each in sorted(seconds.items())
    }


def _was_provoked(token: dict, spent_at: float, again_at: float, faults: Faults) -> bool:
    """The answer was taken away by a fault, or the replica that it was for did not live to store
    it, or was stopped for longer than its lease. That it was late, or dripped, is no excuse."""
    if any(at <= spent_at for at in token["answer_dropped_at"]):
        return True
    shown = zip(token["presented_at"], token["presented_host"], strict=True)
    _at, spender = max((at, host) for at, host in shown if at <= spent_at)
    # Without it no kill or freeze would count as a cause.
    assert "?replica=" in spender, f"the ledger does not tell who spent the token: {spender!r}"
    until = _answered_at(token, spent_at, again_at) + STORE_SECONDS
    for window in faults.windows:
        # The replica with the answer could not store it while Postgres was away.
        if window.kind == "postgres" and window.began <= until and window.ended >= spent_at:
            until = max(until, window.ended + STORE_SECONDS)
    until = min(until, again_at)
    return any(
        window.replica is not None
        and spender.endswith(f"?{query_of(window.replica)}")
        and window.began <= until
        and window.ended >= spent_at - NOTED_LATE_SECONDS
        for window in faults.windows
    )


def _answered_at(token: dict, spent_at: float, again_at: float) -> float:
    """When the answer was whole; of a delayed one that is not whole yet, when it mattered."""
    if not token["answer_delayed"]:
        return spent_at + PROVIDER_TIMEOUT_SECONDS
    return min(token["late_answer_ended_at"], default=again_at)
