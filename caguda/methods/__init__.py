"""The training methods, one file each: settings, inputs, and the loss terms of a step."""
