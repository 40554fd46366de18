"""The pages a person sees: no scripts, everything escaped."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ignition_broker.fake_ignition.dialects import Dialect
from ignition_broker.fake_ignition.options import FakeIgnitionOptions
from ignition_broker.fake_ignition.practices import DEFAULT_PRACTICE, PRACTICES, SIZES

TEMPLATES = Path(__file__).parent / "templates"
STYLESHEET = (TEMPLATES / "ignition.css").read_text()
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
REQUEST_PARAMETERS = (
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
)
# No form-action: Chromium applies it to the redirect that follows the form, which goes to
# wherever the client registered, and a CSP can't name an IPv6 loopback address.
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SCOPE_MEANINGS = {
    "read": "See your practice, its clients and proposals",
    "write": "Create and change clients and proposals",
    "proposals": "See and send your proposals",
    "proposals:read": "See your proposals",
    "proposals:write": "Create and send proposals",
    "clients": "See and change your clients",
    "clients:read": "See your clients",
    "clients:write": "Create and change clients",
    "billing": "See and change billing",
    "billing:read": "See invoices and payments",
    "reporting": "See all of your practice's reports",
    "offline_access": "Keep working while you are away",
}


def consent_page(
    options: FakeIgnitionOptions, parameters: Mapping[str, str], scope: str, redirect_uri: str
) -> Response:
    """Ask the user to approve or deny what the client wants."""
    return page(
        "consent.html",
        client_name=options.client_name,
        destination=urlsplit(redirect_uri).netloc,
        scopes=[(name, SCOPE_MEANINGS.get(name)) for name in scope.split(" ")],
        action=options.dialect.authorize,
        practices=PRACTICES,
        chosen=parameters.get("practice", DEFAULT_PRACTICE),
        hidden={name: parameters[name] for name in REQUEST_PARAMETERS if name in parameters},
    )


def refusal_page(reason: str) -> Response:
    """Tell the user why nothing more happens."""
    return page("refusal.html", status=400, reason=reason)


def home(dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
    """Make the page that says what this server is."""

    async def shown(_request: Request) -> Response:
        return page("home.html", paths=dialect, resources=list(SIZES))

    return shown


async def stylesheet(_request: Request) -> Response:
    """Serve the one style sheet."""
    return Response(STYLESHEET, media_type="text/css")


def page(template: str, *, status: int = 200, **context: object) -> Response:
    """Render a template under the headers that every page has."""
    rendered = ENVIRONMENT.get_template(template).render(context)
    return HTMLResponse(rendered, status_code=status, headers=SAFE_HEADERS)
