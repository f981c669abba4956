#!/bin/sh
# Reads what compose keeps in files into the settings that have no file form, and becomes the worker.
set -eu
CONNECTORS_RABBITMQ_URL="amqp://connectors:$(cat /run/secrets/rabbitmq_password)@rabbitmq:5672/"
CONNECTORS_VAULT_ROLE_ID=$(cat /roles/role-id)
export CONNECTORS_RABBITMQ_URL CONNECTORS_VAULT_ROLE_ID
exec connectors worker
