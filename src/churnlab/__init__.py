"""churnlab: who will leave, what kinds of members are there, and what to do about each kind."""
