"""From scores, or from gradients, to masks."""
