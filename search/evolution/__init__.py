"""Evolution of encoded archs by arrays, what was evaluated, and which of it is not dominated."""
