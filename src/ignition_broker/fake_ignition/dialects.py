"""The two Ignitions that the fake can stand in for: where each has its endpoints.

`guide` is the reference guide's; `ignitionapp` the public API's, as docs/ignition.md knows it.
"""

from dataclasses import dataclass
from typing import Literal

Profile = Literal["guide", "ignitionapp"]


@dataclass(frozen=True)
class Dialect:
    """The paths of one Ignition's OAuth endpoints, and what its API's paths begin with."""

    authorize: str
    token: str
    revoke: str
    api_base: str


DIALECTS: dict[Profile, Dialect] = {
    "guide": Dialect("/oauth/authorize", "/oauth/token", "/oauth/revoke", ""),
    "ignitionapp": Dialect(
        "/oauth2/authorize", "/oauth2/token", "/oauth2/revoke", "/external/api/v1"
    ),
}
