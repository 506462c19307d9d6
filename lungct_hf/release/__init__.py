"""Releases: the gate, one verified commit with a tag, and checks that strangers can repeat without the data.

What a release is, step by step, is told in docs/releases.md. Nothing heavy is loaded before a step needs it.
"""
