"""Image classification, a kind of run."""
