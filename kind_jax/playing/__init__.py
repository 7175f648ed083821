"""Playing with a model in the browser: classes, mixtures of tailors, sizes, and what comes of them.

What is shown for which controls is plain Python (:mod:`kind_jax.playing.studio`); :mod:`kind_jax.playing.page` alone
knows gradio.
"""
