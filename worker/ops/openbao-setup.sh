#!/bin/sh
# Makes the vault's keys on the first start, unseals it on every one, and leaves the worker's AppRole.
set -eu
umask 077
keys=/openbao/data/keys

value() { sed -n "s/^$1: *//p" "$keys"; }

if [ ! -s "$keys" ]; then
    bao operator init -key-shares=1 -key-threshold=1 >"$keys.new"
    sed -n 's/^Unseal Key 1: */unseal: /p; s/^Initial Root Token: */token: /p' "$keys.new" >"$keys"
    rm "$keys.new"
fi
bao operator unseal "$(value unseal)" >/dev/null
BAO_TOKEN=$(value token)
export BAO_TOKEN
until bao token lookup >/dev/null 2>&1; do sleep 1; done

bao secrets list | grep -q '^secret/' || bao secrets enable -path=secret -version=2 kv
bao auth list | grep -q '^approle/' || bao auth enable approle
bao policy write connectors-worker - <<POLICY
path "secret/data/connectors/*" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
POLICY
bao write auth/approle/role/connectors-worker token_policies=connectors-worker token_ttl=1h token_max_ttl=24h
bao read -field=role_id auth/approle/role/connectors-worker/role-id >/roles/role-id
bao write -f -field=secret_id auth/approle/role/connectors-worker/secret-id >/roles/secret-id
# The worker's user reads them; the volume is mounted there alone.
chown 10001 /roles /roles/role-id /roles/secret-id

# Stay, and unseal it again should it be started again.
while sleep 5; do
    bao status >/dev/null 2>&1 || bao operator unseal "$(value unseal)" >/dev/null 2>&1 || true
done
