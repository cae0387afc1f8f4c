"""What steps learning rates: on the host, on tensors, and what both need."""
