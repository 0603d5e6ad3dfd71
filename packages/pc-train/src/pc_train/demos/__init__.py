"""An app's demo and study on synthetic worlds, and the evidence of all of them."""
