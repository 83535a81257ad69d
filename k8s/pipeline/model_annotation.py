"""How a workload says which model it serves, and who changes that. For programs of pods and for deploys alike."""

# Of the pod template: the model's reference, by digest. The init container `fetch` reads it and follows it.
ANNOTATION = "pinwheel.io/model"
# The field manager under which the pipeline's deploy step sets it.
MANAGER = "pinwheel-pipeline"
