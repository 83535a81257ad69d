"""What the objects of a training are called in the cluster."""

NAMESPACE, TEMPLATE = "llm-training", "llama-factory-train"
# As kubectl names the kind, whatever else calls something a workflow.
WORKFLOWS = "workflows.argoproj.io"
# Where the trained model is served.
SERVING_NAMESPACE = "llm-inference"
