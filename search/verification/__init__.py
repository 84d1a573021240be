"""Verification: compares promised latencies and accuracies with measurements on the device."""
