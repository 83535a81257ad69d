"""The last stage: plain manifests, the environments, and the code that pins, checks, renders, applies and rolls back.

The way of a manifest: `manifests` reads it, `schema` walks it, `pin` pins its images, `nodes` binds its pods to nodes that can
run them, `rules_*` check it, `check` gathers what they found; `render` writes the set to a directory, `cluster` applies it
through `kubectl`. `deploy` is the stage's face.
"""
