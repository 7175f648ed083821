"""The verbs that are others for a classifier."""
