"""Tries smaller and faster forms of a classifier and recommends one."""
