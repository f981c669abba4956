# The vault of compose.yaml: one node on plain http inside the compose network. It unseals itself with
# the key that `make secrets` wrote, and sets itself up on its first start, so that there never is a root
# token. The key and the volume together are the secrets: for one machine. A fleet uses a vault of its
# own, and names it in CONNECTORS_VAULT_URL.
storage "raft" {
  path                   = "/openbao/file"
  node_id                = "only"
  performance_multiplier = 1 # up in two seconds, not ten: there is no one to elect but itself
}

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

api_addr     = "http://openbao:8200"
cluster_addr = "http://openbao:8201"
ui           = false

seal "static" {
  current_key_id = "compose-1"
  current_key    = "file:///run/secrets/openbao_seal_key"
}

initialize "connectors" {
  request "secrets" {
    operation = "update"
    path      = "sys/mounts/secret"
    data      = { type = "kv", options = { version = "2" } }
  }

  request "approle" {
    operation = "update"
    path      = "sys/auth/approle"
    data      = { type = "approle" }
  }

  request "worker-policy" {
    operation = "update"
    path      = "sys/policies/acl/connectors-worker"
    data = {
      policy = <<-POLICY
        path "secret/data/connectors/*" { capabilities = ["read"] }
        path "auth/token/renew-self"    { capabilities = ["update"] }
        path "auth/token/lookup-self"   { capabilities = ["read"] }
      POLICY
    }
  }

  request "worker-role" {
    operation = "update"
    path      = "auth/approle/role/connectors-worker"
    data      = { token_policies = ["connectors-worker"], token_ttl = "1h", token_max_ttl = "24h" }
  }

  request "worker-role-id" {
    operation = "update"
    path      = "auth/approle/role/connectors-worker/role-id"
    data      = { role_id = "connectors-worker" }
  }

  request "worker-secret-id" {
    operation = "update"
    path      = "auth/approle/role/connectors-worker/custom-secret-id"
    data = {
      secret_id = { eval_source = "file", eval_type = "string", path = "/run/secrets/worker_secret_id" }
    }
  }

  # What `connectors credentials put|list|delete` needs.
  request "operator-policy" {
    operation = "update"
    path      = "sys/policies/acl/connectors-operator"
    data = {
      policy = <<-POLICY
        path "secret/data/connectors/*"     { capabilities = ["create", "update", "read"] }
        path "secret/metadata/connectors/*" { capabilities = ["list", "read", "delete"] }
        path "secret/metadata/connectors"   { capabilities = ["list"] }
      POLICY
    }
  }

  request "operator-role" {
    operation = "update"
    path      = "auth/approle/role/connectors-operator"
    data      = { token_policies = ["connectors-operator"], token_ttl = "15m", token_max_ttl = "15m" }
  }

  request "operator-role-id" {
    operation = "update"
    path      = "auth/approle/role/connectors-operator/role-id"
    data      = { role_id = "connectors-operator" }
  }

  request "operator-secret-id" {
    operation = "update"
    path      = "auth/approle/role/connectors-operator/custom-secret-id"
    data = {
      secret_id = { eval_source = "file", eval_type = "string", path = "/run/secrets/operator_secret_id" }
    }
  }
}
