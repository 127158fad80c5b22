#!/bin/sh
# Makes the passwords, the first admin's key, and the key of the secrets in the database, that docker-compose.yml mounts, those that are not there yet.
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
chmod 444 secrets/*
