# For all agents, servers and sidecars alike. Keys and tokens are in secrets.json. The name and the
# addresses of a pod are set by command line arguments.
datacenter           = "dc1"
data_dir             = "/consul/data"
client_addr          = "127.0.0.1" # reachable only from the same pod
disable_host_node_id = true        # pods on the same host are different nodes
disable_remote_exec  = true
disable_update_check = true
retry_interval       = "2s"

ports {
  dns      = -1
  serf_wan = -1
}

ca_file                = "/consul/secrets/ca.pem"
cert_file              = "/consul/secrets/node.pem"
key_file               = "/consul/secrets/node-key.pem"
verify_incoming        = true
verify_outgoing        = true
verify_server_hostname = true

acl {
  enabled                  = true
  default_policy           = "deny"
  enable_token_persistence = true
}
