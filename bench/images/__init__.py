"""`invoke bench build`: the builder beside what people would use instead, and beside the limit of the machine."""
