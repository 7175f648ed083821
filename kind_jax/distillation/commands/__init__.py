"""The verbs of runs that distil, where they are others than of classifiers."""
