"""HTTP: parse, call one function of the broker, answer."""
