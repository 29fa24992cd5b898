"""Every node of the cluster is in the inventory, and an exec into a pod is recorded."""

SUBJECT = "cluster"
