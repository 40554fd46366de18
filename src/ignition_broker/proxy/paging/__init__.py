"""All pages of a list as one stream of rows, for callers who ask with `Broker-Paginate`."""
