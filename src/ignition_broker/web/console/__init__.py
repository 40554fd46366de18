"""The admin console: pages, forms and signing in."""
