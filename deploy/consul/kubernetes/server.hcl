# For the three servers. The cluster works while two of them are up.
server             = true
bootstrap_expect   = 3
leave_on_terminate = false # a server that restarts rejoins

performance {
  raft_multiplier = 1
}
