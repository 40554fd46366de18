"""A fake Ignition for `dev` and the tests: authorization server and API on loopback.

It keeps the rules of the RFCs that the broker relies on, and keeps a ledger by which a test can
prove that no refresh token was presented twice. It imports nothing else of this project.
"""

from ignition_broker.fake_ignition.app import create_fake_ignition
from ignition_broker.fake_ignition.options import FakeIgnitionOptions, options_for

__all__ = ["FakeIgnitionOptions", "create_fake_ignition", "options_for"]
