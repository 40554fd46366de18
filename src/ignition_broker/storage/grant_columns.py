"""What a grant's id says of it, in SQL (`ignition_broker.grant_ids`)."""

from __future__ import annotations

from typing import Final

TENANT: Final = "split_part(tenant_id, '@', 1)"
"""The tenant's id."""

IS_OF_DEFAULT_CLIENT: Final = "strpos(tenant_id, '@') = 0"
IS_OF_OTHER_CLIENT: Final = "strpos(tenant_id, '@') > 0"
"""Partial indexes have these conditions, so a statement that is to use one must repeat it."""

OTHER_CLIENT: Final = "split_part(tenant_id, '@', 2)"
"""The client's name; empty for the default client."""

CLIENT_DETAIL: Final = f"""
    CASE WHEN {IS_OF_OTHER_CLIENT} THEN jsonb_build_object('client', {OTHER_CLIENT})
        ELSE '{{}}'::jsonb END
"""
"""What the detail of an audit event gets besides."""
