"""Planning a run for hardware that is not here: the real step is compiled for it, no array is allocated."""
