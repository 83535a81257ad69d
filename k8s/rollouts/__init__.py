"""A set in a cluster: plan, consent, lease, apply, wait, read back, record, put back."""
