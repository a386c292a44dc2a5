# For sidecars. When the pod stops, the agent leaves and its services are deregistered.
leave_on_terminate = true
