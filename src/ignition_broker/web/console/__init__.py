"""What admins see in a browser: pages, forms and signing in."""
