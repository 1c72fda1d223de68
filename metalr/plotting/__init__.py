"""What all figures share: colours that the colour-blind can tell apart, themes, and a canvas to draw on.

Figures of a comparison are in `metalr.compare.report`, those of an inspection in `metalr.inspection`.
It imports matplotlib, when a figure is drawn, and nothing else of metalr.
"""
