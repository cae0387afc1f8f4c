"""Callbacks for the trainers of other libraries. Each module imports its framework only when it is itself imported."""
