"""Students: ``networks`` (built-in architectures), ``student`` (a network with its optimizer)."""
