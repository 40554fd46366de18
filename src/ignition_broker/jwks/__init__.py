"""JSON Web Keys and signatures (RFC 7515 to 7518): for single sign-on and workloads' JWTs alike.

`algorithms` lists what a signature may be made with, `discovery` reads an issuer's metadata,
`public_keys` its keys, `key_set_cache` holds them, and `signatures` checks a token by them.
"""
