"""The fault scenarios, one file each; `run` plays them."""
