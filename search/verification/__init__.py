"""Verification: what was promised beside what is measured on the device."""
