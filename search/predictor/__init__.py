"""Accuracy predictors: what networks are seen as, how they are fitted, which networks are measured for them, and how good they are."""
