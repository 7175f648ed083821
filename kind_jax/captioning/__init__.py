"""Models of images and their captions."""
