"""Quantization of networks to int8: weights and activations are 8-bit integers."""
