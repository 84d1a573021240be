"""Accuracy predictors: features of networks, Gaussian processes, active learning, and validation."""
