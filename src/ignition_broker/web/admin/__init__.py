"""The admin JSON API: tenants and their connect links, API keys, webhooks, the audit trail."""

from ignition_broker.web.admin import (
    api_keys,
    audit,
    connect_links,
    events,
    explain,
    tenants,
    webhooks,
)

ROUTERS = (
    tenants.router,
    explain.router,
    connect_links.router,
    api_keys.router,
    audit.router,
    webhooks.router,
    events.router,
)
