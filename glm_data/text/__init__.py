"""Compiled kernels over blocks of text: scripts, statistics, folding and shingles."""
