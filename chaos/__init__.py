"""What befalls a month of training, compressed into minutes: ``make chaos``."""
