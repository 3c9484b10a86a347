"""Plugins for other programs, made of public names alone."""
