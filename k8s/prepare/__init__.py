"""From manifests in git to a set that may be sent: settings, pins, nodes, model, gate."""
