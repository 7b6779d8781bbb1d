"""How a population uses the machine: the plan, its memory, and running out."""
