"""The figures: Pinwheel beside the plain tools and the limit of the machine, measured in one run. No stage imports this."""
