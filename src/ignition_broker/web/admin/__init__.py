"""The admin JSON API: tenants and their connect links, API keys, the audit trail."""

from ignition_broker.web.admin import api_keys, audit, tenants

ROUTERS = (tenants.router, api_keys.router, audit.router)
