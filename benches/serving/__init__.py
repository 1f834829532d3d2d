"""llm-api against llama-server, side by side: what `make bench` runs.

A scene starts servers of both kinds on one model, lets a load client that is a process of its own
speak to them in turns, and keeps what it saw as JSON. The report makes a table and a picture of
all scenes that were kept.
"""
