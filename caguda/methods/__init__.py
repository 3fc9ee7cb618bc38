"""Methods that train a run, one file each: their settings, what they read, and the loss terms of a step."""
