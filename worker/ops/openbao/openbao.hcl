# The vault of compose.yaml: one node, its data in a volume, plain http inside the compose network alone.
storage "raft" {
  path    = "/openbao/data"
  node_id = "only"
}

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

api_addr     = "http://openbao:8200"
cluster_addr = "http://openbao:8201"
ui           = false
