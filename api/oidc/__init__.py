"""Tokens of an OpenID Connect provider, beside keys: who a token is for, and what it lets them do.

A token is a JWT that the provider has signed; nothing of it is kept here. PyJWT verifies it, since
it is kept, small and needs nothing but `cryptography`, which is here anyway; a client of the whole
protocol has no work in a service that only receives tokens.
"""
