"""Fewer bits and fewer weights in exported networks."""
