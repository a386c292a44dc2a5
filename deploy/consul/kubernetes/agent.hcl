# Every Consul agent of this folder, be it a server or beside a service. Its keys and tokens are in
# secrets.json; its name and addresses are in the arguments, since the pod knows them.
datacenter           = "dc1"
data_dir             = "/consul/data"
client_addr          = "127.0.0.1" # whoever is in the pod, and nobody else
disable_host_node_id = true        # pods of one host are different nodes
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
