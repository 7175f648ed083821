"""Training images drawn by a trained model: :func:`kind_jax.synthesis.make.synthesize`."""
