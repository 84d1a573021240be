"""Networks in int8: files whose weights and activations are whole numbers of eight bits."""
