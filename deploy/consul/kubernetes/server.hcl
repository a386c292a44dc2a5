# The three that keep the catalog. One may be away.
server             = true
bootstrap_expect   = 3
leave_on_terminate = false # a server that restarts is expected back

performance {
  raft_multiplier = 1
}
