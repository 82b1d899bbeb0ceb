"""Policies by name: ``registry``."""
