#!/bin/sh
# Makes the passwords, the first admin's key, the key of the secrets in the database, and the key that signs results, that docker-compose.yml mounts, those that are not there yet.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# Nobody else comes into the folder; in a container each file is its user's to read.
chmod 700 secrets
for name in postgres valkey store admin vault; do
    [ -e "secrets/$name" ] && continue
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s\n' "$password" >"secrets/$name"
done
# An Ed25519 key as `openssl genpkey -algorithm ed25519` makes it: PKCS #8 is these bytes before 32 of chance.
if [ ! -e secrets/signing ]; then
    {
        echo '-----BEGIN PRIVATE KEY-----'
        { printf '\060\056\002\001\000\060\005\006\003\053\145\160\004\042\004\040'; head -c 32 /dev/urandom; } | base64
        echo '-----END PRIVATE KEY-----'
    } >secrets/signing
fi
chmod 444 secrets/*
