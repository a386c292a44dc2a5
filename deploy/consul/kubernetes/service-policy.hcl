# The rights of the three services together: each registers itself and finds all.
service "api-gateway" { policy = "write" }
service "ui" { policy = "write" }
service "ai-models" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
