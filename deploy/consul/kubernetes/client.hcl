# Beside a service. It leaves with its pod, and takes the pod's services along.
leave_on_terminate = true
