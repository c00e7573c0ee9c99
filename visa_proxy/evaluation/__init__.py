"""How well rewriters work (paper, section 4.2): frozen cases, systems to compare, a judge, figures, a report."""
