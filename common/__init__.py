"""The shared room: what every stage needs and no stage owns.

Errors with exit codes, one subprocess wrapper, references and digests, paths, progress output, and the host's services.
Stages import from here; nothing here imports a stage.
"""
