"""Sentence objectives: what pretraining learns of the two texts of a row."""
