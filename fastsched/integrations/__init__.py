"""Callbacks for other people's trainers. Each module imports its framework when it is imported itself, not before."""
