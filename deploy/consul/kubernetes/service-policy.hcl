# Lets each of the three services register itself and find all services.
service "api-gateway" { policy = "write" }
service "ui" { policy = "write" }
service "ai-models" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
