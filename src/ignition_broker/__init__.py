"""ignition-broker: OAuth 2.0 grants kept alive, tokens issued, calls proxied."""

__version__ = "0.1.0"
