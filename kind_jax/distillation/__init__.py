"""Distillation: small models that learn from large ones (Farhat & Chen 2024, arXiv 2404.03263; Hinton et al. 2015)."""
