"""Import of weights, architectures, predictors and tables from other programs."""
