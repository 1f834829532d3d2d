"""Mixed traffic for a while, and what is left of it afterwards."""
