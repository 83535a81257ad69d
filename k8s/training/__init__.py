"""Experiments in git, trained in the cluster: `experiments/<team>/<model>/<run>.yaml` → ConfigMap and Workflow.

`keys.py` reads what LLaMA-Factory of the lock knows, `experiment.py` and `dataset.py` check what a person wrote against it,
`runs.py` makes of it what the pods get, `workflow.py` the objects, `submit.py` brings them where the environment says, and
`watch.py` follows.
"""
