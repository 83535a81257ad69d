"""What is proven: the built images train a model and serve it.

`ladder.run_smoke` is the stage; what it writes is read by `receipt.read`. The suite itself is in `test_*.py`, the programs
that run inside the images are in `payload/`.
"""
