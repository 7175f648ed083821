"""Verbs of the command line that are others for models of images and captions."""
