"""The console: pages for admins, rendered on the server."""

from __future__ import annotations

from ignition_broker.web.console import (
    account_pages,
    api_key_pages,
    audit_pages,
    connect_pages,
    grant_pages,
    overview_pages,
    settings_page,
    sign_in,
    tenant_pages,
    webhook_pages,
)

ROUTERS = tuple(
    pages.router
    for pages in (
        sign_in,
        overview_pages,
        tenant_pages,
        grant_pages,
        connect_pages,
        account_pages,
        api_key_pages,
        webhook_pages,
        audit_pages,
        settings_page,
    )
)
