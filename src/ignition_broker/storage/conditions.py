"""Conditions that last: Ignition is away, or it rejects the broker's client.

Each is announced once by all replicas together: the row changes once, and the event is written by
the statement that changes it.
"""

from __future__ import annotations

from sqlalchemy import text

from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection

# While the condition lasts, replicas only note that they still see it.
MEET = text(f"""
    WITH held AS (
        SELECT subject, is_met FROM conditions
        WHERE subject = :subject AND {LOCK_BRIEFLY} FOR UPDATE
    ), known AS (
        UPDATE conditions SET seen_at = now(), is_met = true,
            changed_at = CASE WHEN held.is_met THEN changed_at ELSE now() END
        FROM held WHERE conditions.subject = held.subject
        RETURNING conditions.subject, NOT held.is_met AS is_new
    ), added AS (
        INSERT INTO conditions (subject, is_met)
        SELECT :subject, true WHERE NOT EXISTS (SELECT FROM held)
        ON CONFLICT (subject) DO NOTHING
        RETURNING subject, true AS is_new
    ), changed AS (
        SELECT subject FROM known WHERE is_new UNION ALL SELECT subject FROM added
    )
    INSERT INTO outbox_events (type, client, status, reason)
    SELECT :type, :client, :status, :reason FROM changed
    RETURNING id
""")  # noqa: S608  # constants of this package alone

# Only by a success that is younger than the last failure that any replica saw.
END = text("""
    WITH over AS (
        SELECT subject FROM conditions
        WHERE subject = :subject AND is_met
          AND seen_at < now() - make_interval(secs => :quiet)
          AND seen_at < now() - make_interval(secs => :success_age)
        FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE conditions SET is_met = false, changed_at = now()
        FROM over WHERE conditions.subject = over.subject
        RETURNING conditions.subject
    ), announced AS (
        INSERT INTO outbox_events (type, client, status)
        SELECT :type, :client, :status FROM changed WHERE CAST(:type AS text) IS NOT NULL
    )
    SELECT subject FROM changed
""")


async def meet(
    connection: Connection, subject: str, *, event: str, client: str, status: str, reason: str
) -> bool:
    """Notes that the condition is seen now. Returns whether it is new, and writes ``event`` if so.

    Args:
        subject: names the condition.
        event: the event's type.
        client: the OAuth client that it is about.
    """
    given = {
        "subject": subject,
        "type": event,
        "client": client,
        "status": status,
        "reason": reason,
    }
    return (await connection.execute(MEET, given)).one_or_none() is not None


async def end(
    connection: Connection,
    subject: str,
    *,
    event: str | None,
    client: str,
    status: str,
    success_age_seconds: float,
    quiet_seconds: float,
) -> bool:
    """Ends the condition if nobody has seen it lately. Returns whether it ended.

    Args:
        event: the type of the event to write; None: none.
        success_age_seconds: how long ago the contrary was seen. It must be after the condition was
            last seen.
        quiet_seconds: for how long no replica may have seen the condition.
    """
    given = {
        "subject": subject,
        "type": event,
        "client": client,
        "status": status,
        "success_age": success_age_seconds,
        "quiet": quiet_seconds,
    }
    return (await connection.execute(END, given)).one_or_none() is not None
