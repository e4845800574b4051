"""Infilling and generating text with a trained model: ``Glm.load(folder)``."""
