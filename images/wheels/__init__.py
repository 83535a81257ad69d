"""From a wheel to files in a layer: read strictly, checked against RECORD, installed, compiled."""
