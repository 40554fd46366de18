"""The least that a read of a grant can cost: asyncpg, a prepared statement by key, nothing else.

Arguments: a database's URL, how many tenants there are, connections, seconds. Prints reads a
second.
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg
import uvloop

READ = """
    SELECT tenant_id, status, version, access_token, refresh_token, token_type, scope, expires_at
    FROM grants WHERE tenant_id = $1
"""


async def reads_per_second(url: str, tenants: int, connections: int, seconds: float) -> float:
    """Each tenant is read once, as a cold broker would."""
    opened = [await asyncpg.connect(url) for _ in range(connections)]
    statements = [await connection.prepare(READ) for connection in opened]
    numbers = iter(range(tenants))
    began = time.monotonic()

    async def read(statement: asyncpg.prepared_stmt.PreparedStatement) -> int:
        done = 0
        for number in numbers:
            await statement.fetchrow(f"cold-{number:06}")
            done += 1
            if time.monotonic() - began > seconds:
                break
        return done

    done = sum(await asyncio.gather(*map(read, statements)))
    per_second = done / (time.monotonic() - began)
    for connection in opened:
        await connection.close()
    return per_second


if __name__ == "__main__":
    url, tenants, connections, seconds = sys.argv[1:]
    print(uvloop.run(reads_per_second(url, int(tenants), int(connections), float(seconds))))
