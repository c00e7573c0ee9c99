"""VCR, the data set of value-conditioned rewrites: preferences of people, annotated and turned into triplets (paper, section 4.1, App. C)."""
