"""What comes from elsewhere: weights, architectures and predictors that others have trained."""
