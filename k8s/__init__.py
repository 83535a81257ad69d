"""What runs: plain manifests, pinned, checked, and put into a directory or a cluster.

The modules here are the commands; none imports another. `objects` reads manifests and walks them beside their schema, `envs`
says what an environment sets, `rules` judge a set, `prepare` makes of the manifests in git a set that may be sent, `rollouts`
puts it into a cluster and back, `training` does the same for an experiment; `pipeline` is what runs in pods.
"""
