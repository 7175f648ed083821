"""The verbs of modules."""
